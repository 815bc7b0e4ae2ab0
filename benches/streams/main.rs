//! Measures the cost of streams, compared with the least that could carry them: the same socket, with SHA-256 on both
//! ends.
//!
//! `STREAM_BENCH` selects one of these parts; without it all are run:
//!
//! | part | measured and compared with |
//! |---|---|
//! | `tool` | `execute_tool` of a tool that writes nothing, against an echo whose peer runs the same confined process |
//! | `first` | a byte of output from the tool's write until the caller has it, against an echo there and back |
//! | `bulk` | 1 GiB of output, against the same bytes through a socket; and the memory that it needs |
//!
//! The sandbox runs on recordings, so the guest is the real dispatcher in this process, behind a Unix socket, as a
//! VMM's hybrid vsock is on the host. The tools that it measures are this program itself, with other arguments.

#![expect(clippy::print_stdout, reason = "a bench prints what it found")]

mod bulk;
mod first_byte;
#[expect(dead_code, reason = "a part of it is for the other benches")]
#[path = "../measure/mod.rs"]
mod measure;
mod tool;

use std::env;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use chv_sandbox::guest::dispatcher::Toolbox;
use chv_sandbox::replay::ReplaySandbox;
use chv_sandbox::sandbox::{Sandbox, ToolInvocation, ToolsPerReset};
use serde_json::json;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// How many bytes a tool or a peer writes at once.
const PIECE: usize = 256 << 10;

fn main() -> Outcome<()> {
    match env::args().nth(1).as_deref() {
        Some("write") => write_much(
            env::args()
                .nth(2)
                .ok_or("the number of bytes is missing")?
                .parse()?,
        ),
        Some("stamp") => stamp_each(),
        _ => tokio::runtime::Runtime::new()?.block_on(measure()),
    }
}

async fn measure() -> Outcome<()> {
    let only = env::var("STREAM_BENCH").ok();
    let wanted = |place: &str| only.as_deref().is_none_or(|only| only == place);
    measure::print_load();
    if wanted("tool") {
        tool::run().await?;
    }
    if wanted("first") {
        first_byte::run().await?;
    }
    if wanted("bulk") {
        bulk::run().await?;
    }
    Ok(())
}

/// A booted sandbox whose tools are this program. The bench doesn't reset it.
async fn sandbox() -> Outcome<ReplaySandbox> {
    let program = env::current_exe()?;
    let of_this_program = |arguments: serde_json::Value| {
        let limits = json!({ "output_mib": 4096, "file_size_mib": 4096 });
        json!({ "program": program, "arguments": arguments, "stdin": true, "limits": limits })
    };
    let tools = json!({
        "tools": {
            "true": { "program": "/bin/true" },
            "write": of_this_program(json!(["write", "{bytes}"])),
            "stamp": of_this_program(json!(["stamp"])),
        },
    });
    let toolbox = Toolbox::from_json(tools.to_string().as_bytes())?;
    let replay = ReplaySandbox::verified()
        .toolbox(toolbox)
        .configure(|config| config.tools_per_reset(ToolsPerReset::Many))
        .start()
        .await?;
    replay.sandbox().boot().await?;
    Ok(replay)
}

fn invocation(tool: &str, params: serde_json::Value) -> ToolInvocation {
    ToolInvocation::new(tool, params).with_deadline(Duration::from_secs(600))
}

/// The tool `write`: writes `bytes` bytes.
fn write_much(bytes: u64) -> Outcome<()> {
    let piece = piece();
    let mut left = bytes;
    let mut stdout = unbuffered()?;
    while left > 0 {
        let length = left.min(PIECE as u64);
        stdout.write_all(&piece[..length as usize])?;
        left -= length;
    }
    Ok(())
}

/// Bytes in which neighbouring pages differ.
fn piece() -> Vec<u8> {
    (0..PIECE).map(|at| (at / 4096 + at) as u8).collect()
}

/// The tool `stamp`: writes the time for each byte that it reads.
fn stamp_each() -> Outcome<()> {
    let (mut stdin, mut stdout) = (io::stdin().lock(), unbuffered()?);
    let mut byte = [0];
    while stdin.read(&mut byte)? > 0 {
        stdout.write_all(&now().to_ne_bytes())?;
    }
    Ok(())
}

/// Standard output without the line buffer, which would split the output at line feeds.
fn unbuffered() -> io::Result<File> {
    Ok(io::stdout().as_fd().try_clone_to_owned()?.into())
}

/// Nanoseconds on a clock that all processes share.
fn now() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
