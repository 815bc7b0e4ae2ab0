//! Matches the responses of two endpoints by the statuses that they include.
//!
//! The response for a status is the one with its own key, else the one of its class (`2XX`), else `default`. So a
//! status may get a key of its own, or lose it, and still have the same response.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::compat::rules::{Action, Area};
use crate::spec::{Endpoint, Response};

/// The key of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Status(u16),
    /// All statuses of a class that have no key of their own: 2 stands for `2XX`.
    Class(u16),
    /// All statuses that no other key includes.
    Default,
}

/// How the responses of a revision correspond to those of a base.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Coverage {
    /// The pairs of a response of the base and one of the revision that include a common status. Each pair is listed
    /// once.
    pub(super) shared: BTreeSet<(Key, Key)>,
    /// The responses of the base that include statuses for which the revision has no response, with the change.
    pub(super) gone: BTreeMap<Key, (Area, Action)>,
    /// The responses of the revision that include statuses for which the base has no response, with the change.
    pub(super) come: BTreeMap<Key, (Area, Action)>,
}

impl Coverage {
    pub(super) fn of(base: &Endpoint, revision: &Endpoint) -> Coverage {
        let mut coverage = Coverage::default();
        let named = base.responses.keys().chain(revision.responses.keys());
        for status in named.copied().collect::<BTreeSet<u16>>() {
            coverage.add(Key::of(base, status), Key::of(revision, status));
        }
        for class in 1..=5 {
            coverage.add(Key::of_rest(base, class), Key::of_rest(revision, class));
        }
        // A client may expect a named status. A client that accepts any success loses nothing as long as one success
        // status is left.
        let succeeds = revision
            .responses
            .keys()
            .any(|status| status / 100 == 2 && Key::of(base, *status).is_some());
        if let (Some(key), None) = (Key::of_rest(base, 2), Key::of_rest(revision, 2)) {
            let change = match (succeeds, key) {
                (false, _) => (Area::SuccessStatus, Action::Removed),
                (true, Key::Default) => (Area::ErrorStatus, Action::Removed),
                (true, _) => (Area::SuccessStatus, Action::Narrowed),
            };
            coverage.gone.insert(key, change);
        }
        coverage
    }

    fn add(&mut self, base: Option<Key>, revision: Option<Key>) {
        match (base, revision) {
            (Some(base), Some(revision)) => {
                self.shared.insert((base, revision));
            }
            (Some(key), None) => {
                self.gone.insert(key, (key.area(), Action::Removed));
            }
            (None, Some(key)) => {
                self.come.insert(key, (key.area(), Action::Added));
            }
            (None, None) => {}
        }
    }
}

impl Key {
    /// Returns the key of the response of `endpoint` for `status`.
    fn of(endpoint: &Endpoint, status: u16) -> Option<Key> {
        if endpoint.responses.contains_key(&status) {
            return Some(Key::Status(status));
        }
        Key::of_rest(endpoint, status / 100).filter(|key| {
            // HTTP allows no body for these statuses, so a `default` with a body does not include them. A class
            // includes them.
            let bodiless = matches!(status, 100..200 | 204 | 304);
            *key != Key::Default || !bodiless || key.response(endpoint).content.is_empty()
        })
    }

    /// Returns the key of the response for the statuses of `class` that have no key of their own.
    fn of_rest(endpoint: &Endpoint, class: u16) -> Option<Key> {
        [Key::Class(class), Key::Default]
            .into_iter()
            .find(|key| endpoint.fallbacks.contains_key(&key.to_string()))
    }

    /// Returns the response of `endpoint` with this key, which must exist.
    pub(super) fn response(self, endpoint: &Endpoint) -> &Response {
        match self {
            Key::Status(status) => &endpoint.responses[&status],
            _ => &endpoint.fallbacks[&self.to_string()],
        }
    }

    fn area(self) -> Area {
        match self {
            Key::Status(200..300) | Key::Class(2) => Area::SuccessStatus,
            _ => Area::ErrorStatus,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Status(status) => write!(f, "{status}"),
            Key::Class(class) => write!(f, "{class}XX"),
            Key::Default => f.write_str("default"),
        }
    }
}
