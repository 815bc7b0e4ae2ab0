//! Forms the union of the supported releases' contracts, and records which releases know each item.
//!
//! The union starts with the newest contract, and each older contract is merged into it, from the operations down. An
//! item of a newer contract keeps its shape and its name. So an inline enumeration of an older document becomes the
//! named one that a newer document has at the same place. An item that only an older contract has is added, and is
//! never required. Two shapes that can't be one type are a conflict, which a correction has to resolve.

use std::collections::{BTreeMap, BTreeSet};

use chv_sandbox::spec::{Content, Contract, Endpoint, Method, Release, Schema, Shape};

/// The releases that know each place. A place is an operation (`/vm.info`), a schema (`DiskConfig`), a property
/// (`DiskConfig.path`) or a value of an enumeration (`ImageType=Raw`).
pub(super) type Known = BTreeMap<String, BTreeSet<Release>>;

/// Forms the union of `contracts`, which must be sorted by release. The error lists every conflict.
pub(super) fn of(contracts: &[Contract]) -> Result<(Contract, Known), Vec<String>> {
    let (newest, _) = contracts.split_last().expect("there is a contract");
    let mut union = Union {
        contract: newest.clone(),
        known: Known::new(),
        conflicts: Vec::new(),
    };
    for older in contracts.iter().rev() {
        Overlay {
            union: &mut union,
            older,
            seen: BTreeMap::new(),
        }
        .paths();
    }
    let releases: Vec<Release> = contracts.iter().map(|contract| contract.release).collect();
    for (place, known) in &union.known {
        let run = releases.iter().filter(|release| known.contains(release));
        let (first, last) = (known.first(), known.last());
        let span = releases
            .iter()
            .filter(|&release| Some(release) >= first && Some(release) <= last);
        if !run.eq(span) {
            let known: Vec<String> = known.iter().map(Release::to_string).collect();
            union.conflicts.push(format!(
                "{place} is missing in a release between those that know it: {}",
                known.join(", ")
            ));
        }
    }
    match union.conflicts.is_empty() {
        true => Ok((union.contract, union.known)),
        false => Err(union.conflicts),
    }
}

struct Union {
    contract: Contract,
    known: Known,
    conflicts: Vec<String>,
}

/// One contract that is merged into the union of the newer ones.
struct Overlay<'a> {
    union: &'a mut Union,
    older: &'a Contract,
    /// For each object of the union, the place at which the older contract has it first, and its properties there.
    seen: BTreeMap<String, (String, BTreeSet<String>)>,
}

