//! Shows how to copy files into a guest and out of it.
//!
//! ```text
//! cargo run --example files
//! ```
//!
//! It runs on the recorded answers of a VMM, without KVM. The tool is a function of this program.

#![expect(clippy::print_stdout, reason = "it is a program")]

use std::error::Error;
use std::fs;
use std::path::Path;

use chv_sandbox::archive::TransferLimits;
use chv_sandbox::replay::ReplaySandbox;
use chv_sandbox::sandbox::{Sandbox, ToolInvocation, TransferOptions};
use serde_json::json;

/// Copies the directory `input` into the guest, runs the tool `count` on it, copies its result to `output`, which must
/// not exist, and resets the sandbox.
pub async fn count_lines(
    sandbox: &dyn Sandbox,
    input: &Path,
    output: &Path,
) -> Result<(), Box<dyn Error>> {
    // A directory that exceeds the limits is refused on the host, before any of it is sent to the guest.
    let limits = TransferLimits {
        entries: 1_000,
        bytes: 16 << 20,
    };
    let options = TransferOptions::default().limits(limits);
    let pushed = sandbox.push(input, "input", &options).await?;
    println!("pushed {}", pushed.totals);
    let invocation = ToolInvocation::new("count", json!({ "from": "input", "to": "output" }));
    let ran = sandbox.execute_tool(invocation).await?;
    if !ran.is_success() {
        return Err(format!("{}: {}", ran.outcome, ran.stderr.text()).into());
    }
    // The guest is not trusted: `pull` writes only below `output`, and no more than the limits allow.
    let pulled = sandbox.pull("output", output, &options).await?;
    for file in &pulled.files {
        println!("pulled {:?}, {} bytes", file.path, file.size);
    }
    if !sandbox.reset().await?.is_verified() {
        return Err("the reset was not verified".into());
    }
    Ok(())
}

/// A sandbox on recordings that has the tool. The guest's files are in `files`, a directory on the host.
pub async fn rehearsal(files: &Path) -> Result<ReplaySandbox, Box<dyn Error>> {
    let root = files.to_owned();
    let replay = ReplaySandbox::verified()
        .resets(1)
        .files(files)
        .tool("count", move |run| {
            let path = |name: &str| root.join(run.params[name].as_str().unwrap_or_default());
            fs::create_dir(path("to"))?;
            for entry in fs::read_dir(path("from"))? {
                let entry = entry?;
                let lines = fs::read_to_string(entry.path())?.lines().count();
                fs::write(path("to").join(entry.file_name()), format!("{lines}\n"))?;
            }
            Ok(0)
        });
    Ok(replay.start().await?)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name);
    fs::create_dir(path("input"))?;
    fs::create_dir(path("guest"))?;
    fs::write(path("input").join("poem"), "one\ntwo\nthree\n")?;
    let replay = rehearsal(&path("guest")).await?;
    let sandbox = replay.sandbox();
    sandbox.boot().await?;
    count_lines(&*sandbox, &path("input"), &path("output")).await?;
    print!("poem: {}", fs::read_to_string(path("output").join("poem"))?);
    replay.finish().await?;
    Ok(())
}
