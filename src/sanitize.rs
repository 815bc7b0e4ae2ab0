//! Makes text that a guest or a VMM wrote safe for an error, a log line or a terminal.
//!
//! A guest and its VMM are hostile. Their text can contain escape sequences that move a terminal's cursor, characters
//! that reverse the direction of a line, and newlines that forge a line of a log. [`line()`] and [`lines`] replace each
//! character that isn't printable by its escape, as in a Rust literal (`\n`, `\u{1b}`). [`json`] does the same with the
//! escapes of JSON, and [`Quoted`] marks each line with a margin.
//!
//! The escapes are for people to read. A backslash in the text stays as it is, so the original can't be recovered from
//! the result of [`line()`] or [`lines`].

use std::fmt;

/// The beginning of each line of a [`Quoted`] text.
const MARGIN: &str = "  | ";

/// Returns the text as one line of at most `limit` characters. A longer text is cut and ends with `…`.
pub fn line(text: &str, limit: usize) -> String {
    let mut safe = String::new();
    let mut left = limit;
    for character in text.chars() {
        let escape = Escape::of(character);
        let length = escape.length();
        // `cut` puts the mark in the last place if the text fills all of them.
        if length > left {
            cut(&mut safe, limit);
            return safe;
        }
        left -= length;
        escape.push_to(&mut safe);
    }
    safe
}

/// Ends a text with the mark `…`, in place of its last character if the text already has `limit` characters.
fn cut(safe: &mut String, limit: usize) {
    if limit == 0 {
        return;
    }
    if safe.chars().count() >= limit {
        safe.pop();
    }
    safe.push('…');
}

/// Returns the text with each unprintable character escaped, except line feeds and tabs, which stay. The carriage
/// return of a `\r\n` is dropped. The result has at most ten times as many bytes as the text.
pub fn lines(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\n' | '\t' => safe.push(character),
            '\r' if characters.peek() == Some(&'\n') => {}
            _ => Escape::of(character).push_to(&mut safe),
        }
    }
    safe
}

/// Returns JSON text with each unprintable character written as an escape of JSON, so that the text still parses to the
/// same value. Line feeds and tabs between its values stay.
pub fn json(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match Escape::of(character) {
            Escape::Itself(_) => safe.push(character),
            Escape::Escaped(escape) if escape.len() == 1 => safe.push(character),
            _ if matches!(character, '\n' | '\t') => safe.push(character),
            _ => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    safe.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    safe
}

/// Shows a text with the margin `  | ` before each line, so that a reader can't take a line of the text for a line of
/// the surrounding output. Unprintable characters are escaped as by [`lines`].
#[derive(Clone, Copy, Debug)]
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, line) in lines(self.0).split('\n').enumerate() {
            let newline = if at == 0 { "" } else { "\n" };
            write!(f, "{newline}{MARGIN}{line}")?;
        }
        Ok(())
    }
}

/// The replacement of a character.
enum Escape {
    Itself(char),
    Escaped(std::char::EscapeDebug),
    Numbered(std::char::EscapeUnicode),
}

impl Escape {
    fn of(character: char) -> Escape {
        match character {
            // The standard library escapes these for the sake of a literal's quotes.
            '\'' | '"' | '\\' => Escape::Itself(character),
            // Unicode counts these as letters or symbols, but terminals show them as nothing or as a blank.
            '\u{115f}' | '\u{1160}' | '\u{2800}' | '\u{3164}' | '\u{ffa0}' => {
                Escape::Numbered(character.escape_unicode())
            }
            // `escape_debug` escapes what isn't printable: controls, formats such as bidirectional overrides,
            // separators, combining marks, unassigned characters.
            _ => Escape::Escaped(character.escape_debug()),
        }
    }

    fn length(&self) -> usize {
        match self {
            Escape::Itself(_) => 1,
            Escape::Escaped(escape) => escape.len(),
            Escape::Numbered(escape) => escape.len(),
        }
    }

