//! `chv-sandbox redteam`: attacks a sandbox with a set of probes, and reports which attacks it withstood.

mod help;
mod progress;
mod substrate;
mod table;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use chv_sandbox::golden::Golden;
use chv_sandbox::limits::TimeLimits;
use chv_sandbox::redteam::{
    MakeError, Plan, Progress, RedteamReport, Subject, UnknownProbe, attack,
};
use chv_sandbox::sandbox::{
    ChvSandbox, GoldenOrigin, MAX_SPARES, Sandbox, SandboxConfig, Strategy, StubSandbox,
    ToolsPerReset,
};
use chv_sandbox::vmm::Confinement;

use super::interrupt::Interrupt;
use super::latency::strategy;
use super::output_file::OutputFile;
use super::status::Status;
use super::vm_args::VmmBinary;
use super::{Failure, usage};
use substrate::ChangedFiles;

/// The value of `--json` that means standard output.
const STDOUT: &str = "-";

/// Attacks a sandbox with a set of probes, and reports for each probe whether the sandbox withstood it.
///
/// The probes cover residue of an earlier tool, the host's files, resource exhaustion, time bombs, forged results, the
/// channel, the network, and false readings that a reset must detect.
///
/// The image needs the tool `sh`, which a guest offers only if the image's tools file has `"sh": true`. The scripts of
/// the probes run the programs of the image, such as those of busybox.
///
/// A probe that can't be tried is skipped, and a skipped probe does not count as passed. Of the false readings, this
/// command can cause only those that a changed file causes; the others need a guest or a VMM that lies, and are
/// skipped. Leave them out with --without.
#[derive(clap::Args)]
#[command(
    override_usage = "chv-sandbox redteam --golden DIR [OPTIONS]\n       \
                      chv-sandbox redteam --stub [OPTIONS]",
    after_help = help::statuses(),
    after_long_help = help::long()
)]
pub(crate) struct Args {
    /// The golden snapshot
    #[arg(long, value_name = "DIR", required_unless_present = "stub")]
    golden: Option<PathBuf>,
    /// Require a signature of the golden snapshot by this Ed25519 public key: PEM, or 32 raw bytes
    ///
    /// Without this option no signature is checked.
    #[arg(long, value_name = "FILE", conflicts_with = "stub")]
    public_key: Option<PathBuf>,
    /// Attack a stub without a VM, to see a report without KVM
    ///
    /// The stub has no tool `sh`, so every probe is skipped.
    #[arg(long, conflicts_with = "golden")]
    stub: bool,
    /// How many dispatches plant markers and look for those of earlier dispatches
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(2..=1_000_000))]
    dispatches: u64,
    /// Try only these probes, each given by its name or the name of its family; --help lists all names
    #[arg(long, value_name = "NAME", value_delimiter = ',', num_args = 1..)]
    only: Vec<String>,
    /// Leave out these probes, given in the same way, separated by commas or spaces
    #[arg(long, value_name = "NAME", value_delimiter = ',', num_args = 1..)]
    without: Vec<String>,
    /// The reset strategy: fresh, in_place [default: the sandbox's default]
    #[arg(long, value_name = "STRATEGY", value_parser = strategy)]
    strategy: Option<Strategy>,
    /// The number of spare VMMs for the strategy fresh
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=i64::from(MAX_SPARES)))]
    spares: Option<u32>,
    /// Write the report as JSON to this file; - writes it to standard output instead of the table
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    vmm: VmmBinary,
    /// Start the VMMs without confinement
    #[arg(long)]
    unconfined: bool,
    /// Where each VMM's private run directory is created [default: in the user's runtime directory]
    #[arg(long, value_name = "DIR")]
    run_root: Option<PathBuf>,
    /// Multiply every time limit by this factor; a guest without hardware virtualization needs about 10
    #[arg(long, value_name = "FACTOR", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    patience: u32,
}

