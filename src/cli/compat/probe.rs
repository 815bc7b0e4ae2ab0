//! `chv-sandbox compat probe`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use chv_sandbox::compat::probe::{self, Options, Probed};
use chv_sandbox::spec::Release;

use super::super::interrupt::{self, Interrupt};
use super::super::status::Status;
use super::super::vm_args::environment;
use super::{Failure, Format};

/// Compares a running VMM with the contract of a release, and with the recorded answers of that release.
///
/// Starts the VMM several times in a private directory, and makes legal and illegal API calls in every state that can
/// be reached without a guest. Leaves nothing behind.
#[derive(clap::Args)]
#[command(after_help = super::after_help())]
pub(crate) struct Args {
    /// The Cloud Hypervisor executable to probe
    #[arg(long, value_name = "BIN")]
    vmm: PathBuf,
    /// The release to compare with, for example v53.0 [default: the release that the VMM reports]
    #[arg(long, value_name = "RELEASE")]
    release: Option<Release>,
    /// Set a variable in the environment of the VMM's process; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = environment)]
    env: Vec<(OsString, OsString)>,
    /// Where the private directory is created [default: the directory for temporary files]
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// The time limit of the whole probe, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    patience: u64,
    /// The format of the report.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// Runs `chv-sandbox compat probe`.
pub(super) async fn run(args: Args) -> Result<Status, Failure> {
    let interrupt = Interrupt::catch()?;
    let mut options = Options::new(args.vmm, Duration::from_secs(args.patience));
    options.env = args.env;
    options.release = args.release;
    options.directory = args.directory;
    let probed = interrupt.race(probe::probe(&options)).await?;
    // A probe that exceeded its time limit has dropped a VMM, which may still be ending.
    interrupt::wait_for_vmms().await;
    let probed: Probed = probed?;
    print_notes(&probed);
    super::show(&probed.report, &probed.report.page(), args.format)
}

/// Prints on standard error what the report doesn't contain.
fn print_notes(probed: &Probed) {
    let Probed {
        server,
        held_against,
        compared_with,
        exchanges,
        fields,
        ..
    } = probed;
    eprintln!(
        "{exchanges} exchanges and {fields} fields tried on {server}, compared with the contract of {held_against}"
    );
    if server.to_string() != held_against.to_string() {
        eprintln!("note: the VMM reports release {server}, and is compared with {held_against}");
    }
    match compared_with {
        Some(release) if release == held_against => {}
        Some(release) => eprintln!(
            "note: there is no recording of {held_against}; compared with the recording of {release}"
        ),
        None => eprintln!(
            "note: there is no recording of {held_against} or an earlier release; compared with none"
        ),
    }
    for (scenario, unreached) in &probed.unreached {
        eprintln!(
            "not reached: {} (scenario {scenario}): {}",
            unreached.what, unreached.said
        );
    }
}
