//! Compares the properties of two objects.

use std::collections::{BTreeMap, BTreeSet};

use super::pairs::{Comparison, PairId};
use super::place::{Names, Place};
use super::rename;
use crate::compat::Direction;
use crate::compat::rules::{Action, Area};
use crate::spec::{Schema, Shape};

/// The properties of an object in one direction.
struct Members<'c> {
    /// All properties.
    names: &'c BTreeMap<String, Schema>,
    /// The properties that exist in this direction.
    properties: BTreeMap<&'c str, &'c Schema>,
    required: &'c BTreeSet<String>,
}

impl<'c> Members<'c> {
    fn of(place: &Place<'c>, names: &Names<'c>, direction: Direction) -> Option<Self> {
        let Shape::Object {
            properties,
            required,
        } = &place.schema.shape
        else {
            return None;
        };
        let absent = elsewhere(direction);
        // The keyword may be in the schema behind a reference, but not beside the reference.
        let present = properties
            .iter()
            .filter(|(_, schema)| !names.shape(schema).constraints.contains_key(absent))
            .map(|(name, schema)| (name.as_str(), schema))
            .collect();
        Some(Members {
            names: properties,
            properties: present,
            required,
        })
    }

    fn requires(&self, name: &str) -> bool {
        self.required.contains(name)
    }

    /// Returns the required names that are properties neither here nor in `other`, in either direction, and that
    /// `other` does not require. The document of v52.0 has such names.
    fn phantoms(&self, other: &Members<'c>) -> impl Iterator<Item = &'c str> {
        self.required
            .iter()
            .map(String::as_str)
            .filter(|name| !self.names.contains_key(*name) && !other.names.contains_key(*name))
            .filter(|name| !other.requires(name))
    }
}

/// Returns the keyword of a property that only the other side may send. Such a property does not exist in this
/// direction.
const fn elsewhere(direction: Direction) -> &'static str {
    match direction {
        Direction::Request => "readOnly",
        Direction::Response => "writeOnly",
    }
}

impl<'c> Comparison<'c> {
    /// Compares the properties of two objects.
    pub(super) fn properties(&mut self, pair: PairId, base: &Place<'c>, revision: &Place<'c>) {
        let direction = self.direction(pair);
        let (Some(old), Some(new)) = (
            Members::of(base, &self.base, direction),
            Members::of(revision, &self.revision, direction),
        ) else {
            return;
        };
        let places = |of: &Place<'c>, these: &Members<'c>, those: &Members<'c>| {
            these
                .properties
                .iter()
                .filter(|(name, _)| !those.properties.contains_key(*name))
                .map(|(name, schema)| (*name, of.property(name, schema)))
                .collect::<Vec<_>>()
        };
        let gone = places(base, &old, &new);
        let come = places(revision, &new, &old);
        let names = |places: &[(&'c str, Place<'c>)]| -> Vec<&'c str> {
            places.iter().map(|(name, _)| *name).collect()
        };
        let renamed = rename::by_content(&names(&gone), &names(&come), |one, other| {
            self.same(old.properties[one], new.properties[other])
        });

        for (name, place) in &gone {
            let message = match new.names.contains_key(*name) {
                true => format!("`{}` is `{}` now", place.name, elsewhere(direction)),
                false => rename::to(format!("`{}` is gone", place.name), name, &renamed),
            };
            let change = (Area::Property, Action::Removed);
            self.find(pair, change, place.pointer.clone(), message);
        }
        for (name, place) in &come {
            let (area, manner) = match (new.requires(name), direction) {
                (true, Direction::Request) => (Area::RequiredProperty, "new and required"),
                _ => (Area::Property, "new"),
            };
            let message = match (old.names.contains_key(*name), area) {
                (true, Area::RequiredProperty) => {
                    let keyword = elsewhere(direction);
                    format!("`{}` is no longer `{keyword}`, and is required", place.name)
                }
                (true, _) => format!("`{}` is no longer `{}`", place.name, elsewhere(direction)),
                (false, _) => {
                    let message = format!("`{}` is {manner}", place.name);
                    rename::from(message, name, &renamed)
                }
            };
            self.find(pair, (area, Action::Added), place.pointer.clone(), message);
        }
        for (name, schema) in &new.properties {
            let Some(before) = old.properties.get(name) else {
                continue;
            };
            let (base, revision) = (base.property(name, before), revision.property(name, schema));
            let required = match (old.requires(name), new.requires(name)) {
                (false, true) => Some((Action::Added, "required now")),
                (true, false) => Some((Action::Removed, "no longer required")),
                _ => None,
            };
            if let Some((action, manner)) = required {
                let message = format!("`{}` is {manner}", revision.name);
                let change = (Area::PropertyRequired, action);
                self.find(pair, change, revision.pointer.clone(), message);
            }
            self.meet(pair, &base, &revision, Area::Type);
        }
        let phantoms = [
            (
                Action::Removed,
                base,
                old.phantoms(&new).collect::<Vec<_>>(),
            ),
            (Action::Added, revision, new.phantoms(&old).collect()),
        ];
        for (action, place, names) in phantoms {
            if !names.is_empty() {
                let manner = match action {
                    Action::Removed => "no longer required",
                    _ => "required now",
                };
                let message = format!(
                    "of `{}`, which has no such property, `{:.200}` is {manner}",
                    place.name,
                    names.join("`, `")
                );
                let path = format!("{}/required", place.pointer);
                self.find(pair, (Area::PropertyRequired, action), path, message);
            }
        }
    }
}
