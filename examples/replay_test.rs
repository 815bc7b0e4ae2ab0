//! Shows how to test an agent's code without KVM.
//!
//! ```text
//! cargo run --example replay_test
//! cargo test --example replay_test
//! ```

#![expect(clippy::print_stdout, reason = "it is a program")]

use std::error::Error;
use std::io::Write;

use chv_sandbox::replay::ReplaySandbox;
use chv_sandbox::sandbox::{Sandbox, ToolInvocation};
use serde_json::json;

/// The code under test: asks a tool for the weather in each town, each time in a clean sandbox. It uses the output only
/// if the reset after the tool was verified.
async fn weather(sandbox: &dyn Sandbox, towns: &[&str]) -> Result<Vec<String>, Box<dyn Error>> {
    sandbox.boot().await?;
    let mut said = Vec::new();
    for town in towns {
        let invocation = ToolInvocation::new("weather", json!({ "town": town }));
        let ran = sandbox.run_once(invocation).await?;
        said.push(ran.execution.stdout.text().trim().to_owned());
    }
    Ok(said)
}

/// A sandbox on recordings, with a simulated tool.
fn rehearsal() -> chv_sandbox::replay::ReplayBuilder {
    ReplaySandbox::verified().tool("weather", |run| {
        writeln!(
            run.stdout,
            "{}: rain",
            run.params["town"].as_str().unwrap_or("?")
        )?;
        Ok(0)
    })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let replay = rehearsal().resets(2).start().await?;
    println!(
        "{:?}",
        weather(&*replay.sandbox(), &["Bergen", "Lima"]).await?
    );
    replay.finish().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use chv_sandbox::sandbox::Error;

    use super::*;

    #[tokio::test]
    async fn each_town_has_a_sandbox_of_its_own() {
        let replay = rehearsal().resets(2).start().await.unwrap();
        let said = weather(&*replay.sandbox(), &["Bergen", "Lima"]).await;
        assert_eq!(said.unwrap(), ["Bergen: rain", "Lima: rain"]);
        // Fails unless there were exactly two resets.
        replay.finish().await.unwrap();
    }

    #[tokio::test]
    async fn what_was_said_before_a_divergence_is_not_used() {
        let replay = rehearsal().then_a_divergence().start().await.unwrap();
        let error = weather(&*replay.sandbox(), &["Bergen"]).await.unwrap_err();
        let error = error.downcast::<Error>().unwrap();
        assert!(matches!(*error, Error::ResetDivergence(_)), "{error}");
        replay.finish().await.unwrap();
    }
}
