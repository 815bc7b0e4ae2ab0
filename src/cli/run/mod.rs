//! `chv-sandbox run`: runs one tool in a sandbox, connects its streams to those of this process, and verifies a reset.

mod files;
mod streams;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use chv_sandbox::sandbox::{
    ChvSandbox, GoldenOrigin, RunReport, Sandbox, SandboxConfig, ToolInvocation, ToolOutcome,
    ToolsPerReset,
};

use super::interrupt::{Interrupt, Signalled, wait_for_vmms};
use super::status::{self, Status};
use super::tool_argument::{ToolLine, duration};
use super::{Failure, explain};
use files::{Pull, Push};

/// Runs one tool in a sandbox, and verifies the reset afterwards.
///
/// Boots a golden snapshot, copies files in, runs the tool with the standard streams of this command, copies files out,
/// resets the sandbox, and verifies the reset.
///
/// The output of the tool is passed on unchanged. Only on a terminal its control characters are escaped, unless --raw
/// is given.
#[derive(clap::Args)]
#[command(
    group = clap::ArgGroup::new("origin").required(true),
    override_usage = "chv-sandbox run --golden DIR [OPTIONS] -- TOOL [--param NAME=VALUE]...\n       \
                      chv-sandbox run --config FILE [OPTIONS] -- TOOL [--param NAME=VALUE]...",
    after_help = after_help()
)]
pub(crate) struct Args {
    /// The golden snapshot
    #[arg(long, value_name = "DIR", group = "origin")]
    golden: Option<PathBuf>,
    /// The configuration of a sandbox in TOML, which names the golden snapshot; in place of --golden
    #[arg(long, value_name = "FILE", group = "origin")]
    config: Option<PathBuf>,
    /// Require a signature of the golden snapshot by this Ed25519 public key: PEM, or 32 raw bytes
    ///
    /// Without this option no signature is checked, unless the configuration names a key.
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    public_key: Option<PathBuf>,
    /// The Cloud Hypervisor executable; a name without a slash is looked up in PATH [env: CLOUD_HYPERVISOR] [default:
    /// the configuration's, or cloud-hypervisor]
    #[arg(long, value_name = "BIN")]
    vmm: Option<PathBuf>,
    /// Copy a file or directory into the guest before the tool runs; may be repeated
    ///
    /// GUEST is the path of the copy: an absolute path in the guest's directory for files (/work unless the image sets
    /// another one), or a path relative to that directory. It can't have a colon. No existing file is replaced.
    #[arg(long, value_name = "LOCAL:GUEST", value_parser = Push::parse)]
    push: Vec<Push>,
    /// Copy a file or directory out of the guest after the tool has ended; may be repeated
    ///
    /// GUEST is a path as with --push, and LOCAL the path of the copy. No existing file is replaced.
    #[arg(long, value_name = "GUEST:LOCAL", value_parser = Pull::parse)]
    pull: Vec<Pull>,
    /// The time limit of the tool, for example 90s or 5m
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    deadline: Duration,
    /// Set a variable in the tool's environment, if the image allows it; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    env: Vec<(String, String)>,
    /// The tool's working directory in the guest, if the image allows it
    #[arg(long, value_name = "DIR")]
    directory: Option<String>,
    /// Give the tool no standard input
    ///
    /// By default it gets the standard input of this command, if the image allows it.
    #[arg(long)]
    no_stdin: bool,
    /// Don't escape control characters in the tool's output on a terminal
    #[arg(long)]
    raw: bool,
    /// Multiply every time limit by this factor; a guest without hardware virtualization needs about 10
    #[arg(long, value_name = "FACTOR", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    patience: u32,
    /// The tool and its parameters: --param NAME=TEXT for a string, --json NAME=JSON for any other value
    #[arg(last = true, required = true, value_name = "TOOL")]
    tool: Vec<OsString>,
}

fn after_help() -> String {
    let statuses = status::help(&[
        (
            Status::Yes,
            "the tool ended with 0; any other exit code of the tool is passed on, too",
        ),
        (
            Status::NoResult,
            "the tool gave no exit code, a file was not copied in or out, or the reset was not verified",
        ),
    ]);
    format!("If a signal ends the tool, the status is 128 plus the signal's number.\n\n{statuses}")
}

