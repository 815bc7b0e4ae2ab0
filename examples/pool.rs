//! Shows a pool: callers that run tools at the same time, each in a clean sandbox of one golden snapshot.
//!
//! ```text
//! cargo run --example pool -- /var/lib/agent/golden
//! ```
//!
//! It needs KVM and Cloud Hypervisor. Callers are served in the order in which they ask. A sandbox that is given back
//! is reset in the background; one whose reset is not verified is never handed out again.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it is a program")]

use std::time::Duration;

use chv_sandbox::sandbox::{Error, Pool, PoolConfig, Sandbox, SandboxConfig, ToolInvocation};
use futures_util::future::join_all;
use serde_json::json;

/// How long a caller waits for a sandbox.
const PATIENCE: Duration = Duration::from_secs(60);

/// Has each message echoed by a tool in a sandbox of its own, all at the same time as far as the pool has sandboxes.
pub async fn echo_all(pool: &Pool, messages: &[&str]) -> Vec<Result<String, Error>> {
    join_all(messages.iter().map(|message| echo(pool, message))).await
}

async fn echo(pool: &Pool, message: &str) -> Result<String, Error> {
    let sandbox = pool.acquire(PATIENCE).await?;
    let invocation = ToolInvocation::new("echo", json!({ "message": message }));
    let execution = sandbox.execute_tool(invocation).await?;
    // The output counts only if the reset behind it was verified. A sandbox that is dropped is reset, too.
    sandbox.recycle().await?;
    Ok(execution.stdout.text().trim_end().to_owned())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Some(golden) = std::env::args_os().nth(1) else {
        eprintln!("usage: pool GOLDEN_SNAPSHOT");
        return Ok(());
    };
    let config = PoolConfig::new(SandboxConfig::golden(golden))
        .size(4)
        .idle(2);
    let pool = Pool::open(config).await?;
    for said in echo_all(&pool, &["one", "two", "three", "four", "five", "six"]).await {
        println!("{}", said?);
    }
    pool.shutdown().await;
    Ok(())
}
