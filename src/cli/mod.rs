//! The command: it parses arguments, calls the library and prints.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command talks to people"
)]

mod spec;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Drives microVM sandboxes on Cloud Hypervisor.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Spec(spec::Args),
}

/// Runs the command that the process was started with.
pub(crate) async fn run() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Spec(args) => spec::run(args).await,
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        let mut cause = error.source();
        while let Some(error) = cause {
            eprintln!("  because {error}");
            cause = error.source();
        }
        ExitCode::FAILURE
    })
}