fn variable(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("it is not NAME=VALUE"),
    }
}

/// Runs `chv-sandbox run`. Every failure except a wrong command line and a signal is [`Status::NoResult`].
pub(crate) async fn run(args: Args) -> Result<Status, Failure> {
    let interrupt = Interrupt::catch()?;
    let line = ToolLine::parse(&args.tool)?;
    match run_in_sandbox(&interrupt, &args, line).await {
        Err(failure) if !failure.is::<Signalled>() => {
            explain(failure.as_ref());
            Ok(Status::NoResult)
        }
        done => done,
    }
}

async fn run_in_sandbox(
    interrupt: &Interrupt,
    args: &Args,
    line: ToolLine,
) -> Result<Status, Failure> {
    let sandbox = ChvSandbox::new(args.configuration()?)?;
    // Dropping the work cancels the tool.
    let done = tokio::select! {
        biased;
        done = boot_run_reset(&sandbox, args, line) => done,
        signalled = interrupt.received() => Err(signalled.into()),
    };
    sandbox.shutdown().await;
    wait_for_vmms().await;
    done
}

async fn boot_run_reset(
    sandbox: &ChvSandbox,
    args: &Args,
    line: ToolLine,
) -> Result<Status, Failure> {
    sandbox.boot().await?;
    let used = transfer_and_run(sandbox, args, line).await;
    // The sandbox is reset even if the tool failed.
    let reset = sandbox.reset().await;
    let outcome = used?;
    if !reset?.is_verified() {
        return Err(
            "the reset was not verified: there is no golden snapshot to verify it against".into(),
        );
    }
    Ok(match outcome {
        ToolOutcome::Exited { .. } | ToolOutcome::Signalled { .. } => {
            Status::OfTool(u8::try_from(outcome.exit_code()).unwrap_or(u8::MAX))
        }
        outcome => {
            eprintln!("error: the tool gave no exit code: {outcome}");
            Status::NoResult
        }
    })
}

async fn transfer_and_run(
    sandbox: &ChvSandbox,
    args: &Args,
    line: ToolLine,
) -> Result<ToolOutcome, Failure> {
    for push in &args.push {
        push.run(sandbox).await?;
    }
    let report = run_tool(sandbox, args, line).await?;
    for pull in &args.pull {
        pull.run(sandbox).await?;
    }
    Ok(report.outcome)
}

/// Runs the tool with standard input. If the image refuses that, runs it without; a tool that was refused has not
/// begun.
async fn run_tool(sandbox: &ChvSandbox, args: &Args, line: ToolLine) -> Result<RunReport, Failure> {
    let invocation = args.invocation(line);
    if args.no_stdin {
        return streams::run(sandbox, invocation, args.raw).await;
    }
    let with_stdin = invocation.clone().with_stdin();
    let report = streams::run(sandbox, with_stdin, args.raw).await?;
    match report.outcome {
        ToolOutcome::Refused { .. } => streams::run(sandbox, invocation, args.raw).await,
        _ => Ok(report),
    }
}

impl Args {
    fn configuration(&self) -> Result<SandboxConfig, Failure> {
        let config = match (&self.config, &self.golden) {
            (Some(file), _) => SandboxConfig::load(file)?,
            (None, golden) => {
                let mut golden = GoldenOrigin::new(golden.clone().unwrap_or_default());
                golden.public_key.clone_from(&self.public_key);
                let vmm = std::env::var_os("CLOUD_HYPERVISOR");
                SandboxConfig::new(golden).vmm(vmm.unwrap_or("cloud-hypervisor".into()))
            }
        };
        let config = match &self.vmm {
            Some(vmm) => config.vmm(vmm),
            None => config,
        };
        let limits = config.limits.scaled(self.patience);
        // A tool that was refused with standard input is run again without it, which is a second dispatch.
        Ok(config.tools_per_reset(ToolsPerReset::Many).limits(limits))
    }

    fn invocation(&self, line: ToolLine) -> ToolInvocation {
        let mut invocation =
            ToolInvocation::new(line.tool, line.params).with_deadline(self.deadline);
        for (name, value) in &self.env {
            invocation = invocation.with_env(name, value);
        }
        match &self.directory {
            Some(directory) => invocation.with_directory(directory),
            None => invocation,
        }
    }
}
