//! Decides whether two schemas have the same content, whatever their names and places are.

use std::collections::HashSet;

use super::facts;
use super::pairs::Comparison;
use super::sides::Sides;
use crate::spec::{Content, Endpoint, Schema, Shape};

/// The number of compared schemas after which two schemas count as different. The result is used only to recognise a
/// renamed item.
const MAX_COMPARED: usize = 2_000;

impl<'c> Comparison<'c> {
    /// Whether `base` and `revision` are equal in every fact. References to the same name count as equal: the schemas
    /// behind them are compared elsewhere.
    pub(super) fn same(&self, base: &'c Schema, revision: &'c Schema) -> bool {
        let mut waiting = vec![(base, revision)];
        let mut seen = HashSet::new();
        let mut compared = 0;
        while let Some((old, new)) = waiting.pop() {
            if let (Shape::Reference(old), Shape::Reference(new)) = (&old.shape, &new.shape)
                && (old == new || !seen.insert((old, new)))
            {
                continue;
            }
            compared += 1;
            let (old, new) = (self.base.shape(old), self.revision.shape(new));
            if compared > MAX_COMPARED || differ(old, new) {
                return false;
            }
            match (&old.shape, &new.shape) {
                (Shape::Array(old), Shape::Array(new)) | (Shape::Map(old), Shape::Map(new)) => {
                    waiting.push((old, new));
                }
                (
                    Shape::Object {
                        properties: old,
                        required,
                    },
                    Shape::Object {
                        properties: new,
                        required: also_required,
                    },
                ) => {
                    if required != also_required || !old.keys().eq(new.keys()) {
                        return false;
                    }
                    waiting.extend(old.values().zip(new.values()));
                }
                (old, new) if old.kind() != new.kind() => return false,
                _ => {}
            }
        }
        true
    }

    /// Whether two endpoints have the same request bodies and responses.
    pub(super) fn same_endpoint(&self, base: &'c Endpoint, revision: &'c Endpoint) -> bool {
        let bodies = match (&base.body, &revision.body) {
            (None, None) => true,
            (Some(old), Some(new)) => {
                old.required == new.required && self.same_content(&old.content, &new.content)
            }
            _ => false,
        };
        let old = base.responses.values().chain(base.fallbacks.values());
        let new = revision
            .responses
            .values()
            .chain(revision.fallbacks.values());
        bodies
            && base.responses.keys().eq(revision.responses.keys())
            && base.fallbacks.keys().eq(revision.fallbacks.keys())
            && old
                .zip(new)
                .all(|(old, new)| self.same_content(&old.content, &new.content))
    }

    fn same_content(&self, base: &'c Content, revision: &'c Content) -> bool {
        base.keys().eq(revision.keys())
            && base
                .values()
                .zip(revision.values())
                .all(|(old, new)| self.same(old, new))
    }
}

/// Whether two schemas differ in a fact of the value itself.
fn differ(old: &Schema, new: &Schema) -> bool {
    let sides = Sides::of(old, new);
    let directions = |schema: &Schema| {
        ["readOnly", "writeOnly"].map(|flag| schema.constraints.contains_key(flag))
    };
    let mut differ = sides.type_change.is_some() || directions(old) != directions(new);
    facts::compare(&sides, "", "", &mut |_, _| differ = true);
    differ
}
