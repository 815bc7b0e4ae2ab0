//! Replays the battery from the cassettes in `fixtures/`, and records it from a real VMM.
//!
//! To record a release anew (a recording with an unexpected answer is not written):
//!
//! ```text
//! UPDATE=1 CLOUD_HYPERVISOR=path/to/cloud-hypervisor cargo test --test it -- --ignored replay::cassettes
//! ```
//!
//! Without `UPDATE` the same test checks that this VMM still answers as the cassettes of its release say.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chv_sandbox::api::{self, Operation};
use chv_sandbox::client::{Client, Deadlines, ErrorKind, Release};
use chv_sandbox::compat::probe::battery::{self, Ask, Expected, Scenario, Step};
use chv_sandbox::compat::probe::{self, recorded};
use chv_sandbox::replay::{Answer, Cassette, Player, PlayerOptions};
use chv_sandbox::vmm::VmmConfig;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::relay::Relay;
use crate::client::methods::by_method;
use crate::compat::probe::expected::{check, describe};
use crate::real;

/// The folder that replaces the run's folder in a replay. It does not exist: a replay opens no file.
const REPLAYED_RUN: &str = "/replayed/run";

/// Each recorded body of these that was accepted has a field which not every release knows. Before such a body the
/// client asks for the release, which no cassette has.
const ASKING: &[Operation] = &[
    Operation::VmAddDisk,
    Operation::VmAddGenericVhostUser,
    Operation::VmCreate,
    Operation::VmResizeDisk,
];

/// A player of a scenario's cassette, and the folder of its socket.
async fn player(scenario: &Scenario, release: Release) -> (TempDir, Player) {
    let folder = tempfile::tempdir().unwrap();
    let options = PlayerOptions::new(folder.path().join("s")).substitute("RUN", REPLAYED_RUN);
    let player = Player::start(cassette(scenario, release), options).await;
    (folder, player.unwrap())
}

#[tokio::test]
async fn every_cassette_is_played_by_the_scripted_server() {
    for (scenario, release) in every_recording() {
        let (_folder, player) = player(&scenario, release).await;
        let wrong = unexpected(&scenario, release, player.socket(), REPLAYED_RUN).await;
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        player.finish().await.unwrap();
    }
}

#[tokio::test]
async fn every_cassette_is_played_by_the_mock_server() {
    for (scenario, release) in every_recording() {
        let substitutions = BTreeMap::from([("RUN".to_owned(), REPLAYED_RUN.to_owned())]);
        let relay = Relay::start(cassette(&scenario, release), &substitutions).await;
        let wrong = unexpected(&scenario, release, &relay.socket(), REPLAYED_RUN).await;
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        relay.finish().unwrap();
    }
}

/// What the client's methods send is what was recorded, and they read what came back.
#[tokio::test]
async fn every_cassette_is_played_by_the_methods_of_the_client() {
    let mut played = BTreeSet::new();
    for (scenario, release) in every_recording() {
        let (_folder, player) = player(&scenario, release).await;
        let client = Client::new(player.socket()).unwrap();
        for (index, step) in scenario.steps.iter().enumerate() {
            let place = format!("{} on {release}, step {}", scenario.name, index + 1);
            let Ask::Call(operation, body) = &step.ask else {
                let said = unexpected_step(step, release, &client, REPLAYED_RUN).await;
                assert_eq!(said, None, "{place}");
                continue;
            };
            let sent = body
                .as_ref()
                .map(|body| body.replace("${RUN}", REPLAYED_RUN));
            match by_method(&client, *operation, sent.as_deref()).await {
                Some(got) => {
                    let checked = check(step.expected(release), got);
                    assert_eq!(checked, Ok(()), "{place}, {operation}");
                    played.insert(*operation);
                }
                None => {
                    let said = unexpected_step(step, release, &client, REPLAYED_RUN).await;
                    assert_eq!(said, None, "{place}");
                }
            }
        }
        player.finish().await.unwrap();
    }
    let mut missing = Operation::ALL.to_vec();
    missing.retain(|operation| !played.contains(operation));
    assert_eq!(missing, ASKING);
}

