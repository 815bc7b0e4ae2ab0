//! The subcommands of `chv-sandbox`. Each parses its arguments, calls the library and prints the result; all decisions
//! are made in the library.

// This module comes first, because its macros replace those of the standard library in all modules below.
#[macro_use]
mod stdout;

mod api;
mod compat;
mod demo;
mod doctor;
mod golden;
mod hash;
mod image;
mod interrupt;
mod latency;
mod output_file;
mod progress;
mod record;
mod redteam;
mod run;
mod spec;
mod status;
mod tool_argument;
mod vm_args;

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

use anstream::{AutoStream, ColorChoice};
use chv_sandbox::causes::Causes;
use chv_sandbox::sanitize;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};
use tokio::runtime::Runtime;
use tracing_subscriber::EnvFilter;

use interrupt::Signalled;
use status::Status;

/// Boots, drives, resets and verifies microVM sandboxes on Cloud Hypervisor.
#[derive(Parser)]
#[command(version, max_term_width = 100, after_help = after_help())]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Demo(demo::Args),
    Doctor(doctor::Args),
    Golden(golden::Args),
    Run(Box<run::Args>),
    Latency(latency::Args),
    Redteam(redteam::Args),
    Hash(hash::Args),
    Image(image::Args),
    Api(api::Args),
    Record(record::Args),
    Spec(spec::Args),
    Compat(compat::Args),
}

/// The last part of the program's own help: environment and exit statuses.
fn after_help() -> String {
    let statuses = status::help(&[
        (Status::Yes, "yes, or done"),
        (
            Status::No,
            "no; the help of each command says to which question",
        ),
        (Status::Undecided, "it could not be decided or done"),
    ]);
    format!(
        "Environment:\n  RUST_LOG  the log filter for standard error [default: error, but not what the\n            \
         command prints itself]. RUST_LOG=debug logs all that helps to find a fault,\n            \
         RUST_LOG=chv_sandbox::vmm=trace logs one module in more detail\n\n{statuses}"
    )
}

/// The error that a command failed with. The process then ends with [`Status::Undecided`], except for the errors to
/// which [`status_of`] assigns another status.
type Failure = Box<dyn Error + Send + Sync>;

/// Parses the command line, runs the command, and returns the exit status.
pub(crate) fn main() -> ExitCode {
    log();
    let done = Cli::try_parse().map_err(Failure::from).and_then(run);
    let status = done.unwrap_or_else(|failure| {
        print_failure(&failure);
        status_of(&failure)
    });
    match (stdout::failure(), status) {
        // The answer could not be written to standard output, so the caller has none.
        (Some(error), Status::Yes | Status::No) => {
            explain(&error);
            Status::Undecided
        }
        _ => status,
    }
    .into()
}

fn run(cli: Cli) -> Result<Status, Failure> {
    let runtime = Runtime::new()?;
    let done = runtime.block_on(async {
        match cli.command {
            Command::Demo(args) => demo::run(args).await,
            Command::Doctor(args) => doctor::run(args).await,
            Command::Golden(args) => golden::run(args).await,
            Command::Run(args) => run::run(*args).await,
            Command::Latency(args) => latency::run(args).await,
            Command::Redteam(args) => redteam::run(args).await,
            Command::Hash(args) => hash::run(args).await,
            Command::Image(args) => image::run(args).await,
            Command::Api(args) => api::run(args).await,
            Command::Record(args) => record::run(args).await,
            Command::Spec(args) => spec::run(args).await,
            Command::Compat(args) => compat::run(args).await,
        }
    });
    // Blocking threads of an interrupted command may still read. They are not waited for: the end of the process ends
    // them.
    runtime.shutdown_background();
    done
}

/// The log filter without `RUST_LOG`: errors. The error with which a sandbox fails is left out, because the command
/// prints it.
const DEFAULT_FILTER: &str = "error,chv_sandbox::sandbox::status=off";