/// Runs `chv-sandbox redteam`.
pub(crate) async fn run(args: Args) -> Result<Status, Failure> {
    let interrupt = Interrupt::catch()?;
    let plan = Arc::new(args.plan()?);
    // Before the attack, which takes long.
    let to_stdout = args.json.as_deref() == Some(Path::new(STDOUT));
    let json = args.json.as_deref().filter(|_| !to_stdout);
    let json = json.map(OutputFile::prepare).transpose()?;
    let progress = Arc::new(Progress::default());
    let work = |stopped| attack(&plan, &progress, stopped);
    let drawing = progress::show(&plan, &progress);
    let (report, signalled) = interrupt.stop(work, drawing).await;
    if to_stdout {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        for line in table::lines(&report) {
            println!("{line}");
        }
    }
    if let Some(json) = json {
        json.write(&serde_json::to_vec_pretty(&report)?)?;
    }
    match signalled {
        Some(signalled) => Err(signalled.into()),
        None => Ok(status_of(&report)),
    }
}

/// A breach counts more than a probe that could not be tried.
fn status_of(report: &RedteamReport) -> Status {
    if report.is_breached() {
        Status::No
    } else if report.is_passed() {
        Status::Yes
    } else {
        Status::Undecided
    }
}

impl Args {
    fn plan(&self) -> Result<Plan, Failure> {
        let mut plan = match &self.golden {
            Some(golden) => self.plan_of(golden)?,
            None => Plan::new(async || {
                let stub: Arc<dyn Sandbox> = Arc::new(StubSandbox::default());
                Ok(stub)
            }),
        };
        let wrong =
            |error: UnknownProbe| usage("redteam", format_args!("{error}; --help lists all names"));
        if !self.only.is_empty() {
            plan = plan.only(&self.only).map_err(wrong)?;
        }
        plan = plan.without(&self.without).map_err(wrong)?;
        if plan.probes().is_empty() {
            return Err(usage("redteam", "no probe is left to try"));
        }
        (plan.dispatches, plan.patience) = (self.dispatches, self.patience);
        let arguments = std::env::args_os().skip(1);
        let arguments = arguments.map(|argument| argument.to_string_lossy().into_owned());
        plan.command_line = ["chv-sandbox".to_owned()]
            .into_iter()
            .chain(arguments)
            .collect();
        Ok(plan)
    }

    fn plan_of(&self, directory: &Path) -> Result<Plan, Failure> {
        let golden = Golden::open(directory)?;
        let mut origin = GoldenOrigin::new(directory);
        origin.public_key.clone_from(&self.public_key);
        if let Some(strategy) = self.strategy {
            origin = origin.strategy(strategy);
        }
        if let Some(spares) = self.spares {
            origin = origin.spares(spares);
        }
        let config = self.configuration(origin);
        let made = config.clone();
        let mut plan = Plan::new(move || {
            let config = made.clone();
            async move {
                let sandbox: Arc<dyn Sandbox> =
                    Arc::new(ChvSandbox::new(config).map_err(MakeError::from)?);
                Ok(sandbox)
            }
        });
        plan.subject = Subject {
            golden: Some(directory.display().to_string()),
            release: Some(golden.manifest().release.to_string()),
            strategy: self.strategy.map(|strategy| {
                let is_fresh = strategy == Strategy::Fresh;
                if is_fresh { "fresh" } else { "in_place" }.to_owned()
            }),
        };
        Ok(plan.with_substrate(ChangedFiles::new(directory, config)))
    }

    fn configuration(&self, origin: GoldenOrigin) -> SandboxConfig {
        let config = SandboxConfig::new(origin)
            .vmm(&self.vmm.path)
            // Some probes send a second tool, to see whether it is accepted.
            .tools_per_reset(ToolsPerReset::Many)
            .limits(TimeLimits::default().scaled(self.patience));
        let config = match self.unconfined {
            true => config.confinement(Confinement::off()),
            false => config,
        };
        match &self.run_root {
            Some(run_root) => config.run_root(run_root),
            None => config,
        }
    }
}
