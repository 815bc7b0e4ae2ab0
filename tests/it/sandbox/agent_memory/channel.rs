//! Attacks by a guest, through the channel. The subscribers of the channel's events never read them.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use chv_sandbox::guest::frame::{encode, read_frame};
use chv_sandbox::guest::protocol::{Frame, Hello, MAX_FRAME, ToolDispatch, ToolName};
use chv_sandbox::vsock::{Channel, ChannelConfig, Error};
use serde_json::json;
use tempfile::TempDir;

use super::runtime;

/// A limit that is reached only when a test fails.
const LIMIT: Duration = Duration::from_secs(60);

/// A guest on a thread, which handles each connection with `play`, one after the other.
struct Guest {
    dir: TempDir,
    _thread: JoinHandle<()>,
}

impl Guest {
    fn new(play: impl Fn(UnixStream) + Send + 'static) -> Guest {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("vsock")).unwrap();
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut line = String::new();
                BufReader::with_capacity(1, &stream)
                    .read_line(&mut line)
                    .unwrap();
                stream.write_all(b"OK 1073741824\n").unwrap();
                play(stream);
            }
        });
        Guest {
            dir,
            _thread: thread,
        }
    }

    async fn connect(&self) -> Channel {
        let config = ChannelConfig::new(self.dir.path().join("vsock"));
        Channel::open(&config).await.unwrap()
    }
}

/// Writes a frame of `length` bytes that begins with `begin`, ends with `end` and has `filling` between. Returns
/// `false` once the host has closed the connection.
fn send(stream: &mut UnixStream, length: usize, begin: &str, filling: &str, end: &str) -> bool {
    let header = u32::try_from(length).unwrap().to_be_bytes();
    let mut left = length - begin.len() - end.len();
    let mut sent = stream.write_all(&header).is_ok() && stream.write_all(begin.as_bytes()).is_ok();
    let piece = filling.repeat(60_000 / filling.len());
    while sent && left > 0 {
        let take = left.min(piece.len());
        // The remaining bytes can't hold another `filling`, so a character without an escape fills them.
        let whole = take - take % filling.len();
        sent = match whole {
            0 => stream.write_all("x".repeat(take).as_bytes()).is_ok(),
            _ => stream.write_all(&piece.as_bytes()[..whole]).is_ok(),
        };
        left -= if whole == 0 { take } else { whole };
    }
    sent && stream.write_all(end.as_bytes()).is_ok()
}

async fn closed(channel: &Channel) -> Error {
    loop {
        if let Some(reason) = channel.closed() {
            return reason;
        }
        tokio::task::yield_now().await;
    }
}

pub(super) fn host_only_frame() {
    refused(
        "{\"type\":\"ToolDispatch\",\"params\":[",
        "{},",
        "]}",
        "SANDBOX_VSOCK_PROTOCOL_ERROR",
    );
}

pub(super) fn host_only_frame_type_last() {
    refused(
        "{\"params\":\"",
        "\\n",
        "\",\"type\":\"ToolDispatch\"}",
        "SANDBOX_VSOCK_PROTOCOL_ERROR",
    );
}

pub(super) fn unasked_reset_acks() {
    refused(
        "{\"type\":\"ResetAck\",\"reset_id\":\"",
        "\\u0041",
        "\"}",
        "SANDBOX_VSOCK_FRAME_TOO_LARGE",
    );
}

/// Checks on ten channels, one after the other, that the largest frame of this shape closes the channel.
fn refused(begin: &'static str, filling: &'static str, end: &'static str, code: &str) {
    let guest = Guest::new(
        move |mut stream| {
            while send(&mut stream, MAX_FRAME, begin, filling, end) {}
        },
    );
    runtime().block_on(async {
        let mut kept = Vec::new();
        for _ in 0..10 {
            let channel = guest.connect().await;
            kept.push(channel.events());
            assert_eq!(closed(&channel).await.code(), code);
        }
    });
}

fn echo(command_id: &str) -> ToolDispatch {
    ToolDispatch {
        command_id: command_id.to_owned(),
        tool: ToolName::new("echo").unwrap(),
        params: json!({}),
        deadline_ms: 1,
    }
}

