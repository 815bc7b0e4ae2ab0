//! `chv-sandbox compat probe`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use chv_sandbox::compat::probe::{self, Options, Probed};
use chv_sandbox::spec::Release;

use super::super::interrupt::{self, Interrupt};
use super::super::status::Status;
use super::super::vm::environment;
use super::{Failure, Format};

/// Holds a running server against the contract of a release, and against what was recorded of it.
///
/// Starts the binary in a private directory, again and again, and asks what it answers to legal and illegal calls in
/// every state that can be reached without a guest. Nothing is left behind.
#[derive(clap::Args)]
#[command(after_help = super::after_help())]
pub(crate) struct Args {
    /// The server: a Cloud Hypervisor's executable
    #[arg(long, value_name = "BIN")]
    vmm: PathBuf,
    /// The release to hold it against, such as v53.0 [default: the one that it says to be]
    #[arg(long, value_name = "RELEASE")]
    release: Option<Release>,
    /// Extra environment of the server, as NAME=VALUE; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = environment)]
    env: Vec<(OsString, OsString)>,
    /// Where the private directory is made [default: the directory for temporary files]
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// How long the whole probe may take, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    patience: u64,
    /// How the report is shown.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// Runs `chv-sandbox compat probe`.
pub(super) async fn run(args: Args) -> Result<Status, Failure> {
    let interrupt = Interrupt::catch()?;
    let options = Options {
        binary: args.vmm,
        env: args.env,
        release: args.release,
        directory: args.directory,
        limit: Duration::from_secs(args.patience),
    };
    let probed = interrupt.race(probe::probe(&options)).await?;
    // A probe that ran out of time has dropped a VMM.
    interrupt::wait_for_vmms().await;
    let probed: Probed = probed?;
    say(&probed);
    super::show(&probed.report, &probed.report.page(), args.format)
}

/// Says on standard error what a report has no place for.
fn say(probed: &Probed) {
    let Probed {
        server,
        held_against,
        compared_with,
        exchanges,
        fields,
        ..
    } = probed;
    eprintln!(
        "{exchanges} exchanges and {fields} fields tried on {server}, held against the contract of {held_against}"
    );
    if server.to_string() != held_against.to_string() {
        eprintln!("note: the server says to be {server}, and is held against {held_against}");
    }
    match compared_with {
        Some(release) if release == held_against => {}
        Some(release) => eprintln!(
            "note: {held_against} was not recorded; compared with the recording of {release}"
        ),
        None => eprintln!("note: no release up to {held_against} was recorded; compared with none"),
    }
    for (scenario, unreached) in &probed.unreached {
        eprintln!(
            "not reached: {} (scenario {scenario}): {}",
            unreached.what, unreached.said
        );
    }
}
