//! [`Script`]: the matching rule of a replay. Requests come in strict order, with the same method, path, body and
//! number of descriptors.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use super::cassette::{Cassette, Exchange, RequestBody};
use super::{Error, placeholder};

/// A cassette that is being replayed. Returns the recorded exchanges, in order, to requests that match.
///
/// This type holds the rule only and does no input or output. [`Player`](super::Player) serves it on a Unix socket, and
/// a mock server of another kind can use it too.
///
/// A request matches the next exchange if its method and path are equal and its body is the same: as JSON values if
/// both are JSON, else byte for byte. An absent body and an empty body are the same. The number of descriptors must be
/// the recorded one; the files that they refer to are not compared.
#[derive(Debug)]
pub struct Script {
    exchanges: Vec<Exchange>,
    next: usize,
    mismatches: Vec<Mismatch>,
}

/// A request that differs from the one that was recorded at its place.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Mismatch {
    /// The step at which the request came, from 1. If all steps had been played, it is one more than `total`.
    pub step: usize,
    /// The number of steps in the cassette.
    pub total: usize,
    /// The method and path of the recorded request. `None` if all steps had been played.
    pub expected: Option<String>,
    /// The method and path of the request that came.
    pub got: String,
    /// Where the body or the number of descriptors differs. `None` if the method or the path differs.
    pub difference: Option<String>,
}

impl Script {
    /// Starts at the first step of `cassette`. Each `${NAME}` is replaced with the value of `NAME` in `substitutions`.
    ///
    /// # Errors
    ///
    /// [`Error::Placeholder`] if a placeholder has no value.
    pub fn new(
        cassette: Cassette,
        substitutions: &BTreeMap<String, String>,
    ) -> Result<Script, Error> {
        let mut exchanges = cassette.exchanges;
        for (index, exchange) in exchanges.iter_mut().enumerate() {
            let mut missing = None;
            placeholder::rewrite(exchange, &mut |text| {
                let value_of = |name: &str| substitutions.get(name).map(String::as_str);
                match placeholder::fill(text, value_of) {
                    Ok(filled) => *text = filled,
                    Err(name) => missing = missing.take().or(Some(name)),
                }
            });
            if let Some(name) = missing {
                return Err(Error::Placeholder {
                    step: index + 1,
                    name,
                });
            }
        }
        Ok(Script {
            exchanges,
            next: 0,
            mismatches: Vec::new(),
        })
    }

    /// Returns the exchange that the next request has to match. `None` if all steps were played.
    pub fn peek(&self) -> Option<&Exchange> {
        self.exchanges.get(self.next)
    }

    /// Plays one step. Returns its number, from 1, and its exchange. `descriptors` is the number of open files that
    /// came with the request.
    ///
    /// # Errors
    ///
    /// [`Mismatch`] if the request differs from the recorded one. The mismatch is kept for [`finish`](Script::finish),
    /// and the same step stays the next one.
    pub fn play(
        &mut self,
        method: &str,
        path: &str,
        body: &[u8],
        descriptors: usize,
    ) -> Result<(usize, &Exchange), Mismatch> {
        let mismatch = Mismatch {
            step: self.next + 1,
            total: self.exchanges.len(),
            expected: None,
            got: format!("{method} {path}"),
            difference: None,
        };
        let found = match self.exchanges.get(self.next) {
            None => Err(mismatch),
            Some(Exchange { request, .. }) => {
                let expected = format!("{} {}", request.method, request.path);
                let difference = if expected == mismatch.got {
                    difference(&request.body, body)
                        .or_else(|| miscount(request.descriptors, descriptors))
                } else {
                    None
                };
                if expected == mismatch.got && difference.is_none() {
                    Ok(())
                } else {
                    Err(Mismatch {
                        expected: Some(expected),
                        difference,
                        ..mismatch
                    })
                }
            }
        };
        match found {
            Ok(()) => {
                self.next += 1;
                Ok((self.next, &self.exchanges[self.next - 1]))
            }
            Err(mismatch) => {
                self.mismatches.push(mismatch.clone());
                Err(mismatch)
            }
        }
    }

