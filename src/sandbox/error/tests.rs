//! The table of codes in `codes.md` is compared with the errors.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::guest::record::RecordError;
use crate::sandbox::{ResetReport, StrategyUsed, VmmApiState};
use crate::vmm::Exit;
use crate::vsock::{CloseCause, EvidenceError, HandshakeError, Origin, Violation};

fn origin() -> Origin {
    Origin {
        channel: 1,
        socket: Arc::from(std::path::Path::new("vsock.sock")),
        port: 1024,
    }
}

/// One error of each kind that a channel or the connection of a run may give.
fn of_channels() -> Vec<vsock::Error> {
    let evidence = |source| vsock::Error::Evidence {
        origin: origin(),
        command_id: "1".to_owned(),
        source,
    };
    vec![
        vsock::Error::Handshake {
            socket: "vsock.sock".into(),
            port: 1024,
            attempts: 1,
            elapsed: Duration::ZERO,
            source: HandshakeError::ClosedSilently,
        },
        vsock::Error::Closed {
            origin: origin(),
            source: CloseCause::Peer,
        },
        vsock::Error::FrameTooLarge {
            origin: origin(),
            frame: None,
            length: 2,
            limit: 1,
        },
        vsock::Error::FrameMalformed {
            origin: origin(),
            source: None,
        },
        vsock::Error::PartialFrameTimeout {
            origin: origin(),
            direction: "from the guest",
            done: 1,
            waited: Duration::ZERO,
        },
        vsock::Error::Protocol {
            origin: origin(),
            source: Violation::WrongDirection { frame: "Hello" },
        },
        vsock::Error::RecordMalformed {
            origin: origin(),
            source: RecordError::Kind { kind: 0 },
        },
        vsock::Error::NotAnnounced {
            origin: origin(),
            extension: "run/1",
        },
        vsock::Error::TooManyStreams { origin: origin() },
        vsock::Error::Refused {
            origin: origin(),
            code: "X".to_owned(),
            message: "x".to_owned(),
        },
        vsock::Error::DuplicateRequest {
            origin: origin(),
            command_id: "1".to_owned(),
        },
        vsock::Error::DuplicateQuery {
            origin: origin(),
            query_id: uuid::Uuid::nil(),
        },
        vsock::Error::NoAnswer {
            origin: origin(),
            request: "a query",
            waited: Duration::ZERO,
        },
        evidence(EvidenceError::Gap { missing: 1 }),
        evidence(EvidenceError::Duplicate { seq: 1 }),
        evidence(EvidenceError::OutOfOrder {
            seq: 2,
            expected: 1,
        }),
        evidence(EvidenceError::AnotherOutput),
    ]
}

fn all() -> Vec<Error> {
    let steps = crate::machine::Steps::start();
    let report = ResetReport::unverified(StrategyUsed::Nothing, None, &steps);
    let failed = Arc::new(FailedReset {
        outcome: ResetOutcome::unverified(VmmApiState::Running, report),
        evidence: None,
    });
    let timed_out = vsock::Error::ToolTimeout {
        origin: origin(),
        command_id: "1".to_owned(),
        waited: Duration::ZERO,
    };
    let unavailable = Unavailable::TooOld {
        release: Release::new(1, 0),
        oldest: Release::new(2, 0),
    };
    let machine = || machine::Error::NoChannel;
    let states = [
        WireState::NotBooted,
        WireState::Booting,
        WireState::Ready,
        WireState::Resetting,
        WireState::Failed,
    ];
    let mut all: Vec<Error> = of_channels().into_iter().map(Error::Channel).collect();
    all.extend(states.map(|state| Error::NotReady {
        action: "run a tool",
        state,
    }));
    all.extend([
        Error::Halted {
            action: "run a tool",
            failed: Arc::clone(&failed),
        },
        Error::PoolHalted(Arc::clone(&failed)),
    ]);
    all.extend(FileCode::ALL.map(|code| {
        Error::Files(Arc::new(TransferError::Guest {
            path: "in".to_owned(),
            code,
            message: String::new(),
        }))
    }));
    all.extend([
        Error::NotAvailable(Arc::new(unavailable)),
        Error::NeedsReset {
            reason: ResetReason::ToolRan,
        },
        Error::BootFailed(Arc::new(BootFailure::Machine(machine()))),
        Error::BootFailed(Arc::new(BootFailure::Unverified(Error::ShutDown))),
        Error::ToolTimeout {
            deadline: Duration::ZERO,
            source: timed_out,
        },
        Error::ToolRefused(ToolRefusal::Name(
            crate::guest::protocol::ToolName::new("").unwrap_err(),
        )),
        Error::ResetInterrupted,
        Error::ResetDivergence(Arc::clone(&failed)),
        Error::ResetTimeout(failed),
        Error::ResetFailed(Arc::new(machine())),
        Error::ResetRefused(Arc::new(golden::Error::Unsigned {
            path: PathBuf::new(),
        })),
        Error::VmmEnded(Arc::new(vmm::Ended {
            pid: 1,
            exit: Exit::Unknown,
            log_tail: String::new(),
        })),
        Error::ShutDown,
        Error::AcquireTimeout {
            waited: Duration::ZERO,
            source: None,
        },
        Error::PoolClosed,
    ]);
    all
}

#[test]
fn the_table_has_each_code_with_each_advice_and_no_other() {
    let mut expected: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let errors = all();
    for error in &errors {
        let advice = expected.entry(error.code()).or_default();
        advice.insert(error.advice().to_string());
    }
    let rows = include_str!("../codes.md").lines().skip(2);
    let mut found: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for row in rows {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [_, code, _, advice, _] = cells[..] else {
            panic!("{row}");
        };
        // The text in brackets says when the advice holds. It is no part of the advice.
        let without_brackets = advice.split('(').map(|part| match part.split_once(')') {
            Some((_, after)) => after,
            None => part,
        });
        let advice: String = without_brackets.collect();
        let advice = advice.split(',').map(|one| one.trim().to_owned());
        found.insert(code.trim_matches('`'), advice.collect());
    }
    assert_eq!(found, expected);
}
