//! Shows a sandbox in a program without async code: each call waits for its result.
//!
//! ```text
//! cargo run --example blocking
//! cargo run --example blocking -- /var/lib/agent/golden
//! ```
//!
//! Without an argument the answers of the VMM are recorded ones, and the tool `echo` is a closure. With a golden
//! snapshot it runs on KVM and Cloud Hypervisor.

#![expect(clippy::print_stdout, reason = "it is a program")]

use std::error::Error;
use std::io::Write;

use chv_sandbox::blocking::Sandbox;
use chv_sandbox::replay::ReplaySandbox;
use chv_sandbox::sandbox::{SandboxConfig, ToolInvocation};
use serde_json::json;

/// Has each message echoed by a tool, with a verified reset after each.
pub fn echo_each(sandbox: &Sandbox, messages: &[&str]) -> Result<Vec<String>, Box<dyn Error>> {
    sandbox.boot()?;
    let mut said = Vec::new();
    for message in messages {
        let invocation = ToolInvocation::new("echo", json!({ "message": message }));
        let ran = sandbox.run_once(invocation)?;
        said.push(ran.execution.stdout.text().trim_end().to_owned());
    }
    sandbox.shutdown();
    Ok(said)
}

/// The same on recordings, which a runtime of this function plays.
pub fn on_recordings(messages: &[&str]) -> Result<Vec<String>, Box<dyn Error>> {
    let player = tokio::runtime::Runtime::new()?;
    let echo = ReplaySandbox::verified().tool("echo", |run| {
        writeln!(
            run.stdout,
            "{}",
            run.params["message"].as_str().unwrap_or_default()
        )?;
        Ok(0)
    });
    let replay = player.block_on(echo.resets(messages.len()).start())?;
    let said = echo_each(&Sandbox::of(replay.sandbox())?, messages)?;
    player.block_on(replay.finish())?;
    Ok(said)
}

fn main() -> Result<(), Box<dyn Error>> {
    let messages = ["one", "two", "three"];
    let said = match std::env::args_os().nth(1) {
        Some(golden) => echo_each(&Sandbox::new(SandboxConfig::golden(golden))?, &messages)?,
        None => on_recordings(&messages)?,
    };
    said.iter().for_each(|said| println!("{said}"));
    Ok(())
}
