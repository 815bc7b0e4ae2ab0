//! What is kept of a sandbox that wasn't what its baselines say.
//!
//! | file | what | at most |
//! |---|---|---|
//! | `reset.json` | the state and the report: every digest, check and step | some KiB |
//! | `events.log` | the last events before it, a line each | 256 lines |
//! | `vmm.log`, `console.log` | the end of what VMM and guest wrote, made [safe to show](sanitize::lines) | 16 KiB each before that |
//! | `<role>.img` | each writable disk as it was found | the disk |
//!
//! The small ones are written first, so that a full disk costs the large ones alone. Evidence is never removed by
//! itself; but from the [`WITH_DISKS`]th folder on the disks are left out, so that a host on which every reset diverges
//! isn't filled. What is missing is logged and stands in `missing.txt`.

use std::collections::VecDeque;
use std::fmt;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use super::{Event, ResetOutcome, ResetReport, ResetState};
use crate::causes::Causes;
use crate::machine::Machine;
use crate::offload::blocking;
use crate::sanitize;

/// How many folders of evidence hold the disks too.
const WITH_DISKS: usize = 16;

/// How many events are remembered.
const EVENTS: usize = 256;

/// How long the line of an event may be, in characters.
const EVENT_LINE: usize = 256;

/// The report as a file.
#[derive(Serialize)]
struct Record<'a> {
    state: &'a ResetState,
    report: &'a ResetReport,
}

/// Keeps what shows why the reset's `outcome` is not to be believed, in a new folder under `directory`. Its path, also
/// when something is missing in it; `None` when nothing could be written. Either is logged.
pub(super) async fn keep(
    directory: &Path,
    machine: &Machine,
    outcome: &ResetOutcome,
    events: String,
) -> Option<PathBuf> {
    let record = Record {
        state: &outcome.state,
        report: &outcome.report,
    };
    let record = serde_json::to_vec_pretty(&record).expect("a report has text for its keys");
    let files = [
        ("reset.json", record),
        ("events.log", events.into_bytes()),
        ("vmm.log", machine.vmm().log_tail().into_bytes()),
        ("console.log", machine.console_tail().into_bytes()),
    ];
    let time = outcome.state.reset_at.strftime("%Y%m%dT%H%M%SZ");
    let id = Uuid::new_v4().simple().to_string();
    let folder = directory.join(format!("{time}-{}", &id[..8]));
    let directory = directory.to_owned();
    let (mut kept, before) = blocking(move || {
        let before = fs::read_dir(&directory).map_or(0, Iterator::count);
        let mut kept = Kept::begin(folder)?;
        for (name, bytes) in files {
            kept.write(name, &bytes);
        }
        Some((kept, before))
    })
    .await?;
    if before >= WITH_DISKS {
        kept.lacks("the disks", &format!("there are {before} folders already"));
    } else if let Err(error) = machine.keep_disks(&kept.folder).await {
        kept.lacks("the disks", &Causes(&error));
    }
    blocking(move || kept.finish()).await
}

/// A folder of evidence that is being written.
struct Kept {
    folder: PathBuf,
    written: usize,
    missing: Vec<String>,
}

impl Kept {
    fn begin(folder: PathBuf) -> Option<Kept> {
        let made = DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder);
        match made {
            Ok(()) => Some(Kept {
                folder,
                written: 0,
                missing: Vec::new(),
            }),
            Err(error) => {
                let folder = folder.display();
                tracing::error!(%folder, error = %Causes(&error), "no evidence of the divergence could be kept");
                None
            }
        }
    }

    fn write(&mut self, name: &str, bytes: &[u8]) {
        match write_private(&self.folder.join(name), bytes) {
            Ok(()) => self.written += 1,
            Err(error) => self.lacks(name, &Causes(&error)),
        }
    }

    fn lacks(&mut self, what: &str, why: &dyn fmt::Display) {
        let folder = self.folder.display();
        tracing::error!(%folder, what, %why, "the evidence of a divergence could not be kept in full");
        self.missing.push(format!("{what}: {why}\n"));
    }

    fn finish(mut self) -> Option<PathBuf> {
        if !self.missing.is_empty() {
            let missing = self.missing.concat();
            self.write("missing.txt", missing.as_bytes());
        }
        (self.written > 0).then_some(self.folder)
    }
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// The last events, a line each.
#[derive(Debug, Default)]
pub(super) struct Journal(VecDeque<String>);

impl Journal {
    /// Notes an event; the oldest goes when there are too many.
    pub(super) fn note(&mut self, event: &Event) {
        if self.0.len() == EVENTS {
            self.0.pop_front();
        }
        let line = format!("{} {event}", Timestamp::now());
        self.0.push_back(sanitize::line(&line, EVENT_LINE));
    }
}

impl fmt::Display for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::SandboxState;

    #[test]
    fn a_journal_is_bounded_and_keeps_the_last() {
        let mut journal = Journal::default();
        for _ in 0..EVENTS {
            journal.note(&Event::State(SandboxState::Ready));
        }
        journal.note(&Event::EvidenceKept("x".repeat(10_000).into()));
        let text = journal.to_string();
        assert_eq!(text.lines().count(), EVENTS);
        let last = text.lines().next_back().unwrap();
        assert!(last.contains("evidence kept in xxx"), "{last}");
        assert_eq!(last.chars().count(), EVENT_LINE);
    }
}
