//! Applies one change of a correction to a contract.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::super::fields::Place;
use super::super::{Contract, Endpoint, Response, Schema, Shape, load};
use super::{Edit, Problem, Target};

impl Edit {
    /// Applies the change at each of its places. Returns each place with the outcome there.
    pub(super) fn apply(&self, contract: &mut Contract) -> Vec<(String, Result<(), Problem>)> {
        let mut at =
            |places: &[Target], change: &dyn Fn(&mut Contract, &Target) -> Result<(), Problem>| {
                places
                    .iter()
                    .map(|place| (place.to_string(), change(contract, place)))
                    .collect()
            };
        match self {
            Edit::RenamePath { of, to } => vec![(to.clone(), rename_path(contract, of, to))],
            Edit::AddSchema { name, schema } => {
                vec![(name.clone(), add_schema(contract, name, schema))]
            }
            Edit::AddProperty { of, schema } => {
                at(of, &|contract, place| add_property(contract, place, schema))
            }
            Edit::RemoveProperty { of } => at(of, &remove_property),
            Edit::RenameProperty { of, to } => {
                let renamed = of
                    .split()
                    .map_or_else(|_| to.clone(), |(object, _)| format!("{object}.{to}"));
                vec![(renamed, rename_property(contract, of, to))]
            }
            Edit::SetSchema { of, schema } => at(of, &|contract, place| {
                let schema = read(schema)?;
                replace(place.find(contract)?, schema)
            }),
            Edit::SetFormat { of, format } => at(of, &|contract, place| {
                set_format(&mut place.find(contract)?.shape, format)
            }),
            Edit::Require { of } => at(of, &require),
            Edit::MakeOptional { of } => at(of, &make_optional),
            Edit::AddValue { of, value } => at(of, &|contract, place| {
                add_value(&mut place.find(contract)?.shape, value)
            }),
            Edit::SetDefault { of, default } => at(of, &|contract, place| {
                let schema = place.find(contract)?;
                // OpenAPI ignores a default beside a reference. The correction has to name the referenced schema.
                match schema.shape {
                    Shape::Reference(_) => Err(Problem::WrongKind(schema.shape.kind())),
                    _ => replace(&mut schema.default, Some(default.clone())),
                }
            }),
            Edit::RemoveDefault { of } => at(of, &|contract, place| {
                place
                    .find(contract)?
                    .default
                    .take()
                    .map(drop)
                    .ok_or(Problem::NothingToChange)
            }),
            Edit::AddStatus { of, status } => responses(contract, of, |responses| match responses
                .insert(*status, Response::default())
            {
                None => Ok(()),
                Some(_) => Err(Problem::Present),
            }),
            Edit::RemoveStatus { of, status } => responses(contract, of, |responses| {
                responses
                    .remove(status)
                    .map(drop)
                    .ok_or(Problem::NothingToChange)
            }),
            Edit::MoveStatus { of, from, to } => {
                responses(contract, of, |responses| move_status(responses, *from, *to))
            }
        }
    }
}

fn read(schema: &Value) -> Result<Schema, Problem> {
    load::schema(&Place::root(schema)).map_err(Problem::Schema)
}

/// Sets `old` to `new`, or fails with [`Problem::NothingToChange`] if they are equal.
fn replace<T: PartialEq>(old: &mut T, new: T) -> Result<(), Problem> {
    if *old == new {
        return Err(Problem::NothingToChange);
    }
    *old = new;
    Ok(())
}

fn rename_path(contract: &mut Contract, of: &str, to: &str) -> Result<(), Problem> {
    if contract.paths.contains_key(to) {
        return Err(Problem::Present);
    }
    let methods = contract.paths.remove(of).ok_or(Problem::Absent)?;
    contract.paths.insert(to.to_owned(), methods);
    Ok(())
}

fn add_schema(contract: &mut Contract, name: &str, schema: &Value) -> Result<(), Problem> {
    let schema = read(schema)?;
    match contract.schemas.insert(name.to_owned(), schema) {
        None => Ok(()),
        Some(_) => Err(Problem::Present),
    }
}

