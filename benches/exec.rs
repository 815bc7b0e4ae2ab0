//! Measures what the channel adds to a round trip, and what the dispatcher adds to a process.
//!
//! Everything uses Unix streams, as a VMM's hybrid vsock does on the host. The bare echo sends a query's bytes (length
//! and body) to a peer that returns them. The peer for the channel does hardly more: it answers a query with prepared
//! bytes, in which it replaces only the id. Most of a tool's cost is its process, so a tool is compared with an echo
//! whose peer runs the same program first. The dispatcher's process is confined (a session, limits, a seccomp filter)
//! and the peer's is not, so that ratio shows the cost of the confinement and not of the channel.

#![expect(clippy::print_stdout, reason = "a bench prints what it found")]

mod measure;

use std::error::Error;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::ops::Range;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use chv_sandbox::guest::frame::encode;
use chv_sandbox::guest::protocol::{
    Frame, GuestQuery, GuestResponse, OpenFdCount, QueryKind, QueryResult, ToolDispatch, ToolName,
};
use chv_sandbox::guest::stand_in::StandIn;
use chv_sandbox::vsock::{Channel, ChannelConfig};
use jiff::Timestamp;
use measure::Row;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime};
use uuid::Uuid;

const ROUNDS: usize = 20;
const CALLS: usize = 200;
/// A tool is a process, so fewer calls suffice.
const TOOLS: usize = 20;

const LIMIT: Duration = Duration::from_secs(5);

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name);
    let query = encode(&Frame::GuestQuery(query()))?;
    serve(&path("echo"), |stream| echo_each(stream, || Ok(())))?;
    serve(&path("process"), |stream| echo_each(stream, run_program))?;
    let ready = Ready::to(&query)?;
    let ready_length = ready.answer.len();
    serve(&path("ready"), move |stream| {
        answer_each(stream, ready.clone())
    })?;
    let stand_in = StandIn::new(path("stand-in"))?;
    stand_in.start()?;

    measure::print_load();
    println!(
        "a query: {} bytes to the guest, {ready_length} bytes back",
        query.len()
    );
    let one_thread = Builder::new_current_thread().enable_all().build()?;
    let two_threads = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let mut blocking = connect(&path("echo"))?;
    let mut echo = connect_async(&one_thread, &path("echo"))?;
    let mut echo_two = connect_async(&two_threads, &path("echo"))?;
    let mut process = connect_async(&one_thread, &path("process"))?;
    let open = |runtime: &Runtime, socket: &Path| {
        runtime.block_on(Channel::open(&ChannelConfig::new(socket)))
    };
    let channel = open(&one_thread, &path("ready"))?;
    let channel_two = open(&two_threads, &path("ready"))?;
    let guest = open(&one_thread, stand_in.socket())?;

    let mut rows = [
        Row::new("bare echo"),
        Row::new("query, the answer is ready"),
        Row::new("query, the dispatcher answers"),
        Row::new("bare echo, in a task of two worker threads"),
        Row::new("query, the answer is ready, in such a task"),
        Row::new("bare echo and a process"),
        Row::new("tool, the dispatcher runs the same process"),
        Row::new("bare echo, blocking"),
    ];
    let mut back = vec![0; query.len()];
    for _ in 0..ROUNDS {
        one_thread.block_on(rows[0].block_async(CALLS, async || {
            exchange(&mut echo, &query, &mut back).await;
        }));
        one_thread.block_on(rows[1].block_async(CALLS, async || ask(&channel).await));
        one_thread.block_on(rows[2].block_async(CALLS, async || ask(&guest).await));
        let (sent, mut received) = (query.clone(), back.clone());
        let (stream, times) = in_a_task(&two_threads, async move {
            let mut times = Vec::with_capacity(CALLS);
            for _ in 0..CALLS {
                let began = Instant::now();
                exchange(&mut echo_two, &sent, &mut received).await;
                times.push(began.elapsed());
            }
            (echo_two, times)
        });
        echo_two = stream;
        times.into_iter().for_each(|time| rows[3].add(time));
        let channel = channel_two.clone();
        let times = in_a_task(&two_threads, async move {
            let mut times = Vec::with_capacity(CALLS);
            for _ in 0..CALLS {
                let began = Instant::now();
                ask(&channel).await;
                times.push(began.elapsed());
            }
            times
        });
        times.into_iter().for_each(|time| rows[4].add(time));
        one_thread.block_on(rows[5].block_async(TOOLS, async || {
            exchange(&mut process, &query, &mut back).await;
        }));
        one_thread.block_on(rows[6].block_async(TOOLS, async || {
            let answer = guest.dispatch(tool(), LIMIT).await.expect("answered");
            let result = answer.result;
            assert_eq!(
                (result.exit_code, result.stdout.as_str()),
                (0, "hello\n"),
                "{}",
                result.stderr
            );
        }));
        rows[7].block(CALLS, || {
            blocking.write_all(&query).expect("sent");
            blocking.read_exact(&mut back).expect("answered");
        });
    }
    measure::print(&rows);
    let over = |slow: usize, fast: usize| {
        rows[slow].median().as_secs_f64() / rows[fast].median().as_secs_f64()
    };
    println!("channel / bare echo: {:.2} (goal: at most 1.3)", over(1, 0));
    println!(
        "channel and dispatcher / bare echo, both ends decode: {:.2}",
        over(2, 0)
    );
    println!("channel / bare echo, two worker threads: {:.2}", over(4, 3));
    println!(
        "tool / bare echo and an unconfined process: {:.2}",
        over(6, 5)
    );
    Ok(())
}