/// Starts logging to standard error, filtered by `RUST_LOG`. Colours are used where this program's own errors are in
/// colour: on a terminal, unless the environment forbids them.
fn log() {
    let asked = EnvFilter::try_from_default_env();
    let is_set = std::env::var_os(EnvFilter::DEFAULT_ENV).is_some();
    let refused = asked.as_ref().err().filter(|_| is_set);
    let refused = refused.map(ToString::to_string);
    tracing_subscriber::fmt()
        .with_env_filter(asked.unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER)))
        .with_ansi(AutoStream::choice(&std::io::stderr()) != ColorChoice::Never)
        .with_writer(std::io::stderr)
        .init();
    if let Some(why) = refused {
        eprintln!("warning: RUST_LOG is not a valid filter, so only errors are logged: {why}");
    }
}

/// Prints on standard error why a command failed. Errors of the command line and the help are printed as clap renders
/// them, the help on standard output.
fn print_failure(failure: &Failure) {
    if let Some(usage) = failure.downcast_ref::<clap::Error>() {
        let text = usage.render();
        match usage.use_stderr() {
            true => eprint!("{}", text.ansi()),
            false => print!("{}", text.ansi()),
        }
    } else if let Some(signalled) = failure.downcast_ref::<Signalled>() {
        eprintln!("{signalled}");
    } else {
        explain(failure.as_ref());
    }
}

fn status_of(failure: &Failure) -> Status {
    if let Some(usage) = failure.downcast_ref::<clap::Error>() {
        match usage.use_stderr() {
            true => Status::Usage,
            false => Status::Yes,
        }
    } else if let Some(signalled) = failure.downcast_ref::<Signalled>() {
        signalled.status()
    } else {
        Status::Undecided
    }
}

/// The error for arguments of `command` that are valid one by one, but not together: [`Status::Usage`].
fn usage(command: &str, message: impl fmt::Display) -> Failure {
    let mut cli = Cli::command();
    cli.build();
    let refused = match cli.find_subcommand_mut(command) {
        Some(command) => command.error(ErrorKind::ArgumentConflict, message),
        None => cli.error(ErrorKind::ArgumentConflict, message),
    };
    refused.into()
}

/// Prints an error with its whole chain of causes, and a hint with the command to type if a missing permission or
/// program explains the error. The texts may quote files and servers, so control characters are escaped.
fn explain(error: &(dyn Error + 'static)) {
    for (index, error) in Causes(error).iter().enumerate() {
        let before = if index == 0 { "error:" } else { "  because" };
        eprintln!("{before} {}", sanitize::lines(&error.to_string()));
    }
    if let Some(hint) = chv_sandbox::doctor::hint(error) {
        eprintln!("help: {}", sanitize::line(&hint.to_string(), 4096));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Collects a command and all its subcommands, each with its full name.
    fn all(command: &clap::Command, name: &str, into: &mut Vec<(String, clap::Command)>) {
        into.push((name.to_owned(), command.clone()));
        for below in command.get_subcommands() {
            all(below, &format!("{name} {}", below.get_name()), into);
        }
    }

    #[test]
    fn the_help_of_every_command_says_what_its_exit_statuses_mean() {
        let mut commands = Vec::new();
        all(&Cli::command(), "chv-sandbox", &mut commands);
        assert!(commands.len() > 15, "{commands:?}");
        for (name, command) in commands {
            let end = command.get_after_help().map(ToString::to_string);
            let end = end.unwrap_or_default();
            let undecided = match name.as_str() {
                // A tool may end with 2.
                "chv-sandbox run" => Status::NoResult,
                _ => Status::Undecided,
            };
            for status in [
                Status::Yes,
                undecided,
                Status::Usage,
                Status::Interrupted,
                Status::Terminated,
            ] {
                let row = format!("\n  {:<4} ", status.code());
                assert!(
                    end.contains(&row),
                    "{name}: no {} in {end:?}",
                    status.code()
                );
            }
        }
    }

    #[test]
    fn arguments_that_mean_nothing_together_are_wrong_usage() {
        let failure = usage("demo", "--memory needs --vmm");
        assert_eq!(status_of(&failure), Status::Usage);
        let text = failure.to_string();
        assert!(text.contains("error: --memory needs --vmm"), "{text}");
        assert!(text.contains("Usage: chv-sandbox demo"), "{text}");
    }
}
