//! `chv-sandbox latency`: measures how long acquiring, using and resetting sandboxes takes on this host.

mod progress;
mod table;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chv_sandbox::latency::{
    Case, CaseState, LatencyReport, MAX_AT_ONCE, Plan, Progress, Subject, measure, page,
};
use chv_sandbox::limits::TimeLimits;
use chv_sandbox::sandbox::{MAX_SPARES, SandboxConfig, Strategy};
use chv_sandbox::vmm::{Confinement, Layer};

use super::interrupt::Interrupt;
use super::output_file::OutputFile;
use super::status::{self, Status};
use super::vm_args::{VmmBinary, layer};
use super::{Failure, usage};

/// The largest report that `--page-of` reads, in bytes. A report with all samples is far smaller.
const MAX_REPORT: u64 = 1 << 30;

/// Measures how long it takes to acquire, use, reset and release sandboxes on this host.
///
/// Prints the mean and percentiles of each step, for each golden snapshot, reset strategy and number of sandboxes in
/// use at the same time.
///
/// An iteration acquires a sandbox from a pool, runs the tool `echo`, reads 1 MiB of the tool `cat` on /dev/zero, and
/// releases the sandbox, which resets and verifies it. Each combination of golden snapshot, strategy, number of spares
/// and --at-once is one case.
///
/// Every guest has both tools, whatever the image's tools file says. The image only needs their programs, `printf` and
/// `cat`, which busybox has.
#[derive(clap::Args)]
#[command(
    override_usage = "chv-sandbox latency --golden DIR... [OPTIONS]\n       \
                      chv-sandbox latency --replay [OPTIONS]\n       \
                      chv-sandbox latency --page-of REPORT --html FILE",
    after_help = status::help(&[
        (Status::Yes, "every case was completed"),
        (Status::No, "a case failed; the report says at which step, and has the figures of the iterations before"),
        (Status::Undecided, "a case could not begin, or the report could not be written"),
    ])
)]
pub(crate) struct Args {
    /// A golden snapshot to measure; may be repeated, for example for several memory sizes
    #[arg(long, value_name = "DIR", required_unless_present_any = ["replay", "page_of"])]
    golden: Vec<PathBuf>,
    /// Measure only the host's share, on the recorded answers of a VMM, without KVM
    ///
    /// Resets are in place, and a case has at most 10,000 iterations including the warm-up.
    #[arg(long, conflicts_with = "golden")]
    replay: bool,
    /// Make the HTML page of a report that --json wrote earlier, without a measurement
    #[arg(long, value_name = "REPORT", requires = "html", conflicts_with_all = ["golden", "replay", "json"])]
    page_of: Option<PathBuf>,
    /// The reset strategies: fresh, in_place [default: both, or in_place with --replay]
    #[arg(long, value_name = "STRATEGY", value_delimiter = ',', value_parser = strategy)]
    strategy: Vec<Strategy>,
    /// The numbers of spare VMMs for the strategy fresh, each a case of its own
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "0,1", value_parser = clap::value_parser!(u32).range(0..=i64::from(MAX_SPARES)))]
    spares: Vec<u32>,
    /// The numbers of sandboxes that are used at the same time, each a case of its own
    #[arg(long, value_name = "M", value_delimiter = ',', default_value = "1", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_AT_ONCE)))]
    at_once: Vec<u32>,
    /// The iterations of each case, summed over its sandboxes
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    iterations: u64,
    /// The iterations of each sandbox before the measurement, which don't count
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=100_000))]
    warm_up: u64,
    /// Write the report with all samples as JSON to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the report with charts of the distributions to this file, as one HTML page that loads nothing from the
    /// network
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    #[command(flatten)]
    vmm: VmmBinary,
    /// Refuse to run unless these confinement layers are in force, for example landlock,namespaces
    ///
    /// Every layer that this host supports is used in any case.
    #[arg(long, value_name = "LAYERS", value_delimiter = ',', value_parser = layer)]
    require: Vec<Layer>,
    /// Start the VMMs without confinement
    #[arg(long, conflicts_with = "require")]
    unconfined: bool,
    /// Where each VMM's private run directory is created [default: in the user's runtime directory]
    #[arg(long, value_name = "DIR")]
    run_root: Option<PathBuf>,
    /// Multiply every time limit by this factor; a guest without hardware virtualization needs about 10
    #[arg(long, value_name = "FACTOR", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    patience: u32,
    /// With --replay: make the reset of this iteration diverge, to show how a failure is reported
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    diverge_at: Option<u64>,
}

pub(crate) fn strategy(name: &str) -> Result<Strategy, &'static str> {
    match name {
        "fresh" => Ok(Strategy::Fresh),
        "in_place" => Ok(Strategy::InPlace),
        _ => Err("it is neither fresh nor in_place"),
    }
}

