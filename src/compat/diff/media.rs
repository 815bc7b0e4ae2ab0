//! Compares the media types of bodies by their meaning.
//!
//! A key of a body is a media type or a range of media types (`text/*`). A key without a parameter includes that type
//! with any value of the parameter. As in OpenAPI, the most specific key applies. Case, the order of parameters and
//! quotes make no difference.

use std::collections::{BTreeMap, BTreeSet};

use mediatype::{MediaType, ReadParams};

use crate::spec::Content;

/// How the media types of two bodies correspond.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Matched<'c> {
    /// The pairs of a key of the base and a key of the revision, of which one includes the other. Each pair is listed
    /// once.
    pub(super) pairs: BTreeSet<(&'c str, &'c str)>,
    /// The changes of the keys that have no corresponding key on the other side.
    pub(super) changes: Vec<Change<'c>>,
}

/// A change of the media types, with the keys that changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change<'c> {
    Added(&'c str),
    Removed(&'c str),
    Narrowed { was: &'c str, is: &'c str },
    Widened { was: &'c str, is: &'c str },
}

impl<'c> Matched<'c> {
    pub(super) fn of(base: &'c Content, revision: &'c Content) -> Self {
        let (old, new) = (Range::all(base), Range::all(revision));
        let mut matched = Matched::default();
        for range in &old {
            let was = range.key;
            if let Some(by) = range.covering(&new) {
                matched.pairs.insert((was, by.key));
                continue;
            }
            let narrower = new.iter().find(|other| range.covers(other));
            matched.changes.push(match narrower {
                None => Change::Removed(was),
                Some(narrower) => Change::Narrowed {
                    was,
                    is: narrower.key,
                },
            });
        }
        for range in &new {
            let is = range.key;
            if let Some(by) = range.covering(&old) {
                matched.pairs.insert((by.key, is));
                continue;
            }
            // A range that is new, while the type that it includes stays, is an addition: it does not replace the type.
            let narrower = old
                .iter()
                .find(|other| other.covering(&new).is_some_and(|by| by.key == is));
            matched.changes.push(match narrower {
                None => Change::Added(is),
                Some(narrower) => Change::Widened {
                    was: narrower.key,
                    is,
                },
            });
        }
        matched
    }
}

/// The media types that a key includes.
struct Range<'c> {
    key: &'c str,
    /// The main type in lower case, or `*` for any.
    main: String,
    /// The subtype in lower case with its suffix (`vnd.vm+json`), or `*` for any.
    subtype: String,
    parameters: BTreeMap<String, String>,
}

impl<'c> Range<'c> {
    fn all(content: &'c Content) -> Vec<Self> {
        content.keys().map(|key| Range::of(key)).collect()
    }

    fn of(key: &'c str) -> Self {
        let Ok(parsed) = MediaType::parse(key.trim()) else {
            // A key that is not a media type is equal only to itself.
            return Range {
                key,
                main: key.to_owned(),
                subtype: String::new(),
                parameters: BTreeMap::new(),
            };
        };
        let lower = |text: &str| text.to_ascii_lowercase();
        let subtype = match parsed.suffix {
            None => lower(parsed.subty.as_str()),
            Some(suffix) => format!(
                "{}+{}",
                lower(parsed.subty.as_str()),
                lower(suffix.as_str())
            ),
        };
        // JSON has one encoding. RFC 8259 defines no `charset` for it and says that a `charset` has no effect.
        let json = subtype == "json" || subtype.ends_with("+json");
        let parameters = parsed
            .params()
            .map(|(name, value)| (lower(name.as_str()), value.unquoted_str().into_owned()))
            .filter(|(name, _)| !(json && name == "charset"))
            .map(|(name, value)| match name.as_str() {
                "charset" => (name, lower(&value)),
                _ => (name, value),
            })
            .collect();
        Range {
            key,
            main: lower(parsed.ty.as_str()),
            subtype,
            parameters,
        }
    }

    /// Whether this range includes every media type of `other`.
    fn covers(&self, other: &Range<'_>) -> bool {
        let any = self.subtype == "*";
        let types = (any && self.main == "*")
            || self.main == other.main && (any || self.subtype == other.subtype);
        let mut parameters = self.parameters.iter();
        types && parameters.all(|(name, value)| other.parameters.get(name) == Some(value))
    }

