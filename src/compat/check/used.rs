//! What this crate sends and reads when it runs a sandbox.
//!
//! It is not listed by hand: `fixtures/demo.json` is a whole session of this crate with a real VMM, and every test run
//! plays it, so it can't fall behind.

use std::collections::{BTreeMap, BTreeSet};

use super::super::rules::{Area, RULES};
use super::{Direction, Finding, place};
use crate::api::Operation;
use crate::replay::{Answer, Cassette, Exchange, RequestBody, ResponseBody};
use crate::spec::Contract;

/// A session of this crate with a real VMM: minted, booted, reset, and stopped.
const SESSION: &[u8] = include_bytes!("../../../fixtures/demo.json");

/// What this crate calls that no session shows: the VMM of the recorded one outlives it.
const BEYOND: &[Operation] = &[Operation::VmmShutdown];

/// How a difference touches this crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Touch {
    /// It sends what changed.
    Sends,
    /// It leaves out what is now asked for.
    Omits,
    /// It leaves it to a default that changed.
    LeavesOut,
    /// It reads what changed.
    Reads,
}

impl Touch {
    /// How a message goes on.
    pub(super) const fn words(self) -> &'static str {
        match self {
            Touch::Sends => "; this crate sends it",
            Touch::Omits => "; this crate does not send it",
            Touch::LeavesOut => "; this crate leaves it to the default",
            Touch::Reads => "; this crate reads it",
        }
    }
}

/// The operations that are called, and the places of the contract that their bodies fill.
pub(super) struct Used<'c> {
    contract: &'c Contract,
    called: BTreeSet<String>,
    sent: BTreeMap<String, Filled>,
    received: BTreeMap<String, Filled>,
}

/// Places that were filled, by JSON pointer, each with the texts that stood there.
type Filled = BTreeMap<String, BTreeSet<String>>;

impl<'c> Used<'c> {
    /// What the recorded session uses of `contract`.
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

    /// How `finding` touches what is used, if it does. `revision` is the contract that it leads to.
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
            // What is sent needs no default.
            None if area == Area::Default => None,
            None => place::ancestors(path)
                .any(|at| sent.contains_key(at))
                .then_some(Touch::Sends),
        }
    }

    /// An answer is decoded as a whole, so all that it held is read. What it need not hold may be missing.
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