#[test]
fn every_cassette_is_of_a_scenario_and_a_release() {
    let mut expected: Vec<PathBuf> = every_recording()
        .map(|(scenario, release)| file(&scenario, release))
        .collect();
    let mut found: Vec<PathBuf> = releases()
        .flat_map(|release| fs::read_dir(fixtures().join(release.to_string())).unwrap())
        .map(|entry| entry.unwrap().path())
        .collect();
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
    for (scenario, release) in every_recording() {
        assert_eq!(
            cassette(&scenario, release).release,
            release,
            "{}",
            scenario.name
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real VMM: set CLOUD_HYPERVISOR"]
async fn a_real_vmm_answers_as_recorded() {
    let Some(binary) = real::vmm_binary() else {
        return;
    };
    let update = std::env::var_os("UPDATE").is_some();
    let mut wrong = Vec::new();
    for scenario in battery::all() {
        let cassette = record(&scenario, &binary).await;
        let release = cassette.release;
        let unexpected = replayed(&scenario, &cassette).await;
        if !unexpected.is_empty() {
            wrong.extend(unexpected);
        } else if update {
            fs::create_dir_all(fixtures().join(release.to_string())).unwrap();
            cassette.write(file(&scenario, release)).unwrap();
        } else if releases().any(|known| known == release) {
            let known = self::cassette(&scenario, release);
            assert_eq!(
                outline(&scenario, &cassette),
                outline(&scenario, &known),
                "{} on {release}",
                scenario.name
            );
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The deviations of a recording from its scenario.
async fn replayed(scenario: &Scenario, cassette: &Cassette) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let options = PlayerOptions::new(folder.path().join("s")).substitute("RUN", REPLAYED_RUN);
    let player = Player::start(cassette.clone(), options).await.unwrap();
    let release = cassette.release;
    let mut wrong = unexpected(scenario, release, player.socket(), REPLAYED_RUN).await;
    if let Err(error) = player.finish().await {
        wrong.push(format!("{} on {release}: {error}", scenario.name));
    }
    wrong
}

/// The facts that must be the same in every recording of a release. Counters and sizes of the host may differ.
fn outline(scenario: &Scenario, cassette: &Cassette) -> Vec<String> {
    let steps = scenario.steps.iter().zip(&cassette.exchanges);
    steps
        .map(|(step, exchange)| {
            let request = &exchange.request;
            let answer = match (&exchange.answer, step.expected(cassette.release)) {
                // A VMM that dies may or may not have time for an answer.
                (_, Expected::Error(ErrorKind::VmmGone)) => "gone".to_owned(),
                (Answer::Response(response), _) => response.status.to_string(),
                (Answer::Closed, _) => "closed".to_owned(),
            };
            let (method, path) = (&request.method, &request.path);
            format!("{method} {path} {:?} -> {answer}", request.body)
        })
        .collect()
}

/// Plays a scenario against a VMM of its own.
async fn record(scenario: &Scenario, binary: &Path) -> Cassette {
    let folder = tempfile::tempdir().unwrap();
    let config = VmmConfig {
        env: real::snapshot_environment(binary).await,
        binary: binary.to_owned(),
        run_root: folder.path().join("vmm"),
        ..VmmConfig::default()
    };
    let recording = probe::record(scenario, &config, folder.path())
        .await
        .unwrap();
    assert_eq!(recording.unreached, None, "{}", scenario.name);
    recording.cassette
}

/// Runs a scenario against the server on `socket`, and returns every deviation.
async fn unexpected(
    scenario: &Scenario,
    release: Release,
    socket: &Path,
    run: &str,
) -> Vec<String> {
    let client = Client::new(socket)
        .unwrap()
        .with_deadlines(Deadlines::default());
    let mut wrong = Vec::new();
    for (index, step) in scenario.steps.iter().enumerate() {
        if let Some(said) = unexpected_step(step, release, &client, run).await {
            let name = scenario.name;
            wrong.push(format!("{name} on {release}, step {}, {said}", index + 1));
        }
    }
    wrong
}

/// Asks what a step asks, as it is, and says what was not as expected.
async fn unexpected_step(
    step: &Step,
    release: Release,
    client: &Client,
    run: &str,
) -> Option<String> {
    let expected = step.expected(release);
    match &step.ask {
        Ask::Call(operation, body) => {
            let body = body.as_ref().map(|body| body.replace("${RUN}", run).into());
            // What a VMM makes of what it doesn't know is part of a recording.
            let request = api::Request::raw(*operation, body).unchecked();
            let got = client.send(request).await;
            let said = check(expected, got).err()?;
            Some(format!("{operation}: {said}"))
        }
        Ask::Wire { method, path, body } => {
            let status = exchange(client.socket(), method, path, body).await;
            match expected {
                Expected::Status(expected) if *expected == status => None,
                expected => Some(format!(
                    "{method} {path}: expected {}, got status {status}",
                    describe(expected)
                )),
            }
        }
    }
}

/// One request past the client; the status of its answer.
async fn exchange(socket: &Path, method: &str, path: &str, body: &[u8]) -> u16 {
    let length = body.len();
    let mut bytes =
        format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n")
            .into_bytes();
    bytes.extend_from_slice(body);
    let answer = async {
        let mut stream = UnixStream::connect(socket).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        let mut status = [0; "HTTP/1.1 200".len()];
        stream.read_exact(&mut status).await.unwrap();
        String::from_utf8_lossy(&status[9..]).parse().unwrap()
    };
    tokio::time::timeout(Duration::from_secs(30), answer)
        .await
        .expect("an answer in time")
}

/// Every scenario on every release.
fn every_recording() -> impl Iterator<Item = (Scenario, Release)> {
    releases().flat_map(|release| {
        battery::all()
            .into_iter()
            .map(move |scenario| (scenario, release))
    })
}

/// The recorded releases, each of which has a folder of cassettes.
fn releases() -> impl Iterator<Item = Release> {
    recorded::releases().map(|release| Release::new(release.major.into(), release.minor.into()))
}

fn cassette(scenario: &Scenario, release: Release) -> Cassette {
    Cassette::read(file(scenario, release)).unwrap()
}

fn file(scenario: &Scenario, release: Release) -> PathBuf {
    fixtures()
        .join(release.to_string())
        .join(scenario.name)
        .with_extension("json")
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}
