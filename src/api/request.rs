//! A request as a value ([`Request`]): what to send, and how to decode the answer.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Operation;
use super::requirements::{self, Requirement};
use crate::sanitize;

/// How much of a parser's message is kept, in characters.
const REASON: usize = 512;

/// The HTTP method of an operation. The VMM's API uses only these two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// Reads without changing anything.
    Get,
    /// Changes something.
    Put,
}

impl Method {
    /// The method's name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Put => "PUT",
        }
    }
}

/// One request of the VMM's API: an operation, its body, and the decoder of its answer, a `T`.
///
/// The functions of [`api`](crate::api) build it, and [`Client::send`](crate::client::Client::send) sends it. The
/// client refuses a request of which the VMM's release would ignore a part ([`requirements`](Request::requirements)),
/// unless the request is [`unchecked`](Request::unchecked).
#[derive(Clone, Debug)]
pub struct Request<T> {
    operation: Operation,
    body: Option<Bytes>,
    checked: bool,
    decode: fn(&[u8]) -> Result<T, serde_json::Error>,
}

impl<T> Request<T> {
    /// The operation.
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// The JSON body, for the operations that have one.
    pub fn body(&self) -> Option<&Bytes> {
        self.body.as_ref()
    }

    /// What the request uses that not every supported release knows. Empty for a request that suits all of them.
    pub fn requirements(&self) -> Vec<Requirement> {
        requirements::of(self.operation, self.body.as_deref())
    }

    /// The same request, which the client sends whatever the VMM's release knows. It is for tools and tests that must
    /// send what a server ignores or refuses.
    #[must_use]
    pub fn unchecked(self) -> Self {
        Request {
            checked: false,
            ..self
        }
    }

    /// Whether the client compares the request with the VMM's release before it sends it.
    pub fn is_checked(&self) -> bool {
        self.checked
    }

    /// Reads the body of a successful answer (status 200 or 204).
    ///
    /// # Errors
    ///
    /// [`DecodeError`] when the body isn't a `T`.
    pub fn decode(&self, body: &[u8]) -> Result<T, DecodeError> {
        (self.decode)(body).map_err(|error| DecodeError {
            operation: self.operation,
            source: Reason(sanitize::line(&error.to_string(), REASON)),
        })
    }
}

impl Request<()> {
    /// A request whose success has no body.
    pub(super) fn empty(operation: Operation) -> Self {
        Request {
            operation,
            body: None,
            checked: true,
            decode: |_| Ok(()),
        }
    }
}

impl<T: DeserializeOwned> Request<T> {
    /// A request whose success carries a `T`.
    pub(super) fn json(operation: Operation) -> Self {
        Request {
            operation,
            body: None,
            checked: true,
            decode: |body| serde_json::from_slice(body),
        }
    }
}

impl<T: DeserializeOwned> Request<Option<T>> {
    /// A request whose success carries a `T` (200) or nothing (204).
    pub(super) fn json_or_empty(operation: Operation) -> Self {
        Request {
            operation,
            body: None,
            checked: true,
            decode: |body| match body {
                [] => Ok(None),
                body => serde_json::from_slice(body).map(Some),
            },
        }
    }
}

impl<T> Request<T> {
    /// The same request with `body` as its JSON body.
    pub(super) fn with_body<B: Serialize>(mut self, body: &B) -> Self {
        let body = serde_json::to_vec(body)
            .expect("the API's types have string keys and no fallible serialiser");
        self.body = Some(body.into());
        self
    }
}

impl Request<Option<Value>> {
    /// A request for any operation, with a body that is sent as it is. It is for tools that pass bodies through. The
    /// client checks it as any other request.
    pub fn raw(operation: Operation, body: Option<Bytes>) -> Self {
        Request {
            body,
            ..Request::json_or_empty(operation)
        }
    }
}

/// The body of a successful answer isn't the value that the operation promises.
#[derive(Debug, thiserror::Error)]
#[error("the answer to {operation} is not what the API promises")]
pub struct DecodeError {
    operation: Operation,
    source: Reason,
}

/// The parser's message. It may quote the answer.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Reason(String);
