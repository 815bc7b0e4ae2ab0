//! The types of frames: their names, how a body's is read, and how large a body the host takes.

use std::borrow::Cow;

use serde::Deserialize;

use super::{DecodeError, MAX_FRAME};

/// How much of a body is looked at for a `type` that comes first, in bytes. The longest name has 13.
const HEAD: usize = 256;

/// The most bytes of a frame that carries no output of a tool.
const SMALL: usize = 64 << 10;

/// The `type` of a [`Frame`](super::Frame).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the variants are documented at `Frame`")]
pub enum FrameType {
    ToolDispatch,
    ToolResult,
    EvidenceChunk,
    GuestQuery,
    GuestResponse,
    ResetSignal,
    ResetAck,
    ErrorEvent,
    Hello,
    Imprint,
    Imprinted,
    Renew,
    Renewed,
    OpenRun,
    OpenPush,
    OpenPull,
    Opened,
    WarmDispatch,
}

impl FrameType {
    /// Every type.
    pub const ALL: [FrameType; 18] = [
        FrameType::ToolDispatch,
        FrameType::ToolResult,
        FrameType::EvidenceChunk,
        FrameType::GuestQuery,
        FrameType::GuestResponse,
        FrameType::ResetSignal,
        FrameType::ResetAck,
        FrameType::ErrorEvent,
        FrameType::Hello,
        FrameType::Imprint,
        FrameType::Imprinted,
        FrameType::Renew,
        FrameType::Renewed,
        FrameType::OpenRun,
        FrameType::OpenPush,
        FrameType::OpenPull,
        FrameType::Opened,
        FrameType::WarmDispatch,
    ];

    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            FrameType::ToolDispatch => "ToolDispatch",
            FrameType::ToolResult => "ToolResult",
            FrameType::EvidenceChunk => "EvidenceChunk",
            FrameType::GuestQuery => "GuestQuery",
            FrameType::GuestResponse => "GuestResponse",
            FrameType::ResetSignal => "ResetSignal",
            FrameType::ResetAck => "ResetAck",
            FrameType::ErrorEvent => "ErrorEvent",
            FrameType::Hello => "Hello",
            FrameType::Imprint => "Imprint",
            FrameType::Imprinted => "Imprinted",
            FrameType::Renew => "Renew",
            FrameType::Renewed => "Renewed",
            FrameType::OpenRun => "OpenRun",
            FrameType::OpenPush => "OpenPush",
            FrameType::OpenPull => "OpenPull",
            FrameType::Opened => "Opened",
            FrameType::WarmDispatch => "WarmDispatch",
        }
    }

    /// The most bytes that a body of this type may have for the host to take it; `None` for the types that only a guest
    /// receives.
    pub const fn limit_at_host(self) -> Option<usize> {
        match self {
            FrameType::ToolResult => Some(MAX_FRAME),
            FrameType::EvidenceChunk => Some(3 << 19),
            FrameType::GuestResponse
            | FrameType::ResetAck
            | FrameType::ErrorEvent
            | FrameType::Hello
            | FrameType::Imprinted
            | FrameType::Renewed
            | FrameType::Opened => Some(SMALL),
            FrameType::ToolDispatch
            | FrameType::GuestQuery
            | FrameType::ResetSignal
            | FrameType::Imprint
            | FrameType::Renew
            | FrameType::OpenRun
            | FrameType::OpenPush
            | FrameType::OpenPull
            | FrameType::WarmDispatch => None,
        }
    }

    /// Reads the `type` of a whole body, wherever it stands in it. Nothing else of the body is decoded.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] when the body isn't a JSON object with a `type` that this build knows.
    pub(crate) fn of(body: &str) -> Result<FrameType, DecodeError> {
        if let Some(first) = FrameType::of_head(body.as_bytes()) {
            return first;
        }
        let Tag { name } = serde_json::from_str(body)?;
        FrameType::by_name(&name)
    }

    /// Reads the `type` of a body of which only a part has come, if it is the first field and has come whole. `None` when
    /// that can't be told: more has to come, or the type stands elsewhere.
    ///
    /// # Errors
    ///
    /// [`DecodeError::UnknownType`].
    pub(crate) fn of_head(body: &[u8]) -> Option<Result<FrameType, DecodeError>> {
        let head = &body[..body.len().min(HEAD)];
        let rest = skip(head, b"{")?;
        let rest = skip(rest, b"\"type\"")?;
        let rest = skip(rest, b":")?;
        let name = skip(rest, b"\"")?;
        let end = name
            .iter()
            .position(|&byte| matches!(byte, b'"' | b'\\') || byte < b' ')?;
        // What is escaped, or isn't JSON, is left to the parser.
        let name = (name[end] == b'"').then_some(&name[..end])?;
        Some(FrameType::by_name(std::str::from_utf8(name).ok()?))
    }

    fn by_name(name: &str) -> Result<FrameType, DecodeError> {
        let mut all = FrameType::ALL.into_iter();
        all.find(|known| known.name() == name)
            .ok_or_else(|| DecodeError::UnknownType {
                name: name.chars().take(64).collect(),
            })
    }
}