/// Results of commands that timed out, each as large as a frame may be.
pub(super) fn late_results() {
    let guest = Guest::new(|mut stream| {
        for at in 0..16 {
            // Half of the results have output that is longer on the wire than in memory.
            let filling = if at % 2 == 0 { "x" } else { "\\n" };
            let begin = format!(
                "{{\"type\":\"ToolResult\",\"command_id\":\"{at}\",\"exit_code\":0,\"stderr\":\"\",\"stdout\":\""
            );
            assert!(send(&mut stream, MAX_FRAME, &begin, filling, "\"}"));
        }
        stream.shutdown(std::net::Shutdown::Both).unwrap();
    });
    runtime().block_on(async {
        let channel = guest.connect().await;
        let _events = channel.events();
        for at in 0..16 {
            // The command times out at once, before anything is read from the guest.
            let _ = channel
                .dispatch(echo(&at.to_string()), Duration::ZERO)
                .await;
        }
        assert_eq!(closed(&channel).await.code(), "SANDBOX_VSOCK_CLOSED");
    });
}

/// Chunks, without end, of a command that timed out.
pub(super) fn late_chunks() {
    let guest = Guest::new(|mut stream| {
        for _ in 0..200 {
            let begin = "{\"type\":\"EvidenceChunk\",\"command_id\":\"c\",\"seq\":1,\"is_terminal\":false,\
                \"chunk_size\":1048575,\"chunk_data\":\"";
            let length = begin.len() + 1_398_100 + 2;
            assert!(send(&mut stream, length, begin, "AAAA", "\"}"));
        }
        stream.shutdown(std::net::Shutdown::Both).unwrap();
    });
    runtime().block_on(async {
        let channel = guest.connect().await;
        let _events = channel.events();
        let _ = channel.dispatch(echo("c"), Duration::ZERO).await;
        assert_eq!(closed(&channel).await.code(), "SANDBOX_VSOCK_CLOSED");
    });
}

/// For each of several commands in flight, as many chunks as the channel keeps, and then the largest result.
pub(super) fn kept_chunks() {
    const COMMANDS: usize = 4;

    let guest = Guest::new(|mut stream| {
        let mut requests = stream.try_clone().unwrap();
        read_frame(&mut requests).unwrap();
        let hello = Frame::Hello(Hello::of_this_build());
        stream.write_all(&encode(&hello).unwrap()).unwrap();
        for _ in 0..COMMANDS {
            read_frame(&mut requests).unwrap();
        }
        for id in 0..COMMANDS {
            for seq in 1..=2 {
                let begin = format!(
                    "{{\"type\":\"EvidenceChunk\",\"command_id\":\"{id}\",\"seq\":{seq},\"is_terminal\":{},\
                        \"chunk_size\":1048575,\"chunk_data\":\"",
                    seq == 2
                );
                let length = begin.len() + 1_398_100 + 2;
                assert!(send(&mut stream, length, &begin, "AAAA", "\"}"));
            }
        }
        for id in 0..COMMANDS {
            let begin = format!(
                "{{\"type\":\"ToolResult\",\"command_id\":\"{id}\",\"exit_code\":0,\"outcome\":\"exited\",\
                    \"stdout_total\":2097150,\"stdout_kept\":2097150,\"stderr_total\":0,\"stderr_kept\":0,\
                    \"stderr\":\"\",\"stdout\":\""
            );
            assert!(send(&mut stream, MAX_FRAME, &begin, "x", "\"}"));
        }
        stream.shutdown(std::net::Shutdown::Both).unwrap();
    });
    runtime().block_on(async {
        let channel = guest.connect().await;
        let _events = channel.events();
        channel.hello(LIMIT).await.unwrap();
        let commands = (0..COMMANDS).map(|id| channel.dispatch(echo(&id.to_string()), LIMIT));
        for got in futures_util::future::join_all(commands).await {
            assert_eq!(got.unwrap_err().code(), "SANDBOX_TOOL_ERROR");
        }
    });
}

/// Error events, without end, that belong to no request.
pub(super) fn error_events() {
    let guest = Guest::new(|mut stream| {
        for _ in 0..2000 {
            let begin = "{\"type\":\"ErrorEvent\",\"code\":\"c\",\"message\":\"";
            assert!(send(&mut stream, 64 << 10, begin, "\\u001b", "\"}"));
        }
        stream.shutdown(std::net::Shutdown::Both).unwrap();
    });
    runtime().block_on(async {
        let channel = guest.connect().await;
        let _events = channel.events();
        assert_eq!(closed(&channel).await.code(), "SANDBOX_VSOCK_CLOSED");
    });
}
