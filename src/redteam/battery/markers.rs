//! Probes of residue: each dispatch looks for the markers that earlier dispatches left, and leaves its own.
//!
//! One script serves all probes of this family, so that many dispatches are cheap. A marker has the random id of the
//! run, the number of its dispatch and a random part. The host judges random bytes, the clock, available memory and
//! open files, by comparing the values that the guest reports over all dispatches.

use std::collections::{BTreeMap, HashSet};

use jiff::Timestamp;
use uuid::Uuid;

use super::ProbeScript;
use crate::causes::Causes;
use crate::redteam::attacker::{AttackError, Attacker};
use crate::redteam::findings::Findings;
use crate::redteam::probe::Probe;
use crate::redteam::{Family, Verdict};

const SCRIPT: &str = include_str!("scripts/markers.sh");

/// How much memory a marker holds, in KiB.
const HELD_KIB: i64 = 8 * 1024;

/// By how much a guest's available memory may vary between dispatches without residue, in KiB.
const SLACK_KIB: i64 = HELD_KIB / 2;

/// By how much the kernel's count of open files may vary: each processor updates it in batches.
const SLACK_FILES: i64 = 64;

/// How far a guest's clock may be from the host's, in seconds.
const SLACK_SECONDS: i64 = 5;

/// After this many dispatches have found markers, the rest is left out.
const ENOUGH: u64 = 8;

/// How many pieces of evidence are kept for each channel.
const KEPT: usize = 4;

/// One dispatch of this many may be lost: its tool gives no answer that counts, for example because the VMM ended.
/// Another dispatch is made in its place.
const ONE_LOST_IN: u64 = 50;

/// The means by which a tool may leave a marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum ResidueKind {
    File,
    Process,
    Memory,
    Descriptor,
    Environment,
    Clock,
    Random,
}

impl ResidueKind {
    /// Its name in the script.
    fn name(self) -> &'static str {
        match self {
            ResidueKind::File => "file",
            ResidueKind::Process => "process",
            ResidueKind::Memory => "memory",
            ResidueKind::Descriptor => "descriptor",
            ResidueKind::Environment => "environment",
            ResidueKind::Clock => "clock",
            ResidueKind::Random => "random",
        }
    }
}

pub(super) const PROBES: &[Probe] = &[
    Probe {
        name: "marker_file",
        family: Family::Markers,
        tries: "leaves a file in every directory that a tool can write to",
        breach: "a later dispatch finds the file of an earlier one",
        attempt: |attacker| Box::pin(verdict(attacker, ResidueKind::File)),
    },
    Probe {
        name: "marker_process",
        family: Family::Markers,
        tries: "leaves a process that goes on writing a file",
        breach: "a later dispatch sees the process, or its file appear again",
        attempt: |attacker| Box::pin(verdict(attacker, ResidueKind::Process)),
    },
    Probe {
        name: "marker_memory",
        family: Family::Markers,
        tries: "leaves a process that holds 8 MiB of memory",
        breach: "a later dispatch has less memory available than the first one",
        attempt: |attacker| Box::pin(verdict(attacker, ResidueKind::Memory)),
    },
    Probe {
        name: "marker_descriptor",
        family: Family::Markers,
        tries: "leaves a process with open descriptors of its marker",
        breach: "a later dispatch sees such a descriptor, or more open files than the first one",
        attempt: |attacker| Box::pin(verdict(attacker, ResidueKind::Descriptor)),
    },
    Probe {
        name: "marker_environment",
        family: Family::Markers,
        tries: "leaves a process with its marker in the environment",
        breach: "a later dispatch finds it in its own environment or in that of a process",
        attempt: |attacker| Box::pin(verdict(attacker, ResidueKind::Environment)),
    },
    Probe {
        name: "marker_clock",
        family: Family::Markers,
        tries: "sets the guest's clock to what it shows, and compares it with the host's",
        breach: "a tool can set it, or the clock of a dispatch is more than 5 s from the host's, or before that of an earlier one",
        attempt: |attacker| Box::pin(verdict(attacker, ResidueKind::Clock)),
    },
    Probe {
        name: "marker_random",
        family: Family::Markers,
        tries: "reads 32 bytes of the random pool in each dispatch",
        breach: "two dispatches read the same bytes",
        attempt: |attacker| Box::pin(verdict(attacker, ResidueKind::Random)),
    },
];

