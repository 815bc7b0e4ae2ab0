//! [`Plan`]: the sandboxes and the cases of a measurement.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::sandbox::{SandboxConfig, Strategy};
use crate::vmm::VmmConfig;

/// The most sandboxes that a case should use at once: 256. The command `chv-sandbox latency` refuses more;
/// [`measure`](super::measure) doesn't check it.
pub const MAX_AT_ONCE: u32 = 256;

/// The most iterations of a case on recordings, including the warm-up of each worker: 10,000. The recorded answers for
/// all iterations are held in memory. A case with more is skipped with [`Error::TooMany`](super::Error::TooMany).
pub const MAX_RECORDED: u64 = 10_000;

/// The sandboxes and cases that are measured, and the number of iterations.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Plan {
    /// The sandboxes that are measured.
    pub subject: Subject,
    /// The cases, in the order in which they are measured.
    pub cases: Vec<Case>,
    /// How many iterations of each case are measured, summed over all workers. The default is 1,000. Any number is
    /// allowed for VMMs; for recordings see [`MAX_RECORDED`].
    pub iterations: u64,
    /// How many unmeasured iterations each worker makes first. The default is 10.
    pub warm_up: u64,
    /// How long a worker waits for a sandbox of the pool. The default is one minute. A longer wait fails the case.
    /// Recordings have no pool and don't use it.
    pub acquire: Duration,
    /// The command line as it was given, for [`LatencyReport::command_line`](super::LatencyReport::command_line). The
    /// default is empty.
    pub command_line: Vec<String>,
}

/// The sandboxes that are measured.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Subject {
    /// VMMs that are spawned.
    Vmms {
        /// The configuration of each sandbox. Its origin is replaced by the golden snapshot of the case, and its number
        /// of tools per reset by [`ToolsPerReset::Many`](crate::sandbox::ToolsPerReset::Many).
        config: Box<SandboxConfig>,
        /// How each VMM is spawned; `None` for the VMM of `config`. If it is set, KVM is not checked in advance, and
        /// the VMM itself reports a missing KVM.
        vmm: Option<Box<VmmConfig>>,
    },
    /// The recorded answers of a VMM, with a simulated guest. Only the host's share of the time is measured.
    Recordings {
        /// The factor by which every default time limit is multiplied, up to 24 hours each; 1 changes none. With 0
        /// every case is skipped.
        patience: u32,
        /// The measured iteration of the first worker, from 1, whose reset diverges, to show how a failure is reported.
        /// With `None`, and with a number beyond that worker's iterations, no reset diverges.
        diverge_at: Option<u64>,
    },
}

/// One case: the settings that all its iterations share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// The directory of the [golden snapshot](crate::golden) that the case resets to; `None` on recordings.
    pub golden: Option<PathBuf>,
    /// How a sandbox is reset. Recordings can only be reset with [`Strategy::InPlace`]; a case with another strategy is
    /// skipped.
    pub strategy: Strategy,
    /// The number of spare VMMs with [`Strategy::Fresh`], at most [`MAX_SPARES`](crate::sandbox::MAX_SPARES); a case
    /// with more is skipped. Not used with [`Strategy::InPlace`].
    pub spares: u32,
    /// How many sandboxes are used at the same time, each by a worker of its own: 1 to [`MAX_AT_ONCE`] (256). It isn't
    /// checked here, but a pool refuses 0 and more than 1,024, and the case is skipped then.
    pub at_once: u32,
}

/// The case's name: its strategy, its spares and how many are used at once, such as `fresh, 1 spare, 4 at once`.
impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.strategy, self.spares) {
            (Strategy::InPlace, _) => f.write_str("in_place")?,
            (Strategy::Fresh, 1) => f.write_str("fresh, 1 spare")?,
            (Strategy::Fresh, spares) => write!(f, "fresh, {spares} spares")?,
        }
        write!(f, ", {} at once", self.at_once)
    }
}

impl Plan {
    /// A plan with these cases, and the defaults for all other settings. Nothing is checked before
    /// [`measure`](super::measure), which reports an impossible case as skipped.
    pub fn new(subject: Subject, cases: Vec<Case>) -> Plan {
        Plan {
            subject,
            cases,
            iterations: 1000,
            warm_up: 10,
            acquire: Duration::from_secs(60),
            command_line: Vec::new(),
        }
    }

    /// How many iterations of a case the worker `index` of `workers` measures.
    pub(super) fn share(&self, index: u32, workers: u32) -> u64 {
        let (index, workers) = (u64::from(index), u64::from(workers.max(1)));
        self.iterations / workers + u64::from(index < self.iterations % workers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_of_the_workers_are_all_iterations() {
        let subject = Subject::Recordings {
            patience: 1,
            diverge_at: None,
        };
        for (iterations, workers) in [(1000, 1), (1000, 7), (3, 8), (1, 256), (0, 2)] {
            let mut plan = Plan::new(subject.clone(), Vec::new());
            plan.iterations = iterations;
            let shares: Vec<u64> = (0..workers).map(|it| plan.share(it, workers)).collect();
            assert_eq!(shares.iter().sum::<u64>(), iterations, "{shares:?}");
            let most = shares.iter().max().unwrap();
            assert!(shares.iter().all(|share| most - share <= 1), "{shares:?}");
        }
    }

    #[test]
    fn a_case_is_named_by_what_is_special_about_it() {
        let name = |strategy, spares| {
            let case = Case {
                golden: None,
                strategy,
                spares,
                at_once: 4,
            };
            case.to_string()
        };
        assert_eq!(name(Strategy::InPlace, 1), "in_place, 4 at once");
        assert_eq!(name(Strategy::Fresh, 0), "fresh, 0 spares, 4 at once");
        assert_eq!(name(Strategy::Fresh, 1), "fresh, 1 spare, 4 at once");
    }
}
