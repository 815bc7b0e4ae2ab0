//! Measures `execute_tool`, compared with an echo whose peer runs the same confined process.
//!
//! Only the dispatcher can confine a process, and the peer requests one over a socket. The time of that socket is
//! measured separately and subtracted.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;

use chv_sandbox::guest::dispatcher::{Confinement, Dispatcher, LinuxSystem, Toolbox};
use chv_sandbox::guest::frame::{encode, read_frame};
use chv_sandbox::guest::protocol::{Frame, Hello, ToolDispatch, ToolName};
use chv_sandbox::sandbox::Sandbox;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::measure::{Row, print};
use super::{Outcome, invocation, sandbox};

const ROUNDS: usize = 20;
const CALLS: usize = 20;

pub(crate) async fn run() -> Outcome<()> {
    let replay = sandbox().await?;
    let sandbox = replay.sandbox();
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name);
    let request = encode(&dispatch()?)?;
    let length = request.len();
    serve(&path("echo"), length, || Ok(()))?;
    serve(&path("passed on"), length, passes_on(length)?)?;
    serve(&path("process"), length, dispatches()?)?;
    let mut peers = Vec::new();
    for name in ["echo", "passed on", "process"] {
        peers.push(tokio::net::UnixStream::connect(path(name)).await?);
    }

    let mut rows = [
        Row::new("bare echo"),
        Row::new("bare echo, passed on by a socket and back"),
        Row::new("the same, with a confined process"),
        Row::new("execute_tool"),
    ];
    let mut back = vec![0; length];
    for _ in 0..ROUNDS {
        for (row, peer) in rows.iter_mut().zip(&mut peers) {
            row.block_async(CALLS, async || {
                peer.write_all(&request).await.expect("sent");
                peer.read_exact(&mut back).await.expect("answered");
            })
            .await;
        }
        rows[3]
            .block_async(CALLS, async || {
                let done = sandbox.execute_tool(invocation("true", json!({}))).await;
                assert!(done.expect("it ran").is_success());
            })
            .await;
    }
    println!("\na tool that writes nothing");
    print(&rows);
    let [echo, passed, process, tool] = rows.map(|row| row.median().as_secs_f64());
    println!(
        "execute_tool / bare echo and the same confined process: {:.2} (goal: at most 1.3)",
        tool / (process - passed + echo)
    );
    sandbox.shutdown().await;
    Ok(())
}

fn dispatch() -> Outcome<Frame> {
    Ok(Frame::ToolDispatch(ToolDispatch {
        command_id: "c".to_owned(),
        tool: ToolName::new("true")?,
        params: json!({}),
        deadline_ms: 5_000,
    }))
}

/// Calls `work` for each request, and then echoes the request.
fn serve(
    socket: &Path,
    length: usize,
    mut work: impl FnMut() -> std::io::Result<()> + Send + 'static,
) -> Outcome<()> {
    let listener = UnixListener::bind(socket)?;
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a caller");
        let mut request = vec![0; length];
        while stream.read_exact(&mut request).is_ok() {
            work().expect("the work is done");
            stream.write_all(&request).expect("the caller waits");
        }
    });
    Ok(())
}

/// Sends bytes to another thread, which sends them back.
fn passes_on(length: usize) -> Outcome<impl FnMut() -> std::io::Result<()> + Send> {
    let (mut here, mut there) = UnixStream::pair()?;
    let mut bytes = vec![0; length];
    let mut copy = bytes.clone();
    thread::spawn(move || {
        while there.read_exact(&mut copy).is_ok() {
            there.write_all(&copy).expect("the other end is there");
        }
    });
    Ok(move || {
        here.write_all(&bytes)?;
        here.read_exact(&mut bytes)
    })
}

/// Lets the dispatcher run the tool.
fn dispatches() -> Outcome<impl FnMut() -> std::io::Result<()> + Send> {
    let tools = json!({ "tools": { "true": { "program": "/bin/true" } } });
    let toolbox = Toolbox::from_json(tools.to_string().as_bytes())?;
    let dispatcher = Dispatcher::new(toolbox, &Confinement::in_process(), LinuxSystem::new())?;
    let (mut here, there) = UnixStream::pair()?;
    thread::spawn(move || dispatcher.serve(there).expect("the other end is there"));
    here.write_all(&encode(&Frame::Hello(Hello::of_this_build()))?)?;
    read_frame(&mut here)?.ok_or("a hello is answered")?;
    let request = encode(&dispatch()?)?;
    Ok(move || {
        here.write_all(&request)?;
        loop {
            match read_frame(&mut here).map_err(std::io::Error::other)? {
                Some(Frame::ToolResult(_)) => return Ok(()),
                Some(_) => {}
                None => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            }
        }
    })
}