/// The findings of all dispatches.
#[derive(Debug, Default)]
pub(in crate::redteam) struct Rounds {
    made: u64,
    /// The dispatches whose tools gave no answer that counts, and why the first of them did not.
    lost: u64,
    losses: Vec<String>,
    tried: BTreeMap<ResidueKind, u64>,
    breaches: BTreeMap<ResidueKind, Breach>,
    cannot: BTreeMap<ResidueKind, String>,
    /// Why not all dispatches were made.
    stopped: Option<String>,
    random: HashSet<String>,
    first_available: Option<i64>,
    first_open: Option<i64>,
    last_clock: Option<i64>,
}

#[derive(Debug, Default)]
struct Breach {
    dispatches: u64,
    evidence: Vec<String>,
}

/// The verdict for one channel. The first call makes the dispatches for all channels.
async fn verdict(attacker: &mut Attacker, channel: ResidueKind) -> Verdict {
    if attacker.rounds.is_none() {
        let rounds = Rounds::make(attacker).await;
        attacker.rounds = Some(rounds);
    }
    match &attacker.rounds {
        Some(rounds) => rounds.verdict(channel, attacker.plan.dispatches),
        None => Verdict::skipped("no dispatch was made"),
    }
}

impl Rounds {
    async fn make(attacker: &mut Attacker) -> Rounds {
        let mut rounds = Rounds::default();
        let wanted = attacker.plan.dispatches;
        if wanted < 2 {
            rounds.stopped = Some("fewer than two dispatches find no marker".to_owned());
        }
        while rounds.stopped.is_none() && rounds.made < wanted {
            // A dispatch that was lost may have left its marker: the next one has another number.
            let n = rounds.made + rounds.lost;
            let marker = format!("chv-{}-{n}-{}", attacker.id, Uuid::new_v4().simple());
            let bytes = (HELD_KIB * 1024).to_string();
            let variables = [
                ("id", attacker.id.as_str()),
                ("n", &n.to_string()),
                ("marker", &marker),
                ("bytes", &bytes),
            ];
            let script = ProbeScript::new("markers", SCRIPT, &variables);
            let before = Timestamp::now().as_second();
            let round = match attacker.round(&script).await {
                Ok(round) => round,
                Err(trouble) => {
                    rounds.lose(n, &trouble, wanted);
                    continue;
                }
            };
            let findings = script.findings(&round.execution);
            rounds.add(n, &findings, before, Timestamp::now().as_second());
            if !findings.ended {
                rounds.stopped = Some(findings.unfinished());
            } else if let Err(trouble) = round.reset {
                rounds.stopped = Some(Causes(&trouble).to_string());
            } else if rounds
                .breaches
                .values()
                .any(|breach| breach.dispatches >= ENOUGH)
            {
                rounds.stopped = Some("enough markers were found".to_owned());
            }
        }
        rounds
    }

    /// Counts a dispatch whose tool gave no answer that counts. Too many of them end the rounds.
    fn lose(&mut self, n: u64, trouble: &AttackError, wanted: u64) {
        self.lost += 1;
        let reason = Causes(trouble).to_string();
        if self.losses.len() < KEPT {
            self.losses.push(format!("dispatch {n}: {reason}"));
        }
        if self.made == 0 || self.lost > wanted.div_ceil(ONE_LOST_IN) {
            self.stopped = Some(reason);
        }
    }

