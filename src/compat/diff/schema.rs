//! Compares two schemas.

use super::facts;
use super::pairs::{Comparison, PairId};
use super::place::Place;
use super::sides::Sides;
use crate::compat::rules::{Action, Area};
use crate::spec::{Schema, Shape};

impl<'c> Comparison<'c> {
    /// Compares two schemas, neither of which is a reference. `area` is the role of the schemas in the schema that
    /// contains them.
    pub(super) fn compare(
        &mut self,
        pair: PairId,
        base: &Place<'c>,
        revision: &Place<'c>,
        area: Area,
    ) {
        self.count();
        let (old, new) = (base.schema, revision.schema);
        let sides = Sides::of(old, new);
        if let Some(action) = sides.type_change {
            let message = format!(
                "`{}` is {} now, and was {}",
                revision.name,
                sides.new.kind(),
                sides.old.kind()
            );
            self.find(pair, (area, action), revision.seat.clone(), message);
            if action == Action::Changed {
                // The two types have no value in common, so no other difference matters.
                return;
            }
        }
        facts::compare(
            &sides,
            &base.name,
            &revision.name,
            &mut |change, message| {
                let path = match change.1 {
                    Action::Removed => base.seat.clone(),
                    _ => revision.seat.clone(),
                };
                self.find(pair, change, path, message);
            },
        );
        match (&old.shape, &new.shape) {
            (Shape::Array(old), Shape::Array(new)) => {
                self.meet(pair, &base.items(old), &revision.items(new), Area::Items);
            }
            (Shape::Object { .. }, Shape::Object { .. }) => self.properties(pair, base, revision),
            (Shape::Map(_), Shape::Map(_) | Shape::Object { .. })
            | (Shape::Object { .. }, Shape::Map(_))
                if !takes_no_others(old) && !takes_no_others(new) =>
            {
                let (base, revision) = (base.values(), revision.values());
                self.meet(pair, &base, &revision, Area::MapValues);
            }
            _ => {}
        }
    }
}

/// Whether an object takes only properties that are named.
fn takes_no_others(schema: &Schema) -> bool {
    schema.constraints.contains_key("additionalProperties")
}
