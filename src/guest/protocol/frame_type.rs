//! [`FrameType`]: the name of each type of frame, the largest body that the host accepts for it, and how the type is
//! read from a body before anything else is decoded.

use std::borrow::Cow;

use serde::Deserialize;

use super::{DecodeError, MAX_FRAME};

/// How many bytes of a body are searched for a `type` that is the first field. The longest name has 13 bytes.
const HEAD: usize = 256;

/// The largest body of a frame that carries no output of a tool, in bytes.
const SMALL: usize = 64 << 10;

/// The `type` of a [`Frame`](super::Frame), whose variants are documented there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum FrameType {
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
    /// Every type that this build knows.
    pub(crate) const ALL: [FrameType; 18] = [
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

    /// The frame's `type` on the wire.
    pub(crate) const fn name(self) -> &'static str {
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

    /// The largest body of this type that the host accepts, in bytes. `None` for a type that only a guest receives: the
    /// host closes the channel when one arrives.
    pub(crate) const fn limit_at_host(self) -> Option<usize> {
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

    /// Reads the `type` of a whole body. The field may stand anywhere in the object. No other field is decoded.
    ///
    /// # Errors
    ///
    /// - [`DecodeError::UnknownType`] if this build doesn't know the type
    /// - [`DecodeError::NotAFrame`] if the body isn't a JSON object with a `type`
    pub(crate) fn of(body: &str) -> Result<FrameType, DecodeError> {
        if let Some(first) = FrameType::of_head(body.as_bytes()) {
            return first;
        }
        let Tag { name } = serde_json::from_str(body)?;
        FrameType::by_name(&name)
    }

    /// Reads the `type` from the beginning of a body. `None` if the beginning doesn't hold the whole type: more bytes
    /// are needed, or `type` isn't the first field.
    ///
    /// # Errors
    ///
    /// [`DecodeError::UnknownType`] if this build doesn't know the type.
    pub(crate) fn of_head(body: &[u8]) -> Option<Result<FrameType, DecodeError>> {
        let head = &body[..body.len().min(HEAD)];
        let rest = skip(head, b"{")?;
        let rest = skip(rest, b"\"type\"")?;
        let rest = skip(rest, b":")?;
        let name = skip(rest, b"\"")?;
        let end = name
            .iter()
            .position(|&byte| matches!(byte, b'"' | b'\\') || byte < b' ')?;
        // A name with an escape, and a body that isn't JSON, are left to `of`.
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

/// Skips white space and then `token`. Returns the rest, or `None` if something else comes first.
fn skip<'a>(text: &'a [u8], token: &[u8]) -> Option<&'a [u8]> {
    let start = text
        .iter()
        .position(|byte| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r'))?;
    text[start..].strip_prefix(token)
}

/// A frame's `type`. All other fields are skipped.
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
        // More bytes are needed.
        for cut in 0.."{\"type\":\"Hello\"".len() {
            check(&"{\"type\":\"Hello\""[..cut], None);
        }
        // The type isn't the first field, is escaped, or the text isn't JSON.
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
    fn the_host_has_a_limit_for_the_types_that_it_receives_and_for_no_other() {
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
