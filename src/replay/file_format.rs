//! The form of a cassette's file, and the checks that serde can't express.
//!
//! The structs of the file have optional fields, which give a readable file. They are converted from and to the model
//! of [`Exchange`], whose enums allow no contradictions.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::cassette::{
    Answer, Exchange, RecordedRequest, RecordedResponse, RequestBody, ResponseBody, STATUSES,
};
use crate::client::Release;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WireFile {
    pub(super) format: u64,
    #[serde(with = "release")]
    pub(super) release: Release,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) notes: Option<String>,
    pub(super) exchanges: Vec<Exchange>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WireExchange {
    request: WireRequest,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    response: Option<WireResponse>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    closed: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireRequest {
    method: String,
    path: String,
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    body: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    raw: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    length: Option<u64>,
    #[serde(default, skip_serializing_if = "is_zero")]
    descriptors: usize,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireResponse {
    status: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    headers: Option<Vec<String>>,
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    body: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

mod release {
    use serde::{Deserialize, Deserializer, Serializer, de};

    use super::Release;

    pub(super) fn serialize<S: Serializer>(
        release: &Release,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(release)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Release, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// Reads a body of `null` as `Some(Value::Null)`. Serde would read it as `None`, as if there were no body.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

impl TryFrom<WireExchange> for Exchange {
    type Error = String;

    fn try_from(wire: WireExchange) -> Result<Self, String> {
        let answer = match (wire.response, wire.closed) {
            (Some(response), false) => Answer::Response(response.try_into()?),
            (None, true) => Answer::Closed,
            (Some(_), true) => {
                return Err("an exchange has both `response` and `closed`".to_owned());
            }
            (None, false) => {
                return Err("an exchange has neither `response` nor `closed`".to_owned());
            }
        };
        Ok(Exchange {
            request: wire.request.try_into()?,
            answer,
        })
    }
}

impl TryFrom<WireRequest> for RecordedRequest {
    type Error = String;

    fn try_from(wire: WireRequest) -> Result<Self, String> {
        let body = match (wire.body, wire.raw, wire.length) {
            (None, None, None) => RequestBody::None,
            (Some(json), None, None) => RequestBody::Json(json),
            (None, Some(text), None) => RequestBody::Text(text),
            (None, None, Some(length)) => RequestBody::Length(length),
            _ => return Err("a request has at most one of `body`, `raw`, `length`".to_owned()),
        };
        Ok(RecordedRequest {
            method: wire.method,
            path: wire.path,
            body,
            descriptors: wire.descriptors,
        })
    }
}

impl TryFrom<WireResponse> for RecordedResponse {
    type Error = String;

    fn try_from(wire: WireResponse) -> Result<Self, String> {
        if !STATUSES.contains(&wire.status) {
            return Err(format!("status {} is not between 200 and 599", wire.status));
        }
        for line in wire.headers.iter().flatten() {
            if line.contains(['\r', '\n']) || !line.contains(": ") {
                return Err(format!(
                    "{line:?} is not a header line of the form `Name: value`"
                ));
            }
        }
        let body = match (wire.body, wire.text) {
            (None, None) => ResponseBody::Empty,
            (Some(json), None) => ResponseBody::Json(json),
            (None, Some(text)) => ResponseBody::Text(text),
            (Some(_), Some(_)) => {
                return Err("a response has at most one of `body`, `text`".to_owned());
            }
        };
        Ok(RecordedResponse {
            status: wire.status,
            headers: wire.headers,
            body,
        })
    }
}

impl From<Exchange> for WireExchange {
    fn from(exchange: Exchange) -> Self {
        let (response, closed) = match exchange.answer {
            Answer::Response(response) => (Some(response.into()), false),
            Answer::Closed => (None, true),
        };
        WireExchange {
            request: exchange.request.into(),
            response,
            closed,
        }
    }
}

impl From<RecordedRequest> for WireRequest {
    fn from(request: RecordedRequest) -> Self {
        let (body, raw, length) = match request.body {
            RequestBody::None => (None, None, None),
            RequestBody::Json(json) => (Some(json), None, None),
            RequestBody::Text(text) => (None, Some(text), None),
            RequestBody::Length(length) => (None, None, Some(length)),
        };
        WireRequest {
            method: request.method,
            path: request.path,
            body,
            raw,
            length,
            descriptors: request.descriptors,
        }
    }
}

impl From<RecordedResponse> for WireResponse {
    fn from(response: RecordedResponse) -> Self {
        let (body, text) = match response.body {
            ResponseBody::Empty => (None, None),
            ResponseBody::Json(json) => (Some(json), None),
            ResponseBody::Text(text) => (None, Some(text)),
        };
        WireResponse {
            status: response.status,
            headers: response.headers,
            body,
            text,
        }
    }
}