    /// Checks that every step was played and that no other request came.
    ///
    /// # Errors
    ///
    /// [`Error::Mismatch`] with every request that did not match, or else [`Error::Leftover`] if steps were not played.
    pub fn finish(&self) -> Result<(), Error> {
        if !self.mismatches.is_empty() {
            return Err(Error::Mismatch {
                mismatches: self.mismatches.clone(),
            });
        }
        match self.peek() {
            None => Ok(()),
            Some(Exchange { request, .. }) => Err(Error::Leftover {
                left: self.exchanges.len() - self.next,
                total: self.exchanges.len(),
                step: self.next + 1,
                expected: format!("{} {}", request.method, request.path),
            }),
        }
    }
}

impl std::error::Error for Mismatch {}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mismatch {
            step, total, got, ..
        } = self;
        match (&self.expected, &self.difference) {
            (None, _) => write!(f, "all {total} steps were played, and then came {got}"),
            (Some(_), Some(difference)) => {
                write!(f, "step {step} of {total}: {got} differs: {difference}")
            }
            (Some(expected), None) => {
                write!(f, "step {step} of {total}: expected {expected}, got {got}")
            }
        }
    }
}

/// Describes where a body differs from the recorded one. `None` if it is the same.
fn difference(expected: &RequestBody, got: &[u8]) -> Option<String> {
    let shown = || shorten(&String::from_utf8_lossy(got));
    match expected {
        RequestBody::None if got.is_empty() => None,
        RequestBody::None => Some(format!("expected none, got {}", shown())),
        RequestBody::Text(text) if text.as_bytes() == got => None,
        RequestBody::Text(text) => Some(format!("expected {}, got {}", shorten(text), shown())),
        RequestBody::Length(length) if *length == got.len() as u64 => None,
        RequestBody::Length(length) => Some(format!("expected {length} bytes, got {}", got.len())),
        RequestBody::Json(json) => match serde_json::from_slice::<Value>(got) {
            Ok(value) => json_difference(json, &value, &mut String::new()),
            Err(_) => Some(format!("expected JSON, got {}", shown())),
        },
    }
}

/// Describes how the number of descriptors differs from the recorded one. `None` if it is the same.
fn miscount(expected: usize, got: usize) -> Option<String> {
    (expected != got).then(|| format!("expected {expected} descriptors, got {got}"))
}

/// Describes the first place at which two values differ, as a JSON pointer.
fn json_difference(expected: &Value, got: &Value, pointer: &mut String) -> Option<String> {
    let at = pointer.len();
    match (expected, got) {
        (Value::Object(expected), Value::Object(got)) => {
            let names = expected
                .keys()
                .chain(got.keys().filter(|name| !expected.contains_key(*name)));
            for name in names {
                pointer.push('/');
                pointer.push_str(name);
                let found = match (expected.get(name), got.get(name)) {
                    (Some(expected), Some(got)) => json_difference(expected, got, pointer),
                    (Some(value), None) => {
                        Some(format!("{pointer}: expected {}, got nothing", show(value)))
                    }
                    (_, value) => Some(format!(
                        "{pointer}: expected nothing, got {}",
                        show(value.unwrap_or(&Value::Null))
                    )),
                };
                if found.is_some() {
                    return found;
                }
                pointer.truncate(at);
            }
            None
        }
        (Value::Array(expected), Value::Array(got)) if expected.len() == got.len() => {
            for (index, (expected, got)) in expected.iter().zip(got).enumerate() {
                pointer.push_str(&format!("/{index}"));
                let found = json_difference(expected, got, pointer);
                if found.is_some() {
                    return found;
                }
                pointer.truncate(at);
            }
            None
        }
        _ if expected == got => None,
        _ => Some(format!(
            "{pointer}: expected {}, got {}",
            show(expected),
            show(got)
        )),
    }
}

fn show(value: &Value) -> String {
    shorten(&value.to_string())
}

