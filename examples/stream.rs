//! Shows how to read a tool's output as it comes, how to write to its standard input, and how to cancel it.
//!
//! ```text
//! cargo run --example stream
//! ```
//!
//! It runs on the recorded answers of a VMM, without KVM. The tools are functions of this program. With a real VMM only
//! the creation of the sandbox differs: see `agent.rs`.

#![expect(clippy::print_stdout, reason = "it is a program")]

use std::error::Error;
use std::io::{BufRead, BufReader, Write};

use chv_sandbox::replay::ReplaySandbox;
use chv_sandbox::sandbox::{OutputStream, RunningTool, Sandbox, ToolInvocation, ToolOutcome};
use serde_json::json;
use tokio::io::AsyncWriteExt;

/// Sends numbers to the tool `add`, one after the other, and returns its answers.
pub async fn converse(
    sandbox: &dyn Sandbox,
    numbers: &[i64],
) -> Result<Vec<String>, Box<dyn Error>> {
    let invocation = ToolInvocation::new("add", json!({})).with_stdin();
    let mut tool = sandbox.start(invocation).await?;
    let mut stdin = tool.stdin().expect("the invocation asks for it");
    let mut said = Vec::new();
    for number in numbers {
        stdin.write_all(format!("{number}\n").as_bytes()).await?;
        stdin.flush().await?;
        said.push(line(&mut tool).await?);
    }
    // The tool ends at the end of its standard input.
    drop(stdin);
    let report = tool.wait().await?;
    println!("{} after {:?}", report.outcome, report.took);
    Ok(said)
}

/// Reads the next line of the tool's output. A chunk is what the guest read at once, which may be a part of a line.
async fn line(tool: &mut RunningTool) -> Result<String, Box<dyn Error>> {
    let mut line = Vec::new();
    while !line.ends_with(b"\n") {
        let chunk = tool.next().await.ok_or("the tool has ended")??;
        if chunk.stream == OutputStream::Stdout {
            line.extend_from_slice(&chunk.bytes);
        }
    }
    Ok(String::from_utf8(line)?.trim().to_owned())
}

/// Reads at least `bytes` bytes from a tool that never ends, and then cancels the tool. Returns how it ended.
pub async fn enough(sandbox: &dyn Sandbox, bytes: usize) -> Result<ToolOutcome, Box<dyn Error>> {
    let mut tool = sandbox
        .start(ToolInvocation::new("forever", json!({})))
        .await?;
    let mut came = 0;
    while came < bytes {
        came += tool.next().await.ok_or("the tool has ended")??.bytes.len();
    }
    // Dropping the tool cancels it, too, but doesn't wait for its end.
    tool.cancel();
    Ok(tool.wait().await?.outcome)
}

/// A sandbox on recordings that has both tools.
pub async fn rehearsal() -> Result<ReplaySandbox, Box<dyn Error>> {
    let replay = ReplaySandbox::verified()
        .resets(2)
        .tool("add", |run| {
            let mut sum = 0;
            for line in BufReader::new(&run.stdin).lines() {
                sum += line?.trim().parse::<i64>().map_err(std::io::Error::other)?;
                writeln!(run.stdout, "{sum}")?;
            }
            Ok(0)
        })
        .tool("forever", |run| {
            loop {
                // This fails once the run is over.
                run.stdout.write_all(b"again\n")?;
            }
        });
    Ok(replay.start().await?)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let replay = rehearsal().await?;
    let sandbox = replay.sandbox();
    sandbox.boot().await?;
    println!("{:?}", converse(&*sandbox, &[1, 20, 300]).await?);
    sandbox.reset().await?;
    println!("{}", enough(&*sandbox, 1000).await?);
    sandbox.reset().await?;
    replay.finish().await?;
    Ok(())
}
