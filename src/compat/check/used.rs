//! What this crate sends and reads when it runs a sandbox.
//!
//! It is not listed by hand: `fixtures/demo.json` is a whole session of this crate with a real VMM, and every test run
//! plays it, so it can't fall behind.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Direction, Finding};
use crate::api::Operation;
use crate::replay::{Answer, Cassette, RequestBody, ResponseBody};
use crate::spec::{Contract, Method, Schema, Shape};

/// A session of this crate with a real VMM: minted, booted, reset, and stopped.
const SESSION: &[u8] = include_bytes!("../../../fixtures/demo.json");

/// What this crate calls that no session shows: the VMM of the recorded one outlives it.
const BEYOND: &[Operation] = &[Operation::VmmShutdown];

/// How a difference touches this crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Touch {
    Sent,
    Read,
}

/// The operations that are called, and what is sent with them.
pub(super) struct Used {
    called: BTreeSet<String>,
    /// Those whose answer has a body. It is decoded as a whole, so all of it counts as read.
    read: BTreeSet<String>,
    /// The JSON pointers of the schemas and properties that were sent, each with its operation.
    sent: BTreeSet<(String, String)>,
}

impl Used {
    /// What the recorded session uses of `contract`.
    pub(super) fn recorded(contract: &Contract) -> Used {
        let session = Cassette::from_slice(SESSION).expect("a test plays the session");
        let mut used = Used {
            called: BEYOND.iter().map(Operation::to_string).collect(),
            read: BTreeSet::new(),
            sent: BTreeSet::new(),
        };
        for exchange in session.exchanges {
            let path = exchange.request.path;
            let Some(operation) = path.strip_prefix("/api/v1/").map(str::to_owned) else {
                continue;
            };
            if let Answer::Response(response) = exchange.answer
                && response.body != ResponseBody::Empty
            {
                used.read.insert(operation.clone());
            }
            if let RequestBody::Json(value) = exchange.request.body {
                for (pointer, schema) in bodies(contract, &operation) {
                    used.send(contract, &operation, pointer, schema, &value);
                }
            }
            used.called.insert(operation);
        }
        used
    }

    /// Notes `value`, which was sent as `schema`, and what it holds.
    fn send(
        &mut self,
        contract: &Contract,
        operation: &str,
        pointer: String,
        schema: &Schema,
        value: &Value,
    ) {
        match (&schema.shape, value) {
            (Shape::Reference(name), _) => {
                if let Some(schema) = contract.schemas.get(name) {
                    let named = format!("/components/schemas/{name}");
                    self.send(contract, operation, named, schema, value);
                }
            }
            (Shape::Object { properties, .. }, Value::Object(fields)) => {
                for (name, value) in fields {
                    if let Some(schema) = properties.get(name) {
                        let pointer = format!("{pointer}/properties/{name}");
                        self.send(contract, operation, pointer, schema, value);
                    }
                }
            }
            (Shape::Array(items), Value::Array(values)) => {
                for value in values {
                    self.send(
                        contract,
                        operation,
                        format!("{pointer}/items"),
                        items,
                        value,
                    );
                }
            }
            (Shape::Map(schema), Value::Object(values)) => {
                for value in values.values() {
                    let pointer = format!("{pointer}/additionalProperties");
                    self.send(contract, operation, pointer, schema, value);
                }
            }
            _ => {}
        }
        self.sent.insert((operation.to_owned(), pointer));
    }

    /// How `finding` touches what is used, if it does. `revision` is the contract that it leads to.
    pub(super) fn touch(&self, finding: &Finding, revision: &Contract) -> Option<Touch> {
        let mut called = finding.affects.intersection(&self.called);
        match finding.direction {
            Direction::Request => called
                .any(|operation| self.sends(operation, &finding.path, revision))
                .then_some(Touch::Sent),
            Direction::Response => called
                .any(|operation| {
                    self.read.contains(operation) || finding.path.starts_with("/paths/")
                })
                .then_some(Touch::Read),
        }
    }

    /// Whether this crate's `operation` sends what is at `path`, or what would now have to hold it.
    fn sends(&self, operation: &str, path: &str, revision: &Contract) -> bool {
        let sent = |pointer: &str| {
            self.sent
                .contains(&(operation.to_owned(), pointer.to_owned()))
        };
        match property(path) {
            Some((holder, name)) => {
                sent(&format!("{holder}/properties/{name}"))
                    || (sent(holder) && is_required(revision, holder, name))
            }
            None => path.starts_with("/paths/") || ancestors(path).any(sent),
        }
    }
}

/// The schemas of the operation's JSON body, with their place.
fn bodies<'c>(
    contract: &'c Contract,
    operation: &str,
) -> impl Iterator<Item = (String, &'c Schema)> {
    let path = format!("/{operation}");
    let methods = contract.paths.get(&path).into_iter().flatten();
    methods.flat_map(move |(method, endpoint): (&Method, _)| {
        let pointer = format!(
            "/paths/~1{}/{}/requestBody/content",
            path.trim_start_matches('/'),
            method.key()
        );
        let content = endpoint.body.iter().flat_map(|body| &body.content);
        content.map(move |(media_type, schema)| {
            let media_type = media_type.replace('/', "~1");
            (format!("{pointer}/{media_type}/schema"), schema)
        })
    })
}

/// The innermost property that `path` is or lies in: the schema that holds it, and its name.
fn property(path: &str) -> Option<(&str, &str)> {
    let (holder, rest) = path.rsplit_once("/properties/")?;
    Some((holder, rest.split('/').next()?))
}

/// `path` and the places that it lies in, the innermost first.
fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(path), |at| at.rsplit_once('/').map(|(up, _)| up))
}

/// Whether the named schema at `holder` requires the property.
fn is_required(contract: &Contract, holder: &str, property: &str) -> bool {
    let schema = holder
        .strip_prefix("/components/schemas/")
        .and_then(|name| contract.schemas.get(name));
    match schema.map(|schema| &schema.shape) {
        Some(Shape::Object { required, .. }) => required.contains(property),
        _ => false,
    }
}