fn shorten(text: &str) -> String {
    const MOST: usize = 200;
    match text.char_indices().nth(MOST) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}...", &text[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(requests: &str) -> Script {
        let exchanges: Vec<_> = requests
            .lines()
            .map(|request| {
                format!(
                    r#"{{"request":{},"response":{{"status":204}}}}"#,
                    request.trim()
                )
            })
            .collect();
        let text = format!(
            r#"{{"format":1,"release":"v53.0","exchanges":[{}]}}"#,
            exchanges.join(",")
        );
        let values = BTreeMap::from([("RUN".to_owned(), "/tmp/x".to_owned())]);
        Script::new(text.parse().unwrap(), &values).unwrap()
    }

    #[test]
    fn steps_are_played_in_order() {
        let mut script = script(
            r#"{"method":"PUT","path":"/a","body":{"x":[1,{"y":"${RUN}/s"}]}}
               {"method":"PUT","path":"/b","raw":"{ not json"}
               {"method":"GET","path":"/c"}
               {"method":"PUT","path":"/d","length":3}"#,
        );
        let order = [
            ("PUT", "/a", r#"{ "x": [1, {"y": "/tmp/x/s"}] }"#),
            ("PUT", "/b", "{ not json"),
            ("GET", "/c", ""),
            ("PUT", "/d", "abc"),
        ];
        for (index, (method, path, body)) in order.into_iter().enumerate() {
            assert!(script.finish().is_err());
            let (step, _) = script.play(method, path, body.as_bytes(), 0).unwrap();
            assert_eq!(step, index + 1);
        }
        script.finish().unwrap();
    }

    #[track_caller]
    fn check(recorded: &str, (method, path, body): (&str, &str, &str), expected: &str) {
        let mut script = script(recorded);
        let mismatch = script.play(method, path, body.as_bytes(), 0).unwrap_err();
        assert!(mismatch.to_string().contains(expected), "{mismatch}");
        let error = script.finish().unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }

    #[test]
    fn a_mismatch_is_described() {
        let put = r#"{"method":"PUT","path":"/a","body":{"x":[1,{"y":2}]}}"#;
        let get = r#"{"method":"GET","path":"/a"}"#;
        check(
            put,
            ("PUT", "/b", ""),
            "step 1 of 1: expected PUT /a, got PUT /b",
        );
        check(put, ("GET", "/a", ""), "expected PUT /a, got GET /a");
        check(put, ("PUT", "/a", ""), "expected JSON, got");
        check(
            put,
            ("PUT", "/a", r#"{"x":[1,{"y":3}]}"#),
            "/x/1/y: expected 2, got 3",
        );
        check(
            put,
            ("PUT", "/a", r#"{"x":[1,{}]}"#),
            "/x/1/y: expected 2, got nothing",
        );
        check(
            put,
            ("PUT", "/a", r#"{"x":[1,{"y":2,"z":0}]}"#),
            "/x/1/z: expected nothing, got 0",
        );
        check(
            put,
            ("PUT", "/a", r#"{"x":[1]}"#),
            "/x: expected [1,{\"y\":2}], got [1]",
        );
        check(get, ("GET", "/a", "{}"), "expected none, got {}");
        check(
            "",
            ("GET", "/a", ""),
            "all 0 steps were played, and then came GET /a",
        );
        let raw = r#"{"method":"PUT","path":"/a","raw":"{"}"#;
        check(raw, ("PUT", "/a", "{}"), "expected {, got {}");
        let long = r#"{"method":"PUT","path":"/a","length":2}"#;
        check(long, ("PUT", "/a", "{"), "expected 2 bytes, got 1");
        let with_file = r#"{"method":"PUT","path":"/a","descriptors":1}"#;
        check(
            with_file,
            ("PUT", "/a", ""),
            "step 1 of 1: PUT /a differs: expected 1 descriptors, got 0",
        );
    }

    #[test]
    fn steps_left_over_fail() {
        let error = script(r#"{"method":"GET","path":"/a"}"#)
            .finish()
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "1 of 1 steps were not asked for; the next is step 1: GET /a"
        );
    }

    #[test]
    fn a_placeholder_without_a_value_is_refused() {
        let cassette = r#"{"format":1,"release":"v53.0","exchanges":[
            {"request":{"method":"GET","path":"/"},"response":{"status":200,"body":["${DISK} is locked"]}}]}"#;
        let error = Script::new(cassette.parse().unwrap(), &BTreeMap::new()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "step 1 has the placeholder ${DISK}, and no value was given for it"
        );
    }
}
