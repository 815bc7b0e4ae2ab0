//! Measures the cost of a call to the VMM: `vmm.ping` on a kept-alive connection, compared with the raw bytes on the
//! same socket, with one `ch-remote` process for each call, and with the published crate `cloud-hypervisor-client`.
//!
//! `CLOUD_HYPERVISOR` is the path of the VMM; without it the scripted player answers. `CH_REMOTE` is the path of
//! `ch-remote`; without it that row is left out.

#![expect(clippy::print_stdout, reason = "a bench prints what it found")]

mod measure;

use std::env;
use std::error::Error;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use chv_sandbox::client::Client;
use chv_sandbox::replay::{Cassette, Player, PlayerOptions};
use chv_sandbox::vmm::{Vmm, VmmConfig};
use cloud_hypervisor_client::apis::DefaultApi;
use cloud_hypervisor_client::socket_based_api_client;
use measure::Row;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime};

const ROUNDS: usize = 20;
const CALLS: usize = 100;
/// Processes are slow, so fewer of them suffice.
const PROCESSES: usize = 5;

const REQUEST: &[u8] =
    b"GET /api/v1/vmm.ping HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n\r\n";

fn main() -> Result<(), Box<dyn Error>> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let folder = tempfile::tempdir()?;
    let server = Server::start(&runtime, folder.path())?;
    measure::print_load();
    println!("vmm.ping, kept alive; the server is {}", server.name());

    let socket = server.socket();
    let ch_remote = env::var_os("CH_REMOTE").map(PathBuf::from);
    if ch_remote.is_none() {
        println!("ch-remote: skipped, because CH_REMOTE is not set");
    }
    let one_thread = Builder::new_current_thread().enable_all().build()?;
    // A kept-alive connection belongs to the runtime on which it was opened.
    let (client, client_two) = (Client::new(socket)?, Client::new(socket)?);
    let other = socket_based_api_client(socket);
    let mut raw = UnixStream::connect(socket)?;
    let mut raw_async = one_thread.block_on(tokio::net::UnixStream::connect(socket))?;

    let mut rows = [
        Row::new("raw bytes, blocking"),
        Row::new("raw bytes, tokio"),
        Row::new("this crate, one thread"),
        Row::new("this crate, two worker threads"),
        Row::new("cloud-hypervisor-client, one thread"),
        Row::new("ch-remote, a process a call"),
    ];
    for _ in 0..ROUNDS {
        rows[0].block(CALLS, || exchange(&mut raw));
        one_thread.block_on(rows[1].block_async(CALLS, async || {
            exchange_async(&mut raw_async).await;
        }));
        let ping = async |client: &Client| {
            client.vmm_ping().await.expect("an answer");
        };
        one_thread.block_on(rows[2].block_async(CALLS, async || ping(&client).await));
        runtime.block_on(rows[3].block_async(CALLS, async || ping(&client_two).await));
        one_thread.block_on(rows[4].block_async(CALLS, async || {
            other.vmm_ping_get().await.expect("an answer");
        }));
        if let Some(ch_remote) = &ch_remote {
            rows[5].block(PROCESSES, || ping_by_process(ch_remote, socket));
        }
    }
    measure::print(&rows);
    let over = |slow: usize, fast: usize| {
        rows[slow].median().as_secs_f64() / rows[fast].median().as_secs_f64()
    };
    println!(
        "this crate / raw bytes: {:.2} (goal: at most 1.3)",
        over(2, 0)
    );
    println!(
        "cloud-hypervisor-client / this crate: {:.2} (goal: at least 1)",
        over(4, 2)
    );
    if ch_remote.is_some() {
        println!(
            "ch-remote / this crate: {:.1} (goal: at least 15)",
            over(5, 2)
        );
    }
    drop(other);
    runtime.block_on(server.stop());
    Ok(())
}

/// The server that answers.
enum Server {
    Vmm(Box<Vmm>),
    Player(Player),
}

impl Server {
    fn start(runtime: &Runtime, folder: &Path) -> Result<Server, Box<dyn Error>> {
        match env::var_os("CLOUD_HYPERVISOR") {
            Some(binary) => {
                let config = VmmConfig {
                    binary: binary.into(),
                    run_root: folder.join("run"),
                    ..VmmConfig::default()
                };
                let vmm = runtime.block_on(Vmm::spawn(&config))?;
                Ok(Server::Vmm(Box::new(vmm)))
            }
            None => {
                let ping = r#"{"request":{"method":"GET","path":"/api/v1/vmm.ping"},
                    "response":{"status":200,"body":
                        {"version":"53.0.0","build_version":"v53.0.0","pid":1,"features":[]}}}"#;
                let pings = vec![ping; ROUNDS * (5 * CALLS + 2 * PROCESSES)].join(",");
                let cassette: Cassette =
                    format!(r#"{{"format":1,"release":"v53.0","exchanges":[{pings}]}}"#).parse()?;
                let options = PlayerOptions::new(folder.join("api.sock"));
                let player = runtime.block_on(Player::start(cassette, options))?;
                Ok(Server::Player(player))
            }
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Server::Vmm(_) => "a real VMM",
            Server::Player(_) => "the scripted player, in this process",
        }
    }

    fn socket(&self) -> &Path {
        match self {
            Server::Vmm(vmm) => vmm.client().socket(),
            Server::Player(player) => player.socket(),
        }
    }

    async fn stop(self) {
        match self {
            Server::Vmm(vmm) => {
                vmm.shutdown().await;
            }
            // The player is dropped without a check, because it has more answers than it was asked for.
            Server::Player(player) => drop(player),
        }
    }
}

fn exchange(stream: &mut UnixStream) {
    stream.write_all(REQUEST).expect("the request is sent");
    let mut answer = [0; 4096];
    let mut filled = 0;
    while !is_whole(&answer[..filled]) {
        let read = stream.read(&mut answer[filled..]).expect("an answer");
        assert!(read > 0, "the server closed the connection");
        filled += read;
    }
}

async fn exchange_async(stream: &mut tokio::net::UnixStream) {
    stream
        .write_all(REQUEST)
        .await
        .expect("the request is sent");
    let mut answer = [0; 4096];
    let mut filled = 0;
    while !is_whole(&answer[..filled]) {
        let read = stream.read(&mut answer[filled..]).await.expect("an answer");
        assert!(read > 0, "the server closed the connection");
        filled += read;
    }
}

/// Whether an answer's head, and as many bytes as it announces, have arrived.
fn is_whole(answer: &[u8]) -> bool {
    let text = std::str::from_utf8(answer).expect("text");
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let mut lines = head.lines().filter_map(|line| line.split_once(':'));
    let length = lines.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length: usize = length.map_or(0, |(_, value)| value.trim().parse().expect("a number"));
    body.len() >= length
}

fn ping_by_process(ch_remote: &Path, socket: &Path) {
    let status = Command::new(ch_remote)
        .arg("--api-socket")
        .arg(socket)
        .arg("ping")
        .stdout(Stdio::null())
        .status()
        .expect("ch-remote runs");
    assert!(status.success(), "{status}");
}