    fn push_to(self, text: &mut String) {
        match self {
            Escape::Itself(character) => text.push(character),
            Escape::Escaped(escape) => text.extend(escape),
            Escape::Numbered(escape) => text.extend(escape),
        }
    }
}

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz {
    //! Fuzz target.

    use super::{json, line, lines};

    /// The sanitized text of a guest has no character that acts on a terminal, and a line has at most `limit`
    /// characters.
    pub(crate) fn sanitize(bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        for limit in [0, 1, 7, 200] {
            let safe = line(&text, limit);
            assert!(safe.chars().count() <= limit, "{safe:?}");
            assert!(!safe.chars().any(char::is_control), "{safe:?}");
        }
        let acts = |safe: &str| {
            let mut characters = safe.chars();
            characters.any(|character| character.is_control() && !matches!(character, '\n' | '\t'))
        };
        assert!(!acts(&lines(&text)));
        assert!(!acts(&json(&text)));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_has_nothing_that_acts_on_a_terminal() {
        #[track_caller]
        fn check(text: &str, expected: &str) {
            assert_eq!(line(text, 100), expected);
        }
        check("", "");
        check("it's \"C:\\\" – naïve 日本", "it's \"C:\\\" – naïve 日本");
        check("a\nb\r\tc", "a\\nb\\r\\tc");
        check("\x1b[2J\x1b]0;title\x07", "\\u{1b}[2J\\u{1b}]0;title\\u{7}");
        check("\u{9b}31m\u{7f}\0", "\\u{9b}31m\\u{7f}\\0");
        check(
            "\u{202e}gnp.exe\u{2066}\u{200f}",
            "\\u{202e}gnp.exe\\u{2066}\\u{200f}",
        );
        check("a\u{2028}b\u{2029}\u{85}", "a\\u{2028}b\\u{2029}\\u{85}");
        check(
            "z\u{200b}\u{feff}\u{e0041}\u{ad}",
            "z\\u{200b}\\u{feff}\\u{e0041}\\u{ad}",
        );
        check("\u{3164}e\u{301}", "\\u{3164}e\\u{301}");
    }

    #[test]
    fn a_line_that_is_cut_ends_with_a_mark() {
        assert_eq!(line("abcdef", 6), "abcdef");
        assert_eq!(line("abcdefg", 6), "abcde…");
        assert_eq!(line("é".repeat(7).as_str(), 6), "ééééé…");
        // No escape is cut in the middle.
        assert_eq!(line("abc\u{1b}def", 6), "abc…");
        assert_eq!(line("abc", 0), "");
    }

    #[test]
    fn lines_keep_their_newlines() {
        assert_eq!(
            lines("one\r\ntwo\tx\n\x1b[1mthree\r"),
            "one\ntwo\tx\n\\u{1b}[1mthree\\r"
        );
    }

    #[test]
    fn escaped_json_parses_to_the_same_value() {
        let value = serde_json::json!({ "a\u{202e}": ["\u{9b}1m\u{7f}", "\u{e0041}é\n"] });
        let text = format!("{value:#}");
        let safe = json(&text);
        assert!(safe.contains("\\u202e") && safe.contains("\\u009b1m\\u007f"));
        assert!(safe.contains("\\udb40\\udc41é\\n"));
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&safe).unwrap(),
            value
        );
    }

    #[test]
    fn a_quoted_line_cannot_be_taken_for_surrounding_output() {
        let forged = "ok\nERROR the reset was verified\r\n\x1b[1A";
        assert_eq!(
            Quoted(forged).to_string(),
            "  | ok\n  | ERROR the reset was verified\n  | \\u{1b}[1A"
        );
    }

    proptest! {
        #[test]
        fn nothing_unprintable_is_left(text in any::<String>(), limit in 0_usize..40) {
            let safe = line(&text, limit);
            prop_assert!(safe.chars().count() <= limit);
            let unprintable = |c: char| c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c);
            prop_assert!(!safe.chars().any(unprintable), "{safe:?}");
            let several = lines(&text);
            prop_assert!(several.len() <= 10 * text.len());
            prop_assert!(!several.chars().any(|c| unprintable(c) && c != '\n' && c != '\t'));
            // Safe text stays as it is.
            prop_assert_eq!(lines(&several), several);
        }
    }
}