impl Overlay<'_> {
    fn paths(&mut self) {
        for (path, methods) in &self.older.paths {
            self.know(path.clone());
            for (method, endpoint) in methods {
                self.endpoint(path, *method, endpoint);
            }
        }
    }

    fn endpoint(&mut self, path: &str, method: Method, older: &Endpoint) {
        let methods = self.union.contract.paths.entry(path.to_owned());
        let methods = methods.or_default();
        if methods.keys().any(|other| *other != method) {
            return self.conflict(path, "its method changed");
        }
        let found = methods.get(&method).cloned();
        let adds = found.is_none();
        let mut newer = found.unwrap_or_default();
        if self.older.base_paths(older) != self.union.contract.base_paths(&newer) {
            return self.conflict(path, "its base path changed");
        }
        match (&older.body, &mut newer.body) {
            (Some(older), Some(newer)) => {
                newer.content = self.content(path, &older.content, &newer.content);
            }
            (Some(older), slot) if adds => {
                let mut body = older.clone();
                body.content = self.content(path, &older.content, &Content::new());
                *slot = Some(body);
            }
            (None, None) => {}
            _ => self.conflict(path, "only some releases have a body"),
        }
        for (status, response) in &older.responses {
            let place = format!("{path} {status}");
            let there = newer.responses.entry(*status).or_default();
            there.content = self.content(&place, &response.content, &there.content);
        }
        let methods = self.union.contract.paths.get_mut(path);
        methods.expect("it was added above").insert(method, newer);
    }

    fn content(&mut self, place: &str, older: &Content, newer: &Content) -> Content {
        let mut content = newer.clone();
        for (media_type, schema) in older {
            let merged = match newer.get(media_type) {
                Some(newer) => self.merge(place, schema, newer),
                None => self.adopt(place, schema),
            };
            content.insert(media_type.clone(), merged);
        }
        content
    }

    /// Merges the schemas of a place that both have.
    fn merge(&mut self, place: &str, older: &Schema, newer: &Schema) -> Schema {
        let shape = match (&older.shape, &newer.shape) {
            (Shape::Reference(name), Shape::Reference(other)) => {
                let schema = &self.older.schemas[name];
                self.named(name, schema, other);
                newer.shape.clone()
            }
            (_, Shape::Reference(name)) => {
                self.named(place, older, name);
                newer.shape.clone()
            }
            (Shape::Reference(name), _) => {
                let schema = &self.older.schemas[name];
                return self.merge(place, schema, newer);
            }
            (Shape::Array(older), Shape::Array(newer)) => {
                Shape::Array(Box::new(self.merge(&format!("{place}[]"), older, newer)))
            }
            (Shape::Map(older), Shape::Map(newer)) => {
                Shape::Map(Box::new(self.merge(&format!("{place}{{}}"), older, newer)))
            }
            (
                Shape::Integer { format: older, .. },
                Shape::Integer {
                    format: newer,
                    minimum,
                    maximum,
                },
            ) => Shape::Integer {
                format: match wider(older.as_deref(), newer.as_deref()) {
                    Some(format) => Some(format.to_owned()),
                    None => {
                        let why = format!("{older:?} became {newer:?}, and neither holds both");
                        self.conflict(place, &why);
                        newer.clone()
                    }
                },
                minimum: minimum.clone(),
                maximum: maximum.clone(),
            },
            (Shape::Any, Shape::Any) | (Shape::Boolean, Shape::Boolean) => newer.shape.clone(),
            (
                Shape::String { values: older, .. },
                Shape::String {
                    values: newer_values,
                    ..
                },
            ) if older.is_empty() && newer_values.is_empty() => newer.shape.clone(),
            (older, newer) => {
                self.conflict(place, &format!("{} became {}", say(older), say(newer)));
                newer.clone()
            }
        };
        Schema {
            shape,
            nullable: older.nullable || newer.nullable,
            ..newer.clone()
        }
    }

    /// Merges a schema into the schema of the union that is called `name`.
    fn named(&mut self, origin: &str, older: &Schema, name: &str) {
        if let Shape::Reference(target) = &older.shape {
            return self.named(target, &self.older.schemas[target], name);
        }
        if let Shape::Object { properties, .. } = &older.shape {
            let members: BTreeSet<String> = properties.keys().cloned().collect();
            match self.seen.get(name) {
                None => {
                    let seen = (origin.to_owned(), members);
                    self.seen.insert(name.to_owned(), seen);
                }
                Some((_, before)) if *before == members => return,
                Some((place, before)) => {
                    let why = format!("{place} has {before:?} and {origin} has {members:?}");
                    return self.conflict(name, &why);
                }
            }
        }
        self.know(name.to_owned());
        match (&older.shape, self.shape(name).clone()) {
            (
                Shape::Object {
                    properties,
                    required,
                },
                Shape::Object { .. },
            ) => {
                if let Shape::Object { required: all, .. } = self.shape(name) {
                    all.retain(|property| required.contains(property));
                }
                for (property, schema) in properties {
                    self.property(name, property, schema);
                }
            }
            (Shape::String { values, .. }, Shape::String { values: newer, .. })
                if values.is_empty() == newer.is_empty() =>
            {
                for value in values {
                    self.know(format!("{name}={value}"));
                }
                if let Shape::String { values: all, .. } = self.shape(name) {
                    all.extend(values.iter().cloned());
                }
            }
            (_, shape @ (Shape::Object { .. } | Shape::String { .. })) => {
                let why = format!("{} became {}", say(&older.shape), say(&shape));
                self.conflict(origin, &why);
            }
            (_, _) => {
                let newer = self.union.contract.schemas[name].clone();
                let merged = self.merge(name, older, &newer);
                self.union.contract.schemas.insert(name.to_owned(), merged);
            }
        }
    }

    fn property(&mut self, owner: &str, property: &str, older: &Schema) {
        let place = format!("{owner}.{property}");
        self.know(place.clone());
        let newer = match self.shape(owner) {
            Shape::Object { properties, .. } => properties.get(property).cloned(),
            _ => None,
        };
        let merged = match newer {
            Some(newer) => self.merge(&place, older, &newer),
            None => self.adopt(&place, older),
        };
        if let Shape::Object { properties, .. } = self.shape(owner) {
            properties.insert(property.to_owned(), merged);
        }
    }

    /// Returns the schema for a place that only the older contract has.
    fn adopt(&mut self, place: &str, older: &Schema) -> Schema {
        let shape = match &older.shape {
            Shape::Reference(name) => {
                let schema = &self.older.schemas[name];
                let schemas = &mut self.union.contract.schemas;
                schemas
                    .entry(name.clone())
                    .or_insert_with(|| emptied(schema));
                self.named(name, schema, name);
                older.shape.clone()
            }
            Shape::Array(items) => Shape::Array(Box::new(self.adopt(&format!("{place}[]"), items))),
            Shape::Map(values) => Shape::Map(Box::new(self.adopt(&format!("{place}{{}}"), values))),
            other => other.clone(),
        };
        Schema {
            shape,
            ..older.clone()
        }
    }

    fn shape(&mut self, name: &str) -> &mut Shape {
        let schema = self.union.contract.schemas.get_mut(name);
        &mut schema.expect("a reference leads to a schema").shape
    }

    fn know(&mut self, place: String) {
        let known = self.union.known.entry(place).or_default();
        known.insert(self.older.release);
    }

    fn conflict(&mut self, place: &str, why: &str) {
        let older = self.older.release;
        // A place inside a property, or one with a status, is known in the same releases as the place before that
        // suffix.
        let known = place.trim_end_matches(['[', ']', '{', '}']);
        let known = known
            .split(' ')
            .next()
            .and_then(|known| self.union.known.get(known));
        let newer = known.and_then(|known| known.iter().find(|release| **release > older));
        let newer = newer.unwrap_or(&self.union.contract.release);
        let conflict = format!("{place}: {why} ({older} and {newer})");
        self.union.conflicts.push(conflict);
    }
}

/// Returns a schema without its properties, which are merged into it afterwards.
fn emptied(schema: &Schema) -> Schema {
    let mut schema = schema.clone();
    if let Shape::Object { properties, .. } = &mut schema.shape {
        properties.clear();
    }
    schema
}

/// Returns the format that holds the values of both formats, if one of them does.
fn wider<'f>(one: Option<&'f str>, other: Option<&'f str>) -> Option<&'f str> {
    let (one, other) = (one?, other?);
    let bits = |format: &str| {
        format
            .trim_start_matches(['u', 'i', 'n', 't'])
            .parse::<u8>()
    };
    let sign = |format: &str| format.starts_with('u');
    let (one_bits, other_bits) = (bits(one).ok()?, bits(other).ok()?);
    (sign(one) == sign(other)).then_some(if one_bits > other_bits { one } else { other })
}

fn say(shape: &Shape) -> String {
    match shape {
        Shape::Reference(name) => name.clone(),
        Shape::String { values, .. } if !values.is_empty() => format!("one of {values:?}"),
        other => other.kind().to_owned(),
    }
}

#[cfg(test)]
mod tests;