    /// Adds the findings of dispatch `n`, which ran between `before` and `after` of the host's clock.
    fn add(&mut self, n: u64, findings: &Findings, before: i64, after: i64) {
        self.made += 1;
        use ResidueKind::*;
        for channel in [
            File,
            Process,
            Memory,
            Descriptor,
            Environment,
            Clock,
            Random,
        ] {
            let name = channel.name();
            if findings.tried.contains(name) {
                *self.tried.entry(channel).or_default() += 1;
            }
            if let Some((_, reason)) = findings.cannot.iter().find(|(what, _)| what == name) {
                self.cannot.insert(channel, reason.clone());
            }
            let mut seen: Vec<String> = findings
                .breaches
                .iter()
                .filter(|(what, _)| what == name)
                .map(|(_, seen)| seen.clone())
                .collect();
            match self.judge(channel, findings, before, after) {
                Ok(judged) => seen.extend(judged),
                Err(reason) => drop(self.cannot.insert(channel, reason)),
            }
            if !seen.is_empty() {
                let breach = self.breaches.entry(channel).or_default();
                breach.dispatches += 1;
                let room = KEPT.saturating_sub(breach.evidence.len());
                let seen = seen.into_iter().take(room);
                breach
                    .evidence
                    .extend(seen.map(|seen| format!("dispatch {n}: {seen}")));
            }
        }
    }

    /// The host's own conclusion from the reported values: a breach, none, or why it can't judge.
    fn judge(
        &mut self,
        channel: ResidueKind,
        findings: &Findings,
        before: i64,
        after: i64,
    ) -> Result<Option<String>, String> {
        let number = |key: &str| {
            let said = findings.said.get(key);
            said.and_then(|said| said.parse::<i64>().ok())
        };
        match channel {
            ResidueKind::File | ResidueKind::Process | ResidueKind::Environment => Ok(None),
            ResidueKind::Memory => {
                let available = number("available")
                    .ok_or("the guest does not say how much memory is available")?;
                let first = *self.first_available.get_or_insert(available);
                let is_less = available < first.saturating_sub(SLACK_KIB);
                Ok(is_less
                    .then(|| format!("{available} KiB are available, {first} KiB were at first")))
            }
            ResidueKind::Descriptor => {
                let open =
                    number("open").ok_or("the guest does not say how many files are open")?;
                let first = *self.first_open.get_or_insert(open);
                let are_more = open > first.saturating_add(SLACK_FILES);
                Ok(are_more.then(|| format!("{open} files are open, {first} were at first")))
            }
            ResidueKind::Clock => {
                let clock = number("clock").ok_or("the guest does not say what time it is")?;
                let last = self.last_clock.replace(clock);
                if clock < before - SLACK_SECONDS || clock > after + SLACK_SECONDS {
                    return Ok(Some(format!(
                        "the guest's clock says {clock}, the host's {before} to {after}"
                    )));
                }
                let earlier = last.filter(|last| *last > clock);
                Ok(earlier.map(|last| format!("the clock says {clock}, and said {last} before")))
            }
            ResidueKind::Random => {
                let random = findings.said.get("random");
                let random = random.filter(|random| {
                    random.len() == 64 && random.bytes().all(|byte| byte.is_ascii_hexdigit())
                });
                let random = random.ok_or("the guest gives no 32 random bytes")?;
                let is_new = self.random.insert(random.clone());
                Ok((!is_new).then(|| format!("{random} was read by an earlier dispatch")))
            }
        }
    }

    fn verdict(&self, channel: ResidueKind, wanted: u64) -> Verdict {
        let Rounds { made, .. } = self;
        if let Some(breach) = self.breaches.get(&channel) {
            let count = format!("{} of {made} dispatches found it", breach.dispatches);
            return Verdict::failed(breach.evidence.iter().cloned().chain([count]));
        }
        if let Some(reason) = &self.stopped {
            return Verdict::skipped(format!("after {made} of {wanted} dispatches: {reason}"));
        }
        if let Some(reason) = self.cannot.get(&channel) {
            return Verdict::skipped(reason);
        }
        let tried = self.tried.get(&channel).copied().unwrap_or_default();
        if tried < *made {
            return Verdict::skipped(format!("it was tried in {tried} of {made} dispatches"));
        }
        let lost = match self.lost {
            0 => String::new(),
            lost => format!("; {lost} more were lost: {}", self.losses.join("; ")),
        };
        Verdict::passed(format!(
            "tried in {made} dispatches with a reset after each; none found anything of an earlier one{lost}"
        ))
    }
}
