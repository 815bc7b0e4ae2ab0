//! An agent that runs three tools in a microVM and resets it after each. After an error it does what the error's advice
//! says.
//!
//! ```text
//! cargo run --example agent -- sandbox.toml
//! ```
//!
//! It prints its audit log on standard output, with one line of JSON for each event. SIGTERM shuts the sandbox down at
//! any time.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it is a program")]

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use chv_sandbox::broadcast::RecvError;
use chv_sandbox::causes::Causes;
use chv_sandbox::sandbox::{Advice, ChvSandbox, Event, Sandbox, SandboxConfig, ToolInvocation};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

/// How often a job is tried before the agent gives up.
const TRIES: u32 = 5;

/// Runs each job in a sandbox that is reset after it. Returns how many jobs succeeded.
pub async fn work(
    sandbox: &dyn Sandbox,
    jobs: Vec<ToolInvocation>,
) -> Result<usize, Box<dyn Error>> {
    let mut done = 0;
    sandbox.boot().await?;
    'jobs: for job in jobs {
        for _ in 0..TRIES {
            let error = match sandbox.run_once(job.clone()).await {
                Ok(ran) => {
                    eprintln!("{}: {:?}", job.tool, ran.execution.stdout.text());
                    done += 1;
                    continue 'jobs;
                }
                Err(error) => error,
            };
            eprintln!("{}: {}: {}", job.tool, error.code(), Causes(&error));
            match error.advice() {
                Advice::Retry => sleep(Duration::from_millis(100)).await,
                Advice::Reset => drop(sandbox.reset().await),
                Advice::Rebuild => {
                    sandbox.shutdown().await;
                    sandbox.boot().await?;
                }
                Advice::SkipTool => continue 'jobs,
                _ => return Err(error.into()),
            }
        }
    }
    Ok(done)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let config = std::env::args_os()
        .nth(1)
        .ok_or("usage: agent sandbox.toml")?;
    let sandbox = ChvSandbox::new(SandboxConfig::load(&PathBuf::from(config))?)?;
    let mut events = sandbox.subscribe();
    tokio::spawn(async move {
        loop {
            match events.recv().await {
                Ok(event) => println!(
                    "{}",
                    serde_json::to_string::<Event>(&event)
                        .expect("the keys of an event are strings")
                ),
                Err(RecvError::Lagged(count)) => eprintln!("{count} events were lost"),
                Err(RecvError::Closed) => break,
            }
        }
    });
    let say = |message| ToolInvocation::new("echo", json!({ "message": message }));
    let jobs = ["one", "two", "three"].map(say).to_vec();
    let mut terminated = signal(SignalKind::terminate())?;
    let worked = tokio::select! {
        worked = work(&sandbox, jobs) => worked,
        _ = terminated.recv() => Err("terminated".into()),
    };
    sandbox.shutdown().await;
    worked.map(drop)
}