async fn ask(channel: &Channel) {
    channel.open_fd_count(LIMIT).await.expect("answered");
}

/// Runs `work` in a task, as an agent does, and not on the thread that blocks on it.
fn in_a_task<T: Send + 'static>(
    runtime: &Runtime,
    work: impl Future<Output = T> + Send + 'static,
) -> T {
    runtime.block_on(runtime.spawn(work)).expect("it ends")
}

fn query() -> GuestQuery {
    GuestQuery {
        query_id: Uuid::new_v4(),
        query_kind: QueryKind::OpenFdCount,
        ts: Timestamp::now(),
    }
}

fn tool() -> ToolDispatch {
    ToolDispatch {
        command_id: Uuid::new_v4().to_string(),
        tool: ToolName::new("echo").expect("a name"),
        params: json!({"message": "hello"}),
        deadline_ms: 60_000,
    }
}

/// Runs the program of the dispatcher's `echo`, in the environment that the dispatcher gives a tool.
fn run_program() -> io::Result<()> {
    let output = Command::new("printf")
        .args(["--", "%s\\n", "hello"])
        .env_clear()
        .envs([
            ("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"),
            ("HOME", "/tmp"),
            ("LANG", "C.UTF-8"),
        ])
        .output()?;
    assert_eq!(output.stdout, b"hello\n");
    Ok(())
}

/// A prepared answer to every query of the same shape. Only the id has to be replaced.
#[derive(Clone)]
struct Ready {
    answer: Vec<u8>,
    /// The place of the id in the answer.
    to: Range<usize>,
    /// The place of the id in a query.
    from: Range<usize>,
}

impl Ready {
    fn to(query: &[u8]) -> Result<Ready, Box<dyn Error>> {
        let answer = encode(&Frame::GuestResponse(GuestResponse {
            query_id: Uuid::nil(),
            result: QueryResult::OpenFdCount(OpenFdCount { open_fd_count: 12 }),
            ts: Timestamp::now(),
        }))?;
        let id = |frame: &[u8]| {
            let before = b"\"query_id\":\"";
            let mut windows = frame.windows(before.len());
            let begin = windows.position(|window| window == before)? + before.len();
            Some(begin..begin + uuid::fmt::Hyphenated::LENGTH)
        };
        Ok(Ready {
            to: id(&answer).ok_or("an answer has an id")?,
            from: id(query).ok_or("a query has an id")?,
            answer,
        })
    }
}

/// Accepts connections as a VMM does, and passes each to `peer` after the handshake.
fn serve(
    socket: &Path,
    peer: impl Fn(UnixStream) -> io::Result<()> + Clone + Send + 'static,
) -> io::Result<()> {
    let listener = UnixListener::bind(socket)?;
    thread::spawn(move || {
        for stream in listener.incoming() {
            let peer = peer.clone();
            thread::spawn(move || {
                let mut stream = stream?;
                let mut line = String::new();
                // The buffer can't hold more than the line, because the caller waits for the answer.
                BufReader::new(stream.try_clone()?).read_line(&mut line)?;
                stream.write_all(b"OK 1073741824\n")?;
                peer(stream)
            });
        }
    });
    Ok(())
}

fn connect(socket: &Path) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(b"CONNECT 1024\n")?;
    stream.read_exact(&mut [0; 14])?;
    Ok(stream)
}

fn connect_async(runtime: &Runtime, socket: &Path) -> io::Result<tokio::net::UnixStream> {
    let stream = connect(socket)?;
    stream.set_nonblocking(true)?;
    let _inside = runtime.enter();
    tokio::net::UnixStream::from_std(stream)
}

/// Sends `query`, and reads the same number of bytes.
async fn exchange(stream: &mut tokio::net::UnixStream, query: &[u8], back: &mut [u8]) {
    stream.write_all(query).await.expect("sent");
    stream.read_exact(back).await.expect("answered");
}

/// Reads frames, and calls `answer` for each. One read may return several frames.
fn each_frame(
    mut stream: &UnixStream,
    mut answer: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let (mut bytes, mut filled) = ([0; 4096], 0);
    loop {
        match stream.read(&mut bytes[filled..])? {
            0 => return Ok(()),
            read => filled += read,
        }
        while let Some(header) = bytes[..filled].first_chunk() {
            let end = header.len() + u32::from_be_bytes(*header) as usize;
            if filled < end {
                break;
            }
            answer(&bytes[..end])?;
            bytes.copy_within(end..filled, 0);
            filled -= end;
        }
    }
}

/// Calls `first` for each frame, and sends the frame back.
fn echo_each(stream: UnixStream, first: impl Fn() -> io::Result<()>) -> io::Result<()> {
    each_frame(&stream, |frame| {
        first()?;
        (&stream).write_all(frame)
    })
}

/// Answers each query with the prepared answer.
fn answer_each(stream: UnixStream, mut ready: Ready) -> io::Result<()> {
    each_frame(&stream, |query| {
        ready.answer[ready.to.clone()].copy_from_slice(&query[ready.from.clone()]);
        (&stream).write_all(&ready.answer)
    })
}