/// Runs `chv-sandbox latency`.
pub(crate) async fn run(args: Args) -> Result<Status, Failure> {
    if let Some(at) = args.diverge_at {
        if !args.replay {
            return Err(usage("latency", "--diverge-at needs --replay"));
        }
        if at > args.iterations {
            return Err(usage("latency", "--diverge-at is beyond --iterations"));
        }
    }
    let interrupt = Interrupt::catch()?;
    // Before the measurement, which takes long.
    let html = args.html.as_deref().map(OutputFile::prepare).transpose()?;
    let json = args.json.as_deref().map(OutputFile::prepare).transpose()?;
    if let Some(report) = &args.page_of {
        let report = read(report)?;
        write(html, || Ok(page(&report).into_bytes()))?;
        return Ok(Status::Yes);
    }
    let plan = args.plan();
    let progress = Arc::new(Progress::default());
    let work = |stopped| measure(&plan, &progress, stopped);
    let drawing = progress::show(&plan, &progress);
    let (report, signalled) = interrupt.stop(work, drawing).await;
    for line in table::lines(&report) {
        println!("{line}");
    }
    write(json, || Ok(serde_json::to_vec_pretty(&report)?))?;
    write(html, || Ok(page(&report).into_bytes()))?;
    match signalled {
        Some(signalled) => Err(signalled.into()),
        None => Ok(status_of(&report)),
    }
}

/// A failed case counts more than a case that could not begin.
fn status_of(report: &LatencyReport) -> Status {
    let any = |is: fn(&CaseState) -> bool| report.cases.iter().any(|case| is(&case.state));
    match report.is_complete() {
        true => Status::Yes,
        false if any(|state| matches!(state, CaseState::Failed { .. })) => Status::No,
        false => Status::Undecided,
    }
}

fn write(
    output: Option<OutputFile>,
    bytes: impl FnOnce() -> Result<Vec<u8>, Failure>,
) -> Result<(), Failure> {
    match output {
        None => Ok(()),
        Some(output) => output.write(&bytes()?),
    }
}

fn read(path: &Path) -> Result<LatencyReport, Failure> {
    let cannot = |error: &dyn std::fmt::Display| format!("cannot read {}: {error}", path.display());
    let mut json = Vec::new();
    let file = File::open(path).map_err(|error| cannot(&error))?;
    let read = file.take(MAX_REPORT + 1).read_to_end(&mut json);
    read.map_err(|error| cannot(&error))?;
    if json.len() as u64 > MAX_REPORT {
        return Err(cannot(&"it is larger than 1 GiB").into());
    }
    Ok(LatencyReport::from_json(&json)?)
}

impl Args {
    fn plan(&self) -> Plan {
        let subject = match self.replay {
            true => Subject::Recordings {
                patience: self.patience,
                diverge_at: self.diverge_at,
            },
            false => Subject::Vmms {
                config: Box::new(self.configuration()),
                vmm: None,
            },
        };
        let mut plan = Plan::new(subject, self.cases());
        (plan.iterations, plan.warm_up) = (self.iterations, self.warm_up);
        plan.acquire = Duration::from_secs(60) * self.patience;
        let arguments = std::env::args_os().skip(1);
        let arguments = arguments.map(|argument| argument.to_string_lossy().into_owned());
        plan.command_line = ["chv-sandbox".to_owned()]
            .into_iter()
            .chain(arguments)
            .collect();
        plan
    }

    /// The configuration of all cases. Each case sets its own golden snapshot.
    fn configuration(&self) -> SandboxConfig {
        let confinement = match self.unconfined {
            true => Confinement::off(),
            false => Confinement {
                require: self.require.clone(),
                ..Confinement::default()
            },
        };
        let config = SandboxConfig::golden(PathBuf::new())
            .vmm(&self.vmm.path)
            .confinement(confinement)
            .limits(TimeLimits::default().scaled(self.patience));
        match &self.run_root {
            Some(run_root) => config.run_root(run_root),
            None => config,
        }
    }

    fn cases(&self) -> Vec<Case> {
        let strategies = match (&self.strategy[..], self.replay) {
            ([], true) => vec![Strategy::InPlace],
            ([], false) => vec![Strategy::InPlace, Strategy::Fresh],
            (given, _) => given.to_vec(),
        };
        let goldens: Vec<Option<PathBuf>> = match self.replay {
            true => vec![None],
            false => self.golden.iter().cloned().map(Some).collect(),
        };
        let mut cases = Vec::new();
        for golden in &goldens {
            for &at_once in &self.at_once {
                for &strategy in &strategies {
                    let spares = match strategy {
                        Strategy::Fresh => &self.spares[..],
                        Strategy::InPlace => &[0],
                    };
                    cases.extend(spares.iter().map(|&spares| Case {
                        golden: golden.clone(),
                        strategy,
                        spares,
                        at_once,
                    }));
                }
            }
        }
        cases
    }
}