/// What follows `token`, before which JSON's white space may stand.
fn skip<'a>(text: &'a [u8], token: &[u8]) -> Option<&'a [u8]> {
    let start = text
        .iter()
        .position(|byte| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r'))?;
    text[start..].strip_prefix(token)
}

/// A frame's `type`, whatever else it holds.
#[derive(Deserialize)]
struct Tag<'a> {
    #[serde(borrow, rename = "type")]
    name: Cow<'a, str>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_that_comes_first_is_known_at_its_last_byte() {
        #[track_caller]
        fn check(body: &str, known: Option<Result<FrameType, DecodeError>>) {
            assert_eq!(FrameType::of_head(body.as_bytes()), known, "{body}");
        }
        let hello = || Some(Ok(FrameType::Hello));
        check("{\"type\":\"Hello\"", hello());
        check("{\"type\":\"Hello\",\"proto", hello());
        check(" \n{\t\"type\" : \r\"Hello\" not JSON", hello());
        let unknown = DecodeError::UnknownType {
            name: "é".to_owned(),
        };
        check("{\"type\":\"é\"", Some(Err(unknown)));
        // More has to come.
        for cut in 0.."{\"type\":\"Hello\"".len() {
            check(&"{\"type\":\"Hello\""[..cut], None);
        }
        // It stands elsewhere, is escaped, or isn't JSON.
        check("{\"a\":1,\"type\":\"Hello\"}", None);
        check("{\"\\u0074ype\":\"Hello\"}", None);
        check("{\"type\":\"Hell\\u006f\"}", None);
        check("{\"type\":\"Hell\no\"}", None);
        check("{\"type\":1}", None);
        check("[\"type\"]", None);
        check(&format!("{{\"type\":\"{}\"}}", "y".repeat(HEAD)), None);
    }

    #[test]
    fn a_type_is_found_wherever_it_stands() {
        #[track_caller]
        fn check(body: &str) {
            assert_eq!(FrameType::of(body), Ok(FrameType::Hello), "{body}");
        }
        check("{\"type\":\"Hello\"}");
        check("{\"a\":{\"type\":\"Renew\"},\"type\":\"Hello\"}");
        check("{\"\\u0074ype\":\"Hell\\u006f\"}");
    }

    #[test]
    fn what_only_a_guest_receives_has_no_limit_at_the_host() {
        let to_host: Vec<_> = FrameType::ALL
            .into_iter()
            .filter_map(|kind| Some((kind.name(), kind.limit_at_host()? >> 10)))
            .collect();
        let expected = [
            ("ToolResult", 16 << 10),
            ("EvidenceChunk", 1536),
            ("GuestResponse", 64),
            ("ResetAck", 64),
            ("ErrorEvent", 64),
            ("Hello", 64),
            ("Imprinted", 64),
            ("Renewed", 64),
            ("Opened", 64),
        ];
        assert_eq!(to_host, expected);
    }
}
