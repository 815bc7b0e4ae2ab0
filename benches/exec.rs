//! What the channel adds to a tool's round trip.
//!
//! The frames of an `echo` tool go over a Unix stream, which is what a VMM's hybrid vsock is on the host's side, to a
//! peer that does nothing for it: so all that is measured is the host's work and the stream. The bare echo sends as
//! many bytes each way to a peer that sends them back. The last row is the dispatcher, which starts a process.

#![expect(clippy::print_stdout, reason = "a bench prints what it found")]

mod measure;

use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;
use std::time::Duration;

use chv_sandbox::guest::frame::{LengthError, encode, read_frame, write_frame};
use chv_sandbox::guest::protocol::{
    EvidenceChain, EvidenceChunk, Frame, ToolDispatch, ToolName, ToolResult,
};
use chv_sandbox::guest::stand_in::StandIn;
use chv_sandbox::vsock::{Channel, ChannelConfig};
use measure::Row;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Builder;
use uuid::Uuid;

const ROUNDS: usize = 20;
const CALLS: usize = 200;
/// A tool is a process, so that fewer of them say as much.
const TOOLS: usize = 10;

const GRACE: Duration = Duration::from_secs(5);

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let (bare, no_op) = (folder.path().join("bare"), folder.path().join("no-op"));
    let request = encode(&Frame::ToolDispatch(echo()))?;
    let answer = answer_to(echo())?;
    serve(&bare, {
        let (request, answer) = (request.len(), answer.clone());
        move |stream| bare_echo(stream, request, &answer)
    })?;
    serve(&no_op, no_op_tool)?;
    let stand_in = StandIn::new(folder.path().join("stand-in"))?;
    stand_in.start()?;

    measure::print_load();
    println!(
        "an echo tool: {} bytes to the guest, {} bytes back",
        request.len(),
        answer.len()
    );
    let one_thread = Builder::new_current_thread().enable_all().build()?;
    let two_threads = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let mut blocking = connect(&bare)?;
    let mut tokio_stream = {
        let stream = connect(&bare)?;
        stream.set_nonblocking(true)?;
        let _inside = one_thread.enter();
        tokio::net::UnixStream::from_std(stream)?
    };
    let mut codec = connect(&no_op)?;
    let channel = one_thread.block_on(Channel::open(&ChannelConfig::new(&no_op)))?;
    let channel_two = two_threads.block_on(Channel::open(&ChannelConfig::new(&no_op)))?;
    let tools = one_thread.block_on(Channel::open(&ChannelConfig::new(stand_in.socket())))?;

    let mut rows = [
        Row::new("bare echo, blocking"),
        Row::new("bare echo, tokio"),
        Row::new("frames by hand, peer decodes and answers"),
        Row::new("channel, one thread, the same peer"),
        Row::new("channel, two worker threads, the same peer"),
        Row::new("channel, the dispatcher runs a process"),
    ];
    let mut back = vec![0; answer.len()];
    for _ in 0..ROUNDS {
        rows[0].block(CALLS, || {
            blocking.write_all(&request).expect("sent");
            blocking.read_exact(&mut back).expect("answered");
        });
        one_thread.block_on(rows[1].block_async(CALLS, async || {
            tokio_stream.write_all(&request).await.expect("sent");
            tokio_stream.read_exact(&mut back).await.expect("answered");
        }));
        rows[2].block(CALLS, || {
            write_frame(&mut codec, &Frame::ToolDispatch(echo())).expect("sent");
            for _ in ["chunk", "result"] {
                read_frame(&mut codec).expect("answered");
            }
        });
        let run = async |channel: &Channel| {
            let result = channel.dispatch(echo(), GRACE).await.expect("answered");
            assert_eq!(result.exit_code, 0);
        };
        one_thread.block_on(rows[3].block_async(CALLS, async || run(&channel).await));
        two_threads.block_on(rows[4].block_async(CALLS, async || run(&channel_two).await));
        one_thread.block_on(rows[5].block_async(TOOLS, async || run(&tools).await));
    }
    measure::print(&rows);
    println!(
        "channel / bare echo, both tokio, the peer's decoding included: {:.2} (goal: at most 1.3)",
        rows[3].median().as_secs_f64() / rows[1].median().as_secs_f64()
    );
    Ok(())
}

fn echo() -> ToolDispatch {
    ToolDispatch {
        command_id: Uuid::new_v4().to_string(),
        tool: ToolName::new("echo").expect("a name"),
        params: json!({"message": "hello"}),
        deadline_ms: 60_000,
    }
}

/// What a guest sends for an `echo`: the chunk and the result in one piece.
fn answer_to(dispatch: ToolDispatch) -> Result<Vec<u8>, LengthError> {
    let output = b"hello\n";
    let chunk = EvidenceChunk {
        command_id: dispatch.command_id.clone(),
        seq: 1,
        chunk_data: output.to_vec(),
        chunk_size: output.len() as u32,
        is_terminal: true,
    };
    let mut chain = EvidenceChain::default();
    chain.append(&chunk);
    let mut answer = encode(&Frame::EvidenceChunk(chunk))?;
    answer.extend(encode(&Frame::ToolResult(ToolResult {
        command_id: dispatch.command_id,
        exit_code: 0,
        stdout: String::from_utf8_lossy(output).into_owned(),
        stderr: String::new(),
        evidence_hash: Some(chain.last_link()),
    }))?);
    Ok(answer)
}

/// Takes connections as a VMM does, and lets `peer` have each of them after the handshake.
fn serve(
    socket: &Path,
    peer: impl Fn(UnixStream) -> std::io::Result<()> + Clone + Send + 'static,
) -> std::io::Result<()> {
    let listener = UnixListener::bind(socket)?;
    thread::spawn(move || {
        for stream in listener.incoming() {
            let peer = peer.clone();
            thread::spawn(move || {
                let mut stream = stream?;
                let mut line = String::new();
                // Nothing follows the line before it is answered.
                BufReader::new(stream.try_clone()?).read_line(&mut line)?;
                stream.write_all(b"OK 1073741824\n")?;
                peer(stream)
            });
        }
    });
    Ok(())
}

fn connect(socket: &Path) -> std::io::Result<UnixStream> {
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(b"CONNECT 1024\n")?;
    stream.read_exact(&mut [0; 14])?;
    Ok(stream)
}

/// Sends `answer` for every `request` bytes.
fn bare_echo(mut stream: UnixStream, request: usize, answer: &[u8]) -> std::io::Result<()> {
    let mut bytes = vec![0; request];
    loop {
        stream.read_exact(&mut bytes)?;
        stream.write_all(answer)?;
    }
}

/// Answers each dispatch with what an `echo` would have said.
fn no_op_tool(stream: UnixStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    while let Ok(Some(Frame::ToolDispatch(dispatch))) = read_frame(&mut reader) {
        let answer = answer_to(dispatch).map_err(std::io::Error::other)?;
        writer.write_all(&answer)?;
    }
    Ok(())
}
