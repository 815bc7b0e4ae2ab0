//! Reads the server's messages from the body of an error.
//!
//! There are three forms: a JSON array of strings, outermost cause first (since v48); one text (up to v46); and, from
//! the HTTP layer, `{ "error": "..." }` with a raw newline inside the string, which isn't valid JSON. An empty body has
//! no messages.

use bytes::Bytes;

use crate::sanitize;

/// More than any chain that was seen. The rest of a longer chain is cut off.
const MOST_MESSAGES: usize = 32;

/// In characters; the rest of a longer message is cut off.
const LONGEST_MESSAGE: usize = 4096;

/// The message chain in an error's body, outermost cause first, each message a [line](sanitize::line). Never fails: a
/// body of another form is one message.
pub(super) fn parse(body: &Bytes) -> Vec<String> {
    let mut messages = serde_json::from_slice::<Vec<String>>(body)
        .unwrap_or_else(|_| one_message(&String::from_utf8_lossy(body)));
    messages.truncate(MOST_MESSAGES);
    let lines = messages.iter();
    lines
        .map(|message| sanitize::line(message, LONGEST_MESSAGE))
        .collect()
}

/// Whether the body has the form that the HTTP layer sends when it couldn't parse a request. The HTTP layer drops the
/// requests that followed, so the connection can't be used any more.
pub(crate) fn is_of_http_layer(body: &[u8]) -> bool {
    body.trim_ascii_start().starts_with(b"{")
}

fn one_message(text: &str) -> Vec<String> {
    let text = in_error_object(text).unwrap_or(text);
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .collect();
    match lines.is_empty() {
        true => Vec::new(),
        false => vec![lines.join(" ")],
    }
}

/// The text between the quotes of `{ "error": "..." }`.
fn in_error_object(text: &str) -> Option<&str> {
    let value = text
        .trim()
        .strip_prefix('{')?
        .strip_suffix('}')?
        .trim()
        .strip_prefix("\"error\"")?
        .trim_start()
        .strip_prefix(':')?;
    value.trim().strip_prefix('"')?.strip_suffix('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_each_form() {
        let check = |body: &'static str, expected: &[&str]| {
            assert_eq!(
                parse(&Bytes::from_static(body.as_bytes())),
                expected,
                "{body}"
            );
        };
        check("", &[]);
        check(" \n", &[]);
        check("[]", &[]);
        check(
            r#"["Error from API","The VM could not boot","VM config is missing"]"#,
            &[
                "Error from API",
                "The VM could not boot",
                "VM config is missing",
            ],
        );
        check(
            "{ \"error\": \"Invalid HTTP Method: Unsupported HTTP method.\nAll previous unanswered requests will be dropped.\" }",
            &[
                "Invalid HTTP Method: Unsupported HTTP method. All previous unanswered requests will be dropped.",
            ],
        );
        check("Error from API", &["Error from API"]);
        check(r#"["torn"#, &[r#"["torn"#]);
        check("{\"error\":", &["{\"error\":"]);
        check("{\"error\": \"", &["{\"error\": \""]);
        check("[1, 2]", &["[1, 2]"]);
    }

    #[test]
    fn keeps_what_is_not_text() {
        assert_eq!(parse(&Bytes::from_static(b"\xff!")), ["\u{fffd}!"]);
    }

    #[test]
    fn nothing_in_a_message_acts_on_a_terminal_or_forges_a_line() {
        let body = r#"["\u001b[2Jgone\nERROR forged","\u202Ereversed"]"#;
        assert_eq!(
            parse(&Bytes::from_static(body.as_bytes())),
            ["\\u{1b}[2Jgone\\nERROR forged", "\\u{202e}reversed"]
        );
        let torn = "[\"\x1b]0;title\x07";
        assert_eq!(
            parse(&Bytes::from_static(torn.as_bytes())),
            ["[\"\\u{1b}]0;title\\u{7}"]
        );
    }

    #[test]
    fn is_bounded() {
        let long = "é".repeat(LONGEST_MESSAGE);
        let chain = vec![long; MOST_MESSAGES + 1];
        let messages = parse(&serde_json::to_vec(&chain).unwrap().into());
        assert_eq!(messages.len(), MOST_MESSAGES);
        assert!(
            messages
                .iter()
                .all(|m| m.chars().count() <= LONGEST_MESSAGE)
        );
    }
}
