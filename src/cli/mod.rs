//! Commands for people. Each parses its arguments, calls the library and prints; the library decides.

// First, for its macros hide those of the standard library from everything below.
#[macro_use]
mod print;

mod api;
mod compat;
mod demo;
mod golden;
mod hash;
mod image;
mod record;
mod spec;
mod vm;

use std::error::Error;
use std::process::ExitCode;

use chv_sandbox::compat::render::neutral;
use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// Boots, drives, resets and verifies microVM sandboxes on Cloud Hypervisor.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Demo(demo::Args),
    Golden(golden::Args),
    Hash(hash::Args),
    Image(image::Args),
    Api(api::Args),
    Record(record::Args),
    Spec(spec::Args),
    Compat(compat::Args),
}

/// What a command that can't go on says, and the status with which the process ends.
type Failure = Box<dyn Error + Send + Sync>;

/// Runs the command that the process was started with. Logs go to standard error, as `RUST_LOG` says.
pub(crate) async fn run() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("error"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let done = match Cli::parse().command {
        Command::Demo(args) => demo::run(args).await,
        Command::Golden(args) => golden::run(args).await,
        Command::Hash(args) => hash::run(args).await,
        Command::Image(args) => image::run(args).await,
        Command::Api(args) => api::run(args).await,
        Command::Record(args) => record::run(args).await,
        Command::Spec(args) => spec::run(args).await,
        Command::Compat(args) => compat::run(args).await,
    };
    let done = done.and_then(|status| match print::failure() {
        Some(error) => Err(error.into()),
        None => Ok(status),
    });
    done.unwrap_or_else(|error| {
        explain(error.as_ref());
        ExitCode::FAILURE
    })
}

/// Prints an error with its whole chain of causes. They quote files and servers, which must not speak to the terminal.
fn explain(error: &(dyn Error + 'static)) {
    let shown = |error: &dyn Error| {
        let text = error.to_string();
        let lines: Vec<String> = text.lines().map(neutral).collect();
        lines.join("\n")
    };
    eprintln!("error: {}", shown(error));
    let mut cause = error.source();
    while let Some(error) = cause {
        eprintln!("  because {}", shown(error));
        cause = error.source();
    }
}
