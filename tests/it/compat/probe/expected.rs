//! Compares the result of a call with the result that a scenario expects.

use chv_sandbox::client::{Error, ErrorKind};
use chv_sandbox::compat::probe::battery::Expected;
use serde_json::Value;

/// Checks what the client returned. The error says what is wrong.
pub(crate) fn check(expected: &Expected, got: Result<Option<Value>, Error>) -> Result<(), String> {
    match (expected, got) {
        (Expected::Done, Ok(None)) => Ok(()),
        (Expected::Fields(fields), Ok(Some(answer))) => match missing(fields, &answer) {
            None => Ok(()),
            Some(place) => Err(format!("{place} differs in {answer}")),
        },
        (Expected::Error(kind), Err(error)) if same_kind(kind, error.kind()) => Ok(()),
        (_, Ok(answer)) => Err(format!("expected {}, got {answer:?}", describe(expected))),
        (_, Err(error)) => Err(format!(
            "expected {}, got {:?}: {error}",
            describe(expected),
            error.kind()
        )),
    }
}

pub(crate) fn describe(expected: &Expected) -> String {
    match expected {
        Expected::Done => "success without a body".to_owned(),
        Expected::Fields(fields) => format!("success with {fields}"),
        Expected::Error(kind) => format!("{kind:?}"),
        Expected::Status(status) => format!("status {status}"),
    }
}

/// Whether two errors have the same kind; the fields of the kinds may differ.
pub(crate) fn same_kind(expected: &ErrorKind, got: &ErrorKind) -> bool {
    std::mem::discriminant(expected) == std::mem::discriminant(got)
}

/// The first place at which `answer` lacks a value of `fields`, or has another one.
fn missing(fields: &Value, answer: &Value) -> Option<String> {
    match (fields, answer) {
        (Value::Object(fields), Value::Object(answer)) => {
            fields
                .iter()
                .find_map(|(name, value)| match answer.get(name) {
                    None => Some(format!("/{name}")),
                    Some(found) => missing(value, found).map(|place| format!("/{name}{place}")),
                })
        }
        _ if fields == answer => None,
        _ => Some(String::new()),
    }
}
