//! The channel against guests that the tests script, over real Unix sockets.

mod awaken;
mod details;
mod events;
mod evidence;
mod handshake;
mod hostile;
mod requests;
mod streams;

use std::path::{Path, PathBuf};
use std::time::Duration;

use chv_sandbox::broadcast::Receiver;
use chv_sandbox::guest::frame::encode;
use chv_sandbox::guest::protocol::{Frame, ToolDispatch, ToolName, ToolResult};
use chv_sandbox::limits::TimeLimits;
use chv_sandbox::vsock::{Channel, ChannelConfig, ChannelEvent, ChannelEventKind};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

/// A limit that no expected event reaches.
const LIMIT: Duration = Duration::from_secs(20);

/// A time so short that a test can wait for it to pass.
const SHORT: Duration = Duration::from_millis(50);

/// A directory with the hybrid-vsock socket of a VM.
struct Vm {
    dir: TempDir,
}

impl Vm {
    fn new() -> Vm {
        Vm {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("vsock")
    }

    fn listen(&self) -> UnixListener {
        UnixListener::bind(self.socket()).unwrap()
    }

    fn config(&self) -> ChannelConfig {
        config(&self.socket())
    }
}

/// Limits that a working guest doesn't reach.
fn limits() -> TimeLimits {
    TimeLimits::default().boot(LIMIT)
}

fn config(socket: &Path) -> ChannelConfig {
    ChannelConfig {
        limits: limits(),
        ..ChannelConfig::new(socket)
    }
}

/// The guest's end of a connection.
struct Guest {
    stream: UnixStream,
}

impl Guest {
    /// Accepts a connection and reads the line that opens it.
    async fn accept(listener: &UnixListener) -> (Guest, String) {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            line.push(stream.read_u8().await.unwrap());
        }
        (Guest { stream }, String::from_utf8(line).unwrap())
    }

    async fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    async fn send(&mut self, frame: &Frame) {
        self.send_bytes(&encode(frame).unwrap()).await;
    }

    async fn read(&mut self) -> Frame {
        let length = self.stream.read_u32().await.unwrap();
        let mut body = vec![0; length as usize];
        self.stream.read_exact(&mut body).await.unwrap();
        Frame::decode(&body).unwrap()
    }

    /// Reads until the host closes the connection.
    async fn closed(&mut self) {
        let mut rest = Vec::new();
        let read = tokio::time::timeout(LIMIT, self.stream.read_to_end(&mut rest)).await;
        // A host that closes with unread bytes resets the connection.
        let _ = read.expect("the host closes the connection");
    }
}

/// An open channel, and the guest at its other end.
async fn connected(config: &ChannelConfig) -> (Channel, Guest) {
    let listener = UnixListener::bind(config.socket.path()).unwrap();
    let accept = async {
        let (mut guest, _) = Guest::accept(&listener).await;
        guest.send_bytes(b"OK 1073741824\n").await;
        guest
    };
    let (channel, guest) = tokio::join!(Channel::open(config), accept);
    (channel.unwrap(), guest)
}

fn echo(command_id: &str) -> ToolDispatch {
    ToolDispatch {
        command_id: command_id.to_owned(),
        tool: ToolName::new("echo").unwrap(),
        params: json!({"message": command_id}),
        deadline_ms: 20_000,
    }
}

fn result(command_id: &str) -> ToolResult {
    ToolResult {
        command_id: command_id.to_owned(),
        exit_code: 0,
        stdout: format!("{command_id}\n"),
        stderr: String::new(),
        evidence_hash: None,
        details: None,
    }
}

async fn next(events: &mut Receiver<ChannelEvent>) -> ChannelEventKind {
    let event = tokio::time::timeout(LIMIT, events.recv()).await;
    event.expect("an event in time").expect("an event").kind
}