/// The properties of an object, and the names of those that are required.
type Members<'c> = (&'c mut BTreeMap<String, Schema>, &'c mut BTreeSet<String>);

/// Returns the object that has the property `place`, and the property's name.
fn holder<'c, 't>(
    contract: &'c mut Contract,
    place: &'t Target,
) -> Result<(Members<'c>, &'t str), Problem> {
    let (object, name) = place.split()?;
    match &mut object.find(contract)?.shape {
        Shape::Object {
            properties,
            required,
        } => Ok(((properties, required), name)),
        other => Err(Problem::WrongKind(other.kind())),
    }
}

fn add_property(contract: &mut Contract, place: &Target, schema: &Value) -> Result<(), Problem> {
    let schema = read(schema)?;
    let ((properties, _), name) = holder(contract, place)?;
    match properties.insert(name.to_owned(), schema) {
        None => Ok(()),
        Some(_) => Err(Problem::Present),
    }
}

fn remove_property(contract: &mut Contract, place: &Target) -> Result<(), Problem> {
    let ((properties, required), name) = holder(contract, place)?;
    required.remove(name);
    properties.remove(name).map(drop).ok_or(Problem::Absent)
}

fn rename_property(contract: &mut Contract, place: &Target, to: &str) -> Result<(), Problem> {
    let ((properties, required), name) = holder(contract, place)?;
    if properties.contains_key(to) {
        return Err(Problem::Present);
    }
    let schema = properties.remove(name).ok_or(Problem::Absent)?;
    properties.insert(to.to_owned(), schema);
    if required.remove(name) {
        required.insert(to.to_owned());
    }
    Ok(())
}

fn set_format(shape: &mut Shape, new: &str) -> Result<(), Problem> {
    match shape {
        Shape::Integer { format, .. }
        | Shape::Number { format, .. }
        | Shape::String { format, .. } => replace(format, Some(new.to_owned())),
        other => Err(Problem::WrongKind(other.kind())),
    }
}

fn require(contract: &mut Contract, place: &Target) -> Result<(), Problem> {
    let ((properties, required), name) = holder(contract, place)?;
    match (
        properties.contains_key(name),
        required.insert(name.to_owned()),
    ) {
        (false, _) => Err(Problem::Absent),
        (true, false) => Err(Problem::NothingToChange),
        (true, true) => Ok(()),
    }
}

fn make_optional(contract: &mut Contract, place: &Target) -> Result<(), Problem> {
    let ((_, required), name) = holder(contract, place)?;
    if required.remove(name) {
        Ok(())
    } else {
        Err(Problem::NothingToChange)
    }
}

fn add_value(shape: &mut Shape, value: &str) -> Result<(), Problem> {
    match shape {
        // A string schema without a list of values allows every string, so a first value would forbid all others.
        Shape::String { values, .. } if !values.is_empty() => {
            if values.insert(value.to_owned()) {
                Ok(())
            } else {
                Err(Problem::Present)
            }
        }
        other => Err(Problem::WrongKind(other.kind())),
    }
}

type Responses = BTreeMap<u16, Response>;

/// Applies `change` to the responses of each path, which must have exactly one method.
fn responses(
    contract: &mut Contract,
    paths: &[String],
    change: impl Fn(&mut Responses) -> Result<(), Problem>,
) -> Vec<(String, Result<(), Problem>)> {
    let mut at = |path: &str| {
        let methods = contract.paths.get_mut(path).ok_or(Problem::Absent)?;
        let mut endpoints = methods.values_mut();
        match (endpoints.next(), endpoints.next()) {
            (Some(Endpoint { responses, .. }), None) => change(responses),
            _ => Err(Problem::WrongKind("path with several methods")),
        }
    };
    paths.iter().map(|path| (path.clone(), at(path))).collect()
}

fn move_status(responses: &mut Responses, from: u16, to: u16) -> Result<(), Problem> {
    let response = responses.remove(&from).ok_or(Problem::Absent)?;
    match responses.insert(to, response.clone()) {
        Some(there) if there != response => Err(Problem::Present),
        _ => Ok(()),
    }
}
