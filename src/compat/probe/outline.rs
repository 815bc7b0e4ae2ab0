//! [`Outline`]: a summary of a recording, with calls, statuses, kinds of errors, forms of bodies, and the fields of
//! successes.
//!
//! The library contains an outline of each recorded release, in place of its cassettes. As a file it is JSON. Each step
//! is a line such as `PUT /api/v1/vm.boot 404 NotCreated chain`. The body of a success is one of the file's `bodies`,
//! with types in place of values.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::call::endpoint;
use super::recording::Recording;
use crate::api::Operation;
use crate::client::{self, ErrorKind};
use crate::replay::{Answer, Exchange, RecordedResponse, ResponseBody};
use crate::spec::{Contract, Schema, Shape};

/// The outline of all recordings of a release.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Outline {
    /// The distinct bodies of successes, with types in place of values.
    pub bodies: Vec<Value>,
    /// The steps of each scenario, by the scenario's name.
    pub scenarios: BTreeMap<String, Vec<Played>>,
}

/// One step and its outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Played {
    /// The method and the path of the request.
    pub call: String,
    /// The answer. `None` if the VMM closed the connection.
    pub answer: Option<Outcome>,
}

/// The summary of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The HTTP status.
    pub status: u16,
    /// The kind of error that the client makes of the answer. `None` for a success, and for a request that is not an
    /// operation.
    pub kind: Option<String>,
    /// The form of the body.
    pub form: Form,
}

/// The form of an answer's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// There is no body.
    Empty,
    /// A list of strings, as an error of the VMM has it.
    Chain,
    /// Text that is not JSON.
    Text,
    /// The text with which the HTTP layer answers a request that it can't parse.
    Http,
    /// JSON: the index in [`Outline::bodies`].
    Body(usize),
}

impl Outline {
    /// Creates the outline of `recordings`. The keys of maps are left out; `contract` says which objects are maps.
    pub fn of(recordings: &[Recording], contract: &Contract) -> Outline {
        let mut outline = Outline::default();
        for recording in recordings {
            let exchanges = recording.cassette.exchanges.iter();
            let played = exchanges
                .map(|exchange| outline.played(exchange, contract))
                .collect();
            outline
                .scenarios
                .insert(recording.scenario.to_owned(), played);
        }
        outline
    }

    /// Returns the body for this form, if it is a JSON body.
    pub fn body(&self, form: Form) -> Option<&Value> {
        match form {
            Form::Body(index) => self.bodies.get(index),
            _ => None,
        }
    }

    fn played(&mut self, exchange: &Exchange, contract: &Contract) -> Played {
        let request = &exchange.request;
        let call = format!("{} {}", request.method, request.path);
        let Answer::Response(response) = &exchange.answer else {
            return Played { call, answer: None };
        };
        let form = match &response.body {
            ResponseBody::Empty => Form::Empty,
            ResponseBody::Text(text) if client::is_of_http_layer(text.as_bytes()) => Form::Http,
            ResponseBody::Text(_) => Form::Text,
            ResponseBody::Json(json) if is_chain(json) && response.status >= 400 => Form::Chain,
            ResponseBody::Json(json) => {
                let schema = success_schema(contract, &call, response.status);
                let types = types(contract, schema, json);
                let known = self.bodies.iter().position(|body| *body == types);
                Form::Body(known.unwrap_or_else(|| {
                    self.bodies.push(types);
                    self.bodies.len() - 1
                }))
            }
        };
        let kind = operation(&call)
            .filter(|_| response.status >= 400)
            .map(|operation| kind(operation, response));
        Played {
            call,
            answer: Some(Outcome {
                status: response.status,
                kind,
                form,
            }),
        }
    }
}

/// Returns the operation of a call such as `PUT /api/v1/vm.boot`.
pub(super) fn operation(call: &str) -> Option<Operation> {
    Operation::ALL
        .iter()
        .copied()
        .find(|operation| call == format!("{} {}", operation.method().as_str(), operation.path()))
}

/// Returns the name of the error kind that the client makes of `response`.
fn kind(operation: Operation, response: &RecordedResponse) -> String {
    let body = match &response.body {
        ResponseBody::Empty => Vec::new(),
        ResponseBody::Text(text) => text.clone().into_bytes(),
        ResponseBody::Json(json) => json.to_string().into_bytes(),
    };
    let kind = client::kind_of(operation, response.status, &body);
    match kind {
        ErrorKind::NotSupported { .. } => "NotSupported".to_owned(),
        kind => format!("{kind:?}"),
    }
}

/// Whether the answer means that the path is not served.
pub(super) fn is_unknown_route(call: &str, response: &RecordedResponse) -> bool {
    operation(call).is_some_and(|operation| kind(operation, response) == "NotSupported")
}

/// Returns the text in the body of an error, in one line.
pub(super) fn words(body: &[u8]) -> String {
    let said = client::messages_in(body).join(": ");
    // A backtrace may follow on further lines.
    let mut line = said.lines().next().unwrap_or_default().to_owned();
    if line.is_empty() {
        "nothing".clone_into(&mut line);
    }
    line
}

fn is_chain(json: &Value) -> bool {
    json.as_array()
        .is_some_and(|items| items.iter().all(Value::is_string))
}

/// Returns the schema of a call's answer with this status in the contract.
pub(super) fn success_schema<'a>(
    contract: &'a Contract,
    call: &str,
    status: u16,
) -> Option<&'a Schema> {
    let endpoint = endpoint(contract, call)?.1;
    endpoint
        .responses
        .get(&status)?
        .content
        .get("application/json")
}

