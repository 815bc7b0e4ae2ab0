//! Formats a report as Markdown, for a comment on a pull request.

use std::fmt::{self, Write};

use super::{Page, Section, way};
use crate::compat::{Evidence, Finding, Level, Verdict};
use crate::sanitize;

/// Returns the page as GitHub Flavored Markdown that ends with a newline. Findings that are only for information are
/// folded.
pub fn markdown(page: &Page<'_>) -> String {
    let mut out = String::new();
    write(&mut out, page).expect("a String takes all that is written");
    out
}

fn write(out: &mut String, page: &Page<'_>) -> fmt::Result {
    let verdict = match page.verdict {
        Verdict::Compatible => "Compatible",
        Verdict::Breaking => "Breaking",
    };
    writeln!(out, "**{verdict}.** {}", prose(&page.headline))?;
    page.sections
        .iter()
        .try_for_each(|section| write_section(out, section))
}

fn write_section(out: &mut String, section: &Section<'_>) -> fmt::Result {
    let count = section.findings.len();
    let folded = section
        .findings
        .iter()
        .all(|finding| finding.level == Level::Info);
    match folded {
        true => writeln!(
            out,
            "\n<details><summary>{} ({count})</summary>\n",
            section.title
        )?,
        false => writeln!(out, "\n### {} ({count})\n", section.title)?,
    }
    for group in section.groups() {
        write_group(out, group)?;
    }
    match folded {
        true => writeln!(out, "\n</details>"),
        false => Ok(()),
    }
}

fn write_group(out: &mut String, group: &[&Finding]) -> fmt::Result {
    let Some(first) = group.first() else {
        return Ok(());
    };
    writeln!(out, "- {}", prose(&first.message))?;
    write!(out, "  <br>{}", code(&first.path))?;
    for finding in group {
        write!(out, "\n  <br>{}", code(finding.id))?;
        if finding.evidence == Evidence::Observed {
            write!(out, ", seen on the server")?;
        }
        for (nth, operation) in finding.affects.iter().enumerate() {
            let before = match nth {
                0 => format!(", {} ", way(finding.direction)),
                _ => ", ".to_owned(),
            };
            write!(out, "{before}{}", code(operation))?;
        }
    }
    writeln!(out)
}

/// Escapes a sentence. Text between backticks becomes code, and all other characters are literal.
fn prose(sentence: &str) -> String {
    let mut shown = String::new();
    let mut parts = sentence.split('`').enumerate().peekable();
    while let Some((nth, part)) = parts.next() {
        let closed = parts.peek().is_some();
        match (nth % 2 == 1, closed) {
            (true, true) if !part.is_empty() => shown.push_str(&code(part)),
            (true, closed) => {
                shown.push_str("\\`");
                shown.push_str(&escaped(part));
                if closed {
                    shown.push_str("\\`");
                }
            }
            (false, _) => shown.push_str(&escaped(part)),
        }
    }
    shown
}

/// Formats the text as code, with enough backticks that the text can't close it.
fn code(text: &str) -> String {
    let text = sanitize::line(text, usize::MAX);
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest + 1);
    let pad = match text.starts_with(['`', ' ']) || text.ends_with(['`', ' ']) {
        true => " ",
        false => "",
    };
    format!("{fence}{pad}{text}{pad}{fence}")
}

/// Escapes the text so that no character has a meaning in Markdown, and no user is mentioned.
fn escaped(text: &str) -> String {
    let mut shown = String::new();
    for character in sanitize::line(text, usize::MAX).chars() {
        match character {
            // GitHub looks for these two after it has resolved all escapes, so another character has to follow them
            // directly.
            '@' | '#' => {
                shown.push(character);
                shown.push('\u{200b}');
            }
            '<' => shown.push_str("&lt;"),
            '>' => shown.push_str("&gt;"),
            '&' => shown.push_str("&amp;"),
            '\\' | '`' | '*' | '_' | '{' | '}' | '[' | ']' | '|' | '~' | '!' | '/' => {
                shown.push('\\');
                shown.push(character);
            }
            other => shown.push(other),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_code_and_other_text_is_literal() {
        let check = |sentence: &str, expected: &str| assert_eq!(prose(sentence), expected);
        check("plain text", "plain text");
        check("the property `a_b` is gone", "the property `a_b` is gone");
        check("a|b*c", "a\\|b\\*c");
        check("<img src=x>", "&lt;img src=x&gt;");
        check("@team", "@\u{200b}team");
        check("left `open", "left \\`open");
        check("an empty `` one", "an empty \\`\\` one");
        check("`a`b`", "`a`b\\`");
        check("`a\nb`", "`a\\nb`");
    }

    #[test]
    fn code_cannot_be_closed_by_its_text() {
        let check = |text: &str, expected: &str| assert_eq!(code(text), expected);
        check("/a/b", "`/a/b`");
        check("a`b", "``a`b``");
        check("`a```", "```` `a``` ````");
    }
}
