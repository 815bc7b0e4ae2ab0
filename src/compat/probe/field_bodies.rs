//! [`Trap`]: request bodies that show whether a server reads a field.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::spec::{Contract, Schema, Shape};

/// A field to try, with the bodies for it.
#[derive(Clone, Debug)]
pub(super) struct Trap {
    pub(super) path: String,
    pub(super) place: String,
    pub(super) pointer: String,
    pub(super) name: String,
    /// The body in which the field has a value of a wrong type.
    pub(super) body: Value,
    /// The same body, with the field under a name that no release has.
    pub(super) control: Value,
    /// The body without the field.
    pub(super) without: Value,
    /// The values to try, each with its body.
    pub(super) with: Vec<(Value, Value)>,
    /// Whether the contract requires the field.
    pub(super) required: bool,
    /// The smallest value of the field.
    sample: Value,
}

/// Values that need no other field. In contrast, a console of mode `File` without a file ends the VMM.
const HARMLESS: [&str; 2] = ["Off", "Null"];

/// The text for a string without a list of values.
pub(super) const ANY_TEXT: &str = "x";

/// The maximum depth, which is larger than that of any field of a contract.
const MAX_DEPTH: usize = 8;

/// Returns a name of the same length that no release has.
pub(super) fn unknown(name: &str) -> String {
    "z".repeat(name.len())
}

/// For the path of an operation and the place of an object: the properties that some release requires, each with a
/// value.
#[derive(Debug, Default)]
pub(super) struct Needed(BTreeMap<(String, String), Map<String, Value>>);

impl Needed {
    /// Collects the properties that any of the contracts requires.
    pub(super) fn by_any(contracts: &[&Contract]) -> Needed {
        let mut needed = Needed::default();
        let nothing = Needed::default();
        let traps = contracts.iter().flat_map(|contract| of(contract, &nothing));
        for trap in traps.filter(|trap| trap.required) {
            let (object, _) = trap.place.rsplit_once('/').unwrap_or_default();
            let properties = needed.0.entry((trap.path, object.to_owned())).or_default();
            properties.entry(trap.name).or_insert(trap.sample);
        }
        needed
    }

    fn at(&self, path: &str, place: &str) -> Map<String, Value> {
        let key = (path.to_owned(), place.to_owned());
        self.0.get(&key).cloned().unwrap_or_default()
    }
}

/// Returns the fields of every request of a contract: the path of the operation, and the place in its body.
pub(super) fn places(contract: &Contract) -> BTreeSet<(String, String)> {
    let traps = of(contract, &Needed::default()).into_iter();
    traps.map(|trap| (trap.path, trap.place)).collect()
}

/// Returns the traps for every request of a contract.
pub(super) fn of(contract: &Contract, needed: &Needed) -> Vec<Trap> {
    let mut traps = Vec::new();
    for (path, methods) in &contract.paths {
        for endpoint in methods.values() {
            let body = endpoint.body.as_ref();
            if let Some(schema) = body.and_then(|body| body.content.get("application/json")) {
                let mut walk = Walk {
                    contract,
                    needed,
                    path,
                    seen: Vec::new(),
                    traps: &mut traps,
                };
                walk.schema(schema, "", "", &|value| value);
            }
        }
    }
    traps
}

struct Walk<'a> {
    contract: &'a Contract,
    needed: &'a Needed,
    path: &'a str,
    /// The pointers of the schemas that contain the current one.
    seen: Vec<String>,
    traps: &'a mut Vec<Trap>,
}