    /// Returns the most specific of `ranges` that includes this one.
    fn covering<'r>(&self, ranges: &'r [Range<'c>]) -> Option<&'r Range<'c>> {
        ranges
            .iter()
            .filter(|range| range.covers(self))
            .max_by_key(|range| {
                let parameters = range.parameters.len();
                let named = (range.main != "*", range.subtype != "*");
                (named, parameters, range.key == self.key)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Schema, Shape};

    /// Compares the pairs, and the changes in the form `action old new`.
    fn check(old: &[&str], new: &[&str], pairs: &[(&str, &str)], changes: &[&str]) {
        let content = |keys: &[&str]| -> Content {
            let keys = keys.iter();
            keys.map(|key| ((*key).to_owned(), Schema::new(Shape::Any)))
                .collect()
        };
        let (base, revision) = (content(old), content(new));
        let found = Matched::of(&base, &revision);
        assert_eq!(
            found.pairs,
            pairs.iter().copied().collect(),
            "{old:?} {new:?}"
        );
        let said: Vec<String> = found
            .changes
            .iter()
            .map(|change| match change {
                Change::Added(is) => format!("Added - {is}"),
                Change::Removed(was) => format!("Removed {was} -"),
                Change::Narrowed { was, is } => format!("Narrowed {was} {is}"),
                Change::Widened { was, is } => format!("Widened {was} {is}"),
            })
            .collect();
        assert_eq!(said, changes, "{old:?} {new:?}");
    }

    #[test]
    fn other_notations_of_a_media_type_are_equal() {
        let same = |one: &str, other: &str| {
            check(&[one], &[other], &[(one, other)], &[]);
            check(&[other], &[one], &[(other, one)], &[]);
        };
        same("application/json", "Application/JSON");
        same("application/json", "application/json; charset=utf-8");
        same("application/json;charset=latin1", "application/json");
        same(
            "application/vnd.x+json",
            "application/vnd.X+JSON;charset=utf-8",
        );
        same("text/plain; charset=utf-8", "text/plain;CHARSET=\"UTF-8\"");
        same("a/b; x=1; y=2", "a/b;y=2;x=\"1\"");
        same("a/b; x=\"a\\\"b\"", "a/b;  x=\"a\\\"b\" ");
        same("no media type", "no media type");
    }

    #[test]
    fn other_media_types_differ() {
        let other = |old: &str, new: &str| {
            let expected = [format!("Removed {old} -"), format!("Added - {new}")];
            let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
            check(&[old], &[new], &[], &expected);
        };
        other("application/json", "application/vnd.x+json");
        other("application/json", "text/json");
        other("a/b; x=A", "a/b; x=a");
        other("text/plain; charset=utf-8", "text/plain; charset=latin1");
        other("no media type", "No media type");
        other("*", "application/json");
    }

    #[test]
    fn a_range_or_a_type_without_a_parameter_includes_more() {
        for (wide, narrow) in [
            ("*/*", "application/json"),
            ("*/*", "application/*"),
            ("application/*", "application/json"),
            ("application/*", "application/vnd.x+json"),
            ("text/plain", "text/plain; charset=utf-8"),
            ("a/b; x=1", "a/b; y=2; x=1"),
            ("application/*", "application/json; v=1"),
        ] {
            let narrowed = format!("Narrowed {wide} {narrow}");
            check(&[wide], &[narrow], &[(wide, narrow)], &[&narrowed]);
            let widened = format!("Widened {narrow} {wide}");
            check(&[narrow], &[wide], &[(narrow, wide)], &[&widened]);
        }
    }

    #[test]
    fn the_most_specific_key_counts() {
        let (json, any) = ("application/json", "*/*");
        check(&[json, any], &[json, any], &[(json, json), (any, any)], &[]);
        check(&[any], &[json, any], &[(any, json), (any, any)], &[]);
        check(&[json, any], &[any], &[(json, any), (any, any)], &[]);
        check(&[json], &[json, any], &[(json, json)], &["Added - */*"]);
        check(
            &[json, any],
            &[json],
            &[(json, json)],
            &["Narrowed */* application/json"],
        );
        check(
            &["a/b", "a/b; x=1"],
            &["a/b; x=1"],
            &[("a/b; x=1", "a/b; x=1")],
            &["Narrowed a/b a/b; x=1"],
        );
        check(
            &["application/*"],
            &[json, "application/xml"],
            &[
                ("application/*", json),
                ("application/*", "application/xml"),
            ],
            &["Narrowed application/* application/json"],
        );
        check(
            &[json, "text/plain"],
            &[json],
            &[(json, json)],
            &["Removed text/plain -"],
        );
    }
}
