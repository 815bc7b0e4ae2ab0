//! The releases that know each operation and each field and value of its body, as static data.
//!
//! The data is generated from the contracts of the supported releases, [`SUPPORTED`]. It starts at an [`Operation`],
//! which has a [`Support`](Operation::support) and the fields of its [`body`](Operation::body):
//!
//! ```
//! use chv_sandbox::api::{Operation, Release};
//!
//! let restore = Operation::VmRestore.body().unwrap();
//! let resume = restore.field("resume").unwrap();
//! assert_eq!(resume.support.since, Some(Release::new(52, 0)));
//! assert!(!resume.support.includes(Release::new(51, 2)));
//! ```

use std::fmt;

use super::{Operation, Release, SUPPORTED};

/// The supported releases that know something: all from `since` to `until`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Support {
    /// The first one. None if it is the oldest supported release.
    pub since: Option<Release>,
    /// The last one. None if it is the newest supported release.
    pub until: Option<Release>,
}

/// The fields of an object, sorted by name.
#[derive(Debug)]
pub struct Object {
    /// The name of the schema: `DiskConfig`.
    pub name: &'static str,
    /// Its fields.
    pub fields: &'static [Field],
}

/// A field of an object.
#[derive(Debug)]
pub struct Field {
    /// The name on the wire.
    pub name: &'static str,
    /// The releases that know the field. Other releases ignore it.
    pub support: Support,
    /// The kind of its value.
    pub kind: Kind,
}

/// The kind of a value.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A value without fields, such as a number. Only the server checks it.
    Leaf,
    /// One of these texts.
    Enumeration(&'static Enumeration),
    /// An object of these fields.
    Object(&'static Object),
    /// A list of such values.
    List(&'static Kind),
    /// An object with free keys for such values.
    Map(&'static Kind),
}

/// The values of an enumeration, sorted.
#[derive(Debug)]
pub struct Enumeration {
    /// The name of the schema: `ImageType`.
    pub name: &'static str,
    /// Its values.
    pub values: &'static [EnumValue],
}

/// A value of an enumeration.
#[derive(Debug)]
pub struct EnumValue {
    /// The value on the wire.
    pub text: &'static str,
    /// The releases that know it.
    pub support: Support,
}

impl Support {
    pub(super) const fn new(since: Option<Release>, until: Option<Release>) -> Support {
        Support { since, until }
    }

    /// Whether every supported release knows it.
    pub const fn is_universal(self) -> bool {
        self.since.is_none() && self.until.is_none()
    }

    /// Whether `release` counts as one that knows it.
    ///
    /// A release between two supported ones knows what both its neighbours know. A release that is newer than all
    /// counts as the newest of them, an older one as the oldest.
    pub fn includes(self, release: Release) -> bool {
        let release = release.clamp(SUPPORTED[0], newest());
        self.since.is_none_or(|since| since <= release)
            && self.until.is_none_or(|until| release <= until)
    }
}

/// The newest supported release.
pub fn newest() -> Release {
    SUPPORTED[SUPPORTED.len() - 1]
}

impl fmt::Display for Support {
    /// As a sentence without its end: `since v52.0`, `until v46.0`, `v44.0 to v46.0`, `every release`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.since, self.until) {
            (None, None) => f.write_str("every release"),
            (Some(since), None) => write!(f, "since {since}"),
            (None, Some(until)) => write!(f, "until {until}"),
            (Some(since), Some(until)) => write!(f, "{since} to {until}"),
        }
    }
}

impl Field {
    pub(super) const fn new(name: &'static str, support: Support, kind: Kind) -> Field {
        Field {
            name,
            support,
            kind,
        }
    }
}

impl EnumValue {
    pub(super) const fn new(text: &'static str, support: Support) -> EnumValue {
        EnumValue { text, support }
    }
}

impl Object {
    /// The field with this name on the wire.
    pub fn field(&self, name: &str) -> Option<&'static Field> {
        let at = self.fields.binary_search_by(|field| field.name.cmp(name));
        at.ok().map(|at| &self.fields[at])
    }
}

impl Enumeration {
    /// The value that is `text` on the wire.
    pub fn value(&self, text: &str) -> Option<&'static EnumValue> {
        let at = self.values.binary_search_by(|value| value.text.cmp(text));
        at.ok().map(|at| &self.values[at])
    }
}

impl Operation {
    /// The first supported release that has the operation. None if the oldest has it.
    pub const fn since(self) -> Option<Release> {
        self.support().since
    }

    /// The last supported release that has the operation. None if the newest has it.
    pub const fn until(self) -> Option<Release> {
        self.support().until
    }
}
