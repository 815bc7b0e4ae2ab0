//! Which entries of two endpoints' responses stand for the same statuses.
//!
//! A status is answered as its own entry says, else as that of its class (`2XX`), else as `default`. So a status may
//! get an entry of its own, or lose it, and be answered as before.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::compat::rules::{Action, Area};
use crate::spec::{Endpoint, Response};

/// The key of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Status(u16),
    /// All statuses of a class without an entry of their own: 2 for `2XX`.
    Class(u16),
    /// All statuses without any other entry.
    Default,
}

/// How the entries of a revision relate to those of a base.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Coverage {
    /// An entry of the base and one of the revision that stand for one status at least, each pair once.
    pub(super) shared: BTreeSet<(Key, Key)>,
    /// What became of each entry of the base for whose statuses, or some of them, the revision has no entry.
    pub(super) gone: BTreeMap<Key, (Area, Action)>,
    /// The entries of the revision for whose statuses, or some of them, the base has none.
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
        // A client may wait for a status that is named. One that takes any success loses nothing while one is left.
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
    /// The key of the entry that says how `endpoint` answers with `status`.
    fn of(endpoint: &Endpoint, status: u16) -> Option<Key> {
        if endpoint.responses.contains_key(&status) {
            return Some(Key::Status(status));
        }
        Key::of_rest(endpoint, status / 100).filter(|key| {
            // HTTP gives these statuses no body, so a `default` with one can't mean them. A class names them expressly.
            let bodiless = matches!(status, 100..200 | 204 | 304);
            *key != Key::Default || !bodiless || key.response(endpoint).content.is_empty()
        })
    }

    /// The key of the entry for the statuses of `class` that have no entry of their own.
    fn of_rest(endpoint: &Endpoint, class: u16) -> Option<Key> {
        [Key::Class(class), Key::Default]
            .into_iter()
            .find(|key| endpoint.fallbacks.contains_key(&key.to_string()))
    }

    /// The entry of `endpoint`, which has one with this key.
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
