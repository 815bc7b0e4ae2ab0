//! [`record`] plays a scenario on a VMM of its own, through a recorder.

use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::timeout;

use super::battery::{Ask, Scenario};
use super::recording::{Recording, Unreached};
use super::{Error, idle_kernel};
use crate::api::Method;
use crate::client::Release;
use crate::replay::vmm_connection::exchange;
use crate::replay::wire::RawResponse;
use crate::replay::{Recorder, RecorderOptions};
use crate::vmm::{Grants, Vmm, VmmConfig};

/// The time limit of one answer. The slowest calls are boot, snapshot and restore of 64 MiB.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// Plays `scenario` on a VMM that is started for it below `folder`. The folder must be empty and private, and its path
/// must be short.
///
/// # Errors
///
/// Every variant of [`Error`] that is not about the choice of a release.
pub async fn record(
    scenario: &Scenario,
    config: &VmmConfig,
    folder: &Path,
) -> Result<Recording, Error> {
    let run = folder.join("run");
    prepare(&run)?;
    let placeholder = run.to_str().ok_or_else(|| Error::NotText {
        path: folder.to_owned(),
    })?;
    let vmm = start(config, Some(folder)).await?;
    let failed = |source| Error::Recording {
        scenario: scenario.name,
        source,
    };
    let options = RecorderOptions::new(vmm.client().address().clone(), folder.join("s"))
        .placeholder(placeholder, "RUN")
        .notes(scenario.about);
    let recorder = Recorder::start(options).await.map_err(failed)?;
    let unreached = play(scenario, recorder.socket(), placeholder).await?;
    let cassette = recorder.finish().await.map_err(failed)?;
    vmm.shutdown().await;
    Ok(Recording {
        scenario: scenario.name,
        cassette,
        unreached,
    })
}

/// Starts a VMM that may write in `folder`. A failure is reported as [`Error::Vmm`], because the binary may be any
/// program.
pub(super) async fn start(config: &VmmConfig, folder: Option<&Path>) -> Result<Vmm, Error> {
    let grants = Grants {
        writes: folder.into_iter().map(Path::to_owned).collect(),
        ..Grants::default()
    };
    Vmm::spawn_with(config, grants)
        .await
        .map_err(|source| Error::Vmm {
            binary: config.binary.clone(),
            source: Box::new(source),
        })
}

/// Plays the steps until one fails that the following steps need.
async fn play(scenario: &Scenario, socket: &Path, run: &str) -> Result<Option<Unreached>, Error> {
    for step in &scenario.steps {
        let (method, path, body) = match &step.ask {
            Ask::Call(operation, body) => {
                let body = body.as_ref().map(|body| body.replace("${RUN}", run));
                let body = body.unwrap_or_default().into_bytes();
                (operation.method().as_str(), operation.path(), body)
            }
            Ask::Wire { method, path, body } => (*method, path.as_str(), body.clone()),
        };
        let answer = match ask(socket, method, path, &body, scenario.name).await {
            // The recorder stops listening when the VMM ends.
            Err(error) if error.is_vmm_ended() => return Ok(None),
            answer => answer?,
        };
        if let Some(what) = step.opens
            && !answer
                .as_ref()
                .is_some_and(|answer| matches!(answer.status, 200..=299))
        {
            let said = answer.map_or_else(
                || "the VMM ended".to_owned(),
                |answer| super::outline::words(&answer.body),
            );
            return Ok(Some(Unreached { what, said }));
        }
    }
    Ok(None)
}

/// Sends one request on a connection of its own. Returns `None` if the VMM closes it without an answer.
pub(super) async fn ask(
    socket: &Path,
    method: &str,
    path: &str,
    body: &[u8],
    during: &'static str,
) -> Result<Option<RawResponse>, Error> {
    let asked = || format!("{method} {path}");
    let request = request(method, path, body);
    match timeout(ANSWER_LIMIT, exchange(socket, &request)).await {
        Ok(answer) => answer.map_err(|source| Error::Connection {
            asked: asked(),
            socket: socket.to_owned(),
            source,
        }),
        Err(_elapsed) => Err(Error::Silent {
            asked: asked(),
            during,
            limit: ANSWER_LIMIT,
        }),
    }
}

/// Returns the bytes of a request as the client of this crate sends it.
pub(super) fn request(method: &str, path: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n").into_bytes();
    if method != Method::Get.as_str() {
        bytes.extend(format!("content-length: {}\r\n", body.len()).into_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}

/// Creates the files that the scenarios name.
fn prepare(run: &Path) -> Result<(), Error> {
    let failed = |path: PathBuf| move |source| Error::Directory { path, source };
    for folder in [run, &run.join("snapshot")] {
        DirBuilder::new()
            .mode(0o700)
            .create(folder)
            .map_err(failed(folder.to_owned()))?;
    }
    let kernel = run.join("kernel");
    idle_kernel::write(&kernel).map_err(failed(kernel.clone()))?;
    for (name, mebibytes) in [("disk.img", 1), ("extra.img", 1), ("pmem.img", 2)] {
        let path = run.join(name);
        File::create(&path)
            .and_then(|file| file.set_len(mebibytes << 20))
            .map_err(failed(path.clone()))?;
    }
    Ok(())
}

/// Asks a VMM for its release.
pub(super) async fn release(vmm: &Vmm) -> Result<Release, Error> {
    vmm.client()
        .release()
        .await
        .map_err(|source| Error::NoRelease {
            source: Box::new(source),
        })
}