/// Returns `value` with types in place of values. The items of a list are merged into one, and so are the values of a
/// map.
fn types(contract: &Contract, schema: Option<&Schema>, value: &Value) -> Value {
    let shape = schema.map(|schema| &contract.resolve(schema, "").0.shape);
    match value {
        Value::Array(items) => {
            let schema = match shape {
                Some(Shape::Array(items)) => Some(&**items),
                _ => None,
            };
            let merged = items
                .iter()
                .map(|item| types(contract, schema, item))
                .reduce(merge);
            Value::Array(merged.into_iter().collect())
        }
        Value::Object(entries) => match shape {
            Some(Shape::Map(values)) => {
                let merged = entries
                    .values()
                    .map(|value| types(contract, Some(values), value))
                    .reduce(merge);
                Value::Object(
                    merged
                        .map(|types| (ANY_KEY.to_owned(), types))
                        .into_iter()
                        .collect(),
                )
            }
            shape => {
                let property = |name: &String| match shape {
                    Some(Shape::Object { properties, .. }) => properties.get(name),
                    _ => None,
                };
                let types = entries
                    .iter()
                    .map(|(name, value)| (name.clone(), types(contract, property(name), value)));
                Value::Object(types.collect())
            }
        },
        Value::Null => Value::Null,
        Value::Bool(_) => "boolean".into(),
        Value::Number(number) if number.is_f64() => "number".into(),
        Value::Number(_) => "integer".into(),
        Value::String(_) => "string".into(),
    }
}

/// Stands for all keys of a map.
pub(super) const ANY_KEY: &str = "*";

/// Merges the types of two values. Each may have fields that the other lacks.
fn merge(one: Value, other: Value) -> Value {
    match (one, other) {
        (Value::Object(mut one), Value::Object(other)) => {
            for (name, types) in other {
                let merged = match one.remove(&name) {
                    Some(known) => merge(known, types),
                    None => types,
                };
                one.insert(name, merged);
            }
            Value::Object(one)
        }
        (Value::Array(one), Value::Array(other)) => Value::Array(
            one.into_iter()
                .chain(other)
                .reduce(merge)
                .into_iter()
                .collect(),
        ),
        (Value::Null, other) => other,
        (one, _) => one,
    }
}

/// A difference between the fields of two answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Differing {
    /// The JSON pointer into the answer, with `*` for any key of a map and `0` for any item of a list.
    pub(super) place: String,
    /// The types of the recorded answer. `null` if it had nothing there.
    pub(super) before: Value,
    /// The types of the observed answer. `None` if the field is missing.
    pub(super) now: Option<Value>,
}

/// Returns the fields of `known` that `seen` lacks or has with another type.
pub(super) fn differences(known: &Value, seen: &Value) -> Vec<Differing> {
    let mut found = Vec::new();
    differ(known, seen, String::new(), &mut found);
    found
}

fn differ(known: &Value, seen: &Value, place: String, found: &mut Vec<Differing>) {
    match (known, seen) {
        (Value::Object(known), Value::Object(seen)) => each_field(known, seen, &place, found),
        (Value::Array(known), Value::Array(seen)) => {
            // An empty list does not show the type of its items.
            if let (Some(known), Some(seen)) = (known.first(), seen.first()) {
                differ(known, seen, format!("{place}/0"), found);
            }
        }
        (Value::Null, _) => {}
        (known, seen) if known == seen => {}
        (known, seen) => found.push(Differing {
            place,
            before: known.clone(),
            now: Some(seen.clone()),
        }),
    }
}

fn each_field(
    known: &Map<String, Value>,
    seen: &Map<String, Value>,
    place: &str,
    found: &mut Vec<Differing>,
) {
    for (name, known) in known {
        let place = format!("{place}/{name}");
        match seen.get(name) {
            Some(seen) => differ(known, seen, place, found),
            // A map may be empty, and a field that was `null` may also be absent.
            None if name == ANY_KEY || known.is_null() => {}
            None => found.push(Differing {
                place,
                before: known.clone(),
                now: None,
            }),
        }
    }
}

impl From<Played> for String {
    fn from(played: Played) -> String {
        let Some(Outcome { status, kind, form }) = played.answer else {
            return format!("{} closed", played.call);
        };
        let mut line = format!("{} {status}", played.call);
        let form = match form {
            Form::Empty => None,
            Form::Chain => Some("chain".to_owned()),
            Form::Text => Some("text".to_owned()),
            Form::Http => Some("http".to_owned()),
            Form::Body(index) => Some(format!("body-{index}")),
        };
        for word in kind.into_iter().chain(form) {
            line.push(' ');
            line.push_str(&word);
        }
        line
    }
}

/// The text is not a line of an outline.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a line of an outline")]
pub struct ParsePlayedError(String);

impl TryFrom<String> for Played {
    type Error = ParsePlayedError;

    fn try_from(line: String) -> Result<Played, ParsePlayedError> {
        parse(&line).ok_or(ParsePlayedError(line))
    }
}

fn parse(line: &str) -> Option<Played> {
    let mut words = line.split(' ');
    let call = format!("{} {}", words.next()?, words.next()?);
    let status = words.next()?;
    if status == "closed" {
        return words
            .next()
            .is_none()
            .then_some(Played { call, answer: None });
    }
    let mut outcome = Outcome {
        status: status.parse().ok()?,
        kind: None,
        form: Form::Empty,
    };
    for word in words {
        match word {
            "chain" => outcome.form = Form::Chain,
            "text" => outcome.form = Form::Text,
            "http" => outcome.form = Form::Http,
            word => match word.strip_prefix("body-") {
                Some(index) => outcome.form = Form::Body(index.parse().ok()?),
                None => outcome.kind = Some(word.to_owned()),
            },
        }
    }
    Some(Played {
        call,
        answer: Some(outcome),
    })
}
