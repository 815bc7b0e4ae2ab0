//! [`Used`]: the part of the API that this crate itself sends and reads to run a sandbox.
//!
//! It is read from `fixtures/demo.json`, a recorded session of this crate with a real VMM. The test suite plays this
//! session, so it always matches the crate's behaviour.

use std::collections::{BTreeMap, BTreeSet};

use super::super::rules::{Area, RULES};
use super::{Direction, Finding, place};
use crate::api::Operation;
use crate::replay::{Answer, Cassette, Exchange, RequestBody, ResponseBody};
use crate::spec::Contract;

/// A recorded session of this crate with a real VMM: minting, booting, resetting and stopping.
const SESSION: &[u8] = include_bytes!("../../../fixtures/demo.json");

/// Operations that this crate calls, but not in the recorded session: its VMM was not shut down at the end.
const BEYOND: &[Operation] = &[Operation::VmmShutdown];

/// How a difference affects this crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Touch {
    /// This crate sends the part that changed.
    Sends,
    /// This crate leaves out a part that is now required.
    Omits,
    /// This crate sends no value, so it gets the default, which changed.
    LeavesOut,
    /// This crate reads the part that changed.
    Reads,
}

impl Touch {
    /// Returns the text that is appended to the finding's message.
    pub(super) const fn words(self) -> &'static str {
        match self {
            Touch::Sends => "; this crate sends it",
            Touch::Omits => "; this crate does not send it",
            Touch::LeavesOut => "; this crate leaves it to the default",
            Touch::Reads => "; this crate reads it",
        }
    }
}

/// The operations that this crate calls, and the places of the contract that their bodies fill.
pub(super) struct Used<'c> {
    contract: &'c Contract,
    called: BTreeSet<String>,
    sent: BTreeMap<String, Filled>,
    received: BTreeMap<String, Filled>,
}

/// The places that were filled, by JSON pointer, each with the texts that were found there.
type Filled = BTreeMap<String, BTreeSet<String>>;

impl<'c> Used<'c> {
    /// Returns the part of `contract` that the recorded session uses.
    pub(super) fn recorded(contract: &'c Contract) -> Used<'c> {
        let session = Cassette::from_slice(SESSION).expect("a test plays the session");
        let mut used = Used {
            contract,
            called: BEYOND.iter().map(Operation::to_string).collect(),
            sent: BTreeMap::new(),
            received: BTreeMap::new(),
        };
        for Exchange { request, answer } in session.exchanges {
            let Some(operation) = request.path.strip_prefix("/api/v1/") else {
                continue;
            };
            if let RequestBody::Json(value) = &request.body {
                let filled = used.sent.entry(operation.to_owned()).or_default();
                for (pointer, schema) in place::asked(contract, operation) {
                    place::fill(contract, pointer, schema, value, filled);
                }
            }
            if let Answer::Response(response) = &answer
                && let ResponseBody::Json(value) = &response.body
            {
                let filled = used.received.entry(operation.to_owned()).or_default();
                for (pointer, schema) in place::answered(contract, operation, response.status) {
                    place::fill(contract, pointer, schema, value, filled);
                }
            }
            used.called.insert(operation.to_owned());
        }
        used
    }

    /// Returns how `finding` affects the used part, or `None` if it does not. `revision` is the contract after the
    /// change.
    pub(super) fn touch(&self, finding: &Finding, revision: &Contract) -> Option<Touch> {
        let mut called = finding.affects.intersection(&self.called);
        match finding.direction {
            Direction::Request => called.find_map(|operation| {
                self.touches_request(finding, self.sent.get(operation), revision)
            }),
            Direction::Response => called
                .any(|operation| {
                    self.touches_response(&finding.path, self.received.get(operation), revision)
                })
                .then_some(Touch::Reads),
        }
    }

    fn touches_request(
        &self,
        finding: &Finding,
        sent: Option<&Filled>,
        revision: &Contract,
    ) -> Option<Touch> {
        let path = &finding.path;
        if path.starts_with("/paths/") || path == "/servers" {
            return Some(Touch::Sends);
        }
        let sent = sent?;
        let area = RULES.iter().find(|rule| rule.id == finding.id)?.area;
        if area == Area::EnumValue {
            let known = place::values(revision, path)?;
            let lost = sent.get(path)?.iter().any(|value| !known.contains(value));
            return lost.then_some(Touch::Sends);
        }
        let property = place::property(path);
        let is_sent = |(holder, name): (&str, &str)| {
            sent.contains_key(&format!("{holder}/properties/{name}"))
        };
        match property.filter(|property| !is_sent(*property)) {
            Some((holder, name)) if sent.contains_key(holder) => match area {
                Area::Default => Some(Touch::LeavesOut),
                _ => place::requires(revision, holder, name).then_some(Touch::Omits),
            },
            Some(_) => None,
            // A value that is sent needs no default.
            None if area == Area::Default => None,
            None => place::ancestors(path)
                .any(|at| sent.contains_key(at))
                .then_some(Touch::Sends),
        }
    }

    /// Whether a change affects the reading of a response. A response is decoded as a whole, so every part that it had
    /// is read. A part that is optional in both contracts may be missing.
    fn touches_response(&self, path: &str, received: Option<&Filled>, revision: &Contract) -> bool {
        if path.starts_with("/paths/") {
            return true;
        }
        received.is_some_and(|received| match place::property(path) {
            Some((holder, name)) => {
                received.contains_key(&format!("{holder}/properties/{name}"))
                    && (place::requires(self.contract, holder, name)
                        || place::has(revision, holder, name))
            }
            None => place::ancestors(path).any(|at| received.contains_key(at)),
        })
    }
}
