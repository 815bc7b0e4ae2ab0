//! Measures the time from a tool's write until the caller has the bytes.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::Duration;

use chv_sandbox::sandbox::Sandbox;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::measure::{Row, print};
use super::{Outcome, invocation, now, sandbox};

const ROUNDS: usize = 20;
const CALLS: usize = 100;

pub(crate) async fn run() -> Outcome<()> {
    let replay = sandbox().await?;
    let sandbox = replay.sandbox();
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("echo");
    let listener = UnixListener::bind(&socket)?;
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a caller");
        let mut bytes = [0; 8];
        while stream.read_exact(&mut bytes).is_ok() {
            stream.write_all(&bytes).expect("echoed");
        }
    });
    let mut echo = UnixStream::connect(&socket).await?;
    let stamp = invocation("stamp", json!({})).with_stdin();
    let mut tool = sandbox.start(stamp).await?;
    let mut stdin = tool.stdin().ok_or("it was asked for")?;

    let mut rows = [
        Row::new("bare echo"),
        Row::new("output, from the tool's write"),
    ];
    let mut back = [0; 8];
    for _ in 0..ROUNDS {
        rows[0]
            .block_async(CALLS, async || {
                echo.write_all(&[7; 8]).await.expect("sent");
                echo.read_exact(&mut back).await.expect("answered");
            })
            .await;
        for _ in 0..CALLS {
            stdin.write_all(b"x").await?;
            stdin.flush().await?;
            let chunk = tool.next().await.ok_or("the tool has ended")??;
            let came = now();
            let written = u64::from_ne_bytes(chunk.bytes[..].try_into()?);
            rows[1].add(Duration::from_nanos(came - written));
        }
    }
    println!("\nthe first byte");
    print(&rows);
    let ratio = rows[1].median().as_secs_f64() / rows[0].median().as_secs_f64();
    println!("output / bare echo: {ratio:.2} (goal: at most 1.5)");
    drop(stdin);
    tool.wait().await?;
    sandbox.shutdown().await;
    Ok(())
}
