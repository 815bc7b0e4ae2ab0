//! What an error of the server means, from its status and its message chain together.
//!
//! The status alone doesn't tell: v53.0 answers 404 where v52.0 and v51.2 answer 500. Every row was seen on a
//! running VMM of each release that its comment names, and the cases below hold the exact answers.

use super::ErrorKind;
use crate::api::Operation;

/// A row of the table. What is `None` matches anything.
struct Rule {
    operation: Option<Operation>,
    status: Option<u16>,
    /// A part of any message in the chain.
    says: Option<&'static str>,
    kind: ErrorKind,
}

const fn says(words: &'static str, kind: ErrorKind) -> Rule {
    Rule {
        operation: None,
        status: None,
        says: Some(words),
        kind,
    }
}

const fn says_on(operation: Operation, words: &'static str, kind: ErrorKind) -> Rule {
    Rule {
        operation: Some(operation),
        status: None,
        says: Some(words),
        kind,
    }
}

const fn status(status: u16, kind: ErrorKind) -> Rule {
    Rule {
        operation: None,
        status: Some(status),
        says: None,
        kind,
    }
}

/// The first row that matches decides; an error that no row matches is [`ErrorKind::Rejected`].
const RULES: &[Rule] = &[
    // Too many connections (503), or a resize before the earlier one is done (429).
    status(429, ErrorKind::Busy),
    status(503, ErrorKind::Busy),
    // The HTTP thread still answers, the thread that does the work is gone: "sending on …" or "receiving on …".
    says("on a closed channel", ErrorKind::VmmGone),
    // v53.0, on boot of a running or paused VM; up to v52.0 a state transition, as below.
    says_on(
        Operation::VmBoot,
        "VM is already created",
        ErrorKind::WrongState,
    ),
    says("VM is already created", ErrorKind::AlreadyCreated),
    // 404 on v53.0, 500 before.
    says("VM is not created", ErrorKind::NotCreated),
    says("VM config is missing", ErrorKind::NotCreated),
    says("VM is not running", ErrorKind::WrongState),
    says("InvalidStateTransition", ErrorKind::WrongState),
    says("invalid VM state transition", ErrorKind::WrongState),
    says("snapshot while VM is running", ErrorKind::WrongState),
    // Read in v53.0's source (`vmm/src/vm.rs`); not provoked.
    says("VM is currently migrating", ErrorKind::Busy),
    says("The file is already locked", ErrorKind::LockConflict),
];

/// The kind of an answer that isn't a success.
pub(super) fn classify(operation: Operation, status: u16, messages: &[String]) -> ErrorKind {
    if is_unknown_route(status, messages) {
        return ErrorKind::NotSupported {
            what: operation.name().to_owned(),
            since: None,
            server: None,
        };
    }
    RULES
        .iter()
        .find(|rule| rule.matches(operation, status, messages))
        .map_or(ErrorKind::Rejected, |rule| rule.kind.clone())
}

/// A path that the server doesn't have: 404 with `["Not Found"]`, or without a body in older releases.
fn is_unknown_route(status: u16, messages: &[String]) -> bool {
    status == 404
        && match messages {
            [] => true,
            [only] => only == "Not Found",
            _ => false,
        }
}

impl Rule {
    fn matches(&self, operation: Operation, status: u16, messages: &[String]) -> bool {
        self.operation.is_none_or(|wanted| wanted == operation)
            && self.status.is_none_or(|wanted| wanted == status)
            && self
                .says
                .is_none_or(|words| messages.iter().any(|message| message.contains(words)))
    }
}

#[cfg(test)]
#[path = "classify_tests.rs"]
mod tests;
