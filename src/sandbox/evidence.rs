//! [`store`]: stores the evidence of a reset whose verification failed, in a new folder.
//!
//! | file | content | largest size |
//! |---|---|---|
//! | `reset.json` | the state and the report: every digest, check and step | some KiB |
//! | `events.log` | the last events before the failure, one on each line | 256 lines |
//! | `vmm.log`, `console.log` | the end of both outputs, made [safe to show](sanitize::lines) | 16 KiB of output each |
//! | `<role>.img` | each writable disk as it was found | the disk's size |
//! | `missing.txt` | what of the above could not be stored, and why | some KiB |
//!
//! The small files are written first, so that a full file system loses only the large ones. This crate never removes
//! evidence. Once there are [`WITH_DISKS`] folders, further ones hold no disks: a host on which every reset diverges
//! doesn't fill up.

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

/// How many folders of evidence also hold the disks.
const WITH_DISKS: usize = 16;

/// How many events the journal keeps.
const EVENTS: usize = 256;

/// The longest line of an event in the journal, in characters. A longer one is cut.
const EVENT_LINE: usize = 256;

/// The content of `reset.json`.
#[derive(Serialize)]
struct Record<'a> {
    state: &'a ResetState,
    report: &'a ResetReport,
}

/// Stores the evidence of a reset with this `outcome` in a new folder under `directory`, and returns the folder's path.
/// Returns `None` if nothing could be written. Each file that could not be stored is logged.
pub(super) async fn store(
    directory: &Path,
    machine: &Machine,
    outcome: &ResetOutcome,
    events: String,
) -> Option<PathBuf> {
    let record = Record {
        state: &outcome.state,
        report: &outcome.report,
    };
    let record = serde_json::to_vec_pretty(&record).expect("a report serialises as JSON");
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
        let mut kept = EvidenceFolder::begin(folder)?;
        for (name, bytes) in files {
            kept.write(name, &bytes);
        }
        Some((kept, before))
    })
    .await?;
    if before >= WITH_DISKS {
        let why = format!("the directory has {before} folders of evidence already");
        kept.lacks("the disks", &why);
    } else if let Err(error) = machine.keep_disks(&kept.folder).await {
        kept.lacks("the disks", &Causes(&error));
    }
    blocking(move || kept.finish()).await
}

/// A folder of evidence that is being written.
struct EvidenceFolder {
    folder: PathBuf,
    written: usize,
    missing: Vec<String>,
}

impl EvidenceFolder {
    fn begin(folder: PathBuf) -> Option<EvidenceFolder> {
        let made = DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder);
        match made {
            Ok(()) => Some(EvidenceFolder {
                folder,
                written: 0,
                missing: Vec::new(),
            }),
            Err(error) => {
                let folder = folder.display();
                tracing::error!(%folder, error = %Causes(&error), "cannot create a folder for the evidence");
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

    /// Notes that `what` could not be stored.
    fn lacks(&mut self, what: &str, why: &dyn fmt::Display) {
        let folder = self.folder.display();
        tracing::error!(%folder, what, %why, "a part of the evidence of a reset could not be stored");
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

/// The last [`EVENTS`] events as text, one on each line, with the time of each.
#[derive(Debug, Default)]
pub(super) struct Journal(VecDeque<String>);

impl Journal {
    /// Adds an event. Drops the oldest if there are too many.
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
    fn a_journal_is_bounded_and_keeps_the_last_events() {
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