impl Walk<'_> {
    /// Adds the traps for the fields of `schema` and below. `within` puts a value of the schema into a whole body.
    fn schema(
        &mut self,
        schema: &Schema,
        pointer: &str,
        place: &str,
        within: &dyn Fn(Value) -> Value,
    ) {
        let (resolved, pointer) = self.contract.resolve(schema, pointer);
        if self.seen.len() > MAX_DEPTH || self.seen.contains(&pointer) {
            return;
        }
        self.seen.push(pointer.clone());
        match &resolved.shape {
            Shape::Object {
                properties,
                required,
            } => {
                for (name, property) in properties {
                    let mut others = self.needed.at(self.path, place);
                    others.extend(self.required(properties, required));
                    others.remove(name);
                    let with = |name: &str, value: Value| {
                        let mut body = others.clone();
                        body.insert(name.to_owned(), value);
                        within(Value::Object(body))
                    };
                    let pointer = format!("{pointer}/properties/{name}");
                    let place = format!("{place}/{name}");
                    if let Some(wrong) = self.wrong(property) {
                        self.traps.push(Trap {
                            path: self.path.to_owned(),
                            place: place.clone(),
                            pointer: pointer.clone(),
                            name: name.clone(),
                            body: with(name, wrong.clone()),
                            control: with(&unknown(name), wrong),
                            without: within(Value::Object(others.clone())),
                            with: self
                                .values(property)
                                .into_iter()
                                .map(|value| (value.clone(), with(name, value)))
                                .collect(),
                            required: required.contains(name),
                            sample: self.sample(property, 0),
                        });
                    }
                    self.schema(property, &pointer, &place, &|value| with(name, value));
                }
            }
            Shape::Array(items) => {
                let pointer = format!("{pointer}/items");
                self.schema(items, &pointer, &format!("{place}/0"), &|value| {
                    within(json!([value]))
                });
            }
            Shape::Map(values) => {
                let pointer = format!("{pointer}/additionalProperties");
                self.schema(values, &pointer, &format!("{place}/any"), &|value| {
                    within(json!({ "any": value }))
                });
            }
            _ => {}
        }
        self.seen.pop();
    }

    /// Returns the required properties of an object, each with a value.
    fn required(
        &self,
        properties: &BTreeMap<String, Schema>,
        required: &BTreeSet<String>,
    ) -> Map<String, Value> {
        properties
            .iter()
            .filter(|(name, _)| required.contains(*name))
            .map(|(name, schema)| (name.clone(), self.sample(schema, 0)))
            .collect()
    }

    /// Returns the smallest value of the schema.
    fn sample(&self, schema: &Schema, depth: usize) -> Value {
        let (schema, _) = self.contract.resolve(schema, "");
        match &schema.shape {
            Shape::Any | Shape::Reference(_) => Value::Null,
            Shape::Boolean => json!(false),
            Shape::Integer { minimum, .. } | Shape::Number { minimum, .. } => {
                minimum.clone().map_or(json!(1), Value::Number)
            }
            Shape::String { values, .. } => {
                let harmless = HARMLESS.iter().find(|value| values.contains(**value));
                let first = values.first().map(String::as_str);
                json!(harmless.copied().or(first).unwrap_or(ANY_TEXT))
            }
            Shape::Array(_) => json!([]),
            Shape::Map(_) => json!({}),
            Shape::Object { .. } if depth > MAX_DEPTH => json!({}),
            Shape::Object {
                properties,
                required,
            } => properties
                .iter()
                .filter(|(name, _)| required.contains(*name))
                .map(|(name, schema)| (name.clone(), self.sample(schema, depth + 1)))
                .collect::<Map<_, _>>()
                .into(),
        }
    }

    /// Returns every value of an enumeration, or else the smallest value of the schema.
    fn values(&self, schema: &Schema) -> Vec<Value> {
        match &self.contract.resolve(schema, "").0.shape {
            Shape::String { values, .. } if !values.is_empty() => {
                values.iter().map(|value| json!(value)).collect()
            }
            _ => vec![self.sample(schema, 0)],
        }
    }

    /// Returns a value that the schema does not allow. `None` if it allows every value.
    fn wrong(&self, schema: &Schema) -> Option<Value> {
        match self.contract.resolve(schema, "").0.shape {
            Shape::Any | Shape::Reference(_) => None,
            Shape::Boolean => Some(json!("x")),
            _ => Some(json!(true)),
        }
    }
}
