//! Formats a report as text for a terminal.

use std::fmt::{self, Write};

use anstyle::{AnsiColor, Style};

use super::{Page, Section, way};
use crate::compat::{Evidence, Finding, Level, Verdict};
use crate::sanitize;

/// The number of operations that are named. The others are only counted.
const NAMED: usize = 6;

/// The properties of the terminal that [`text`] writes for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The width in columns. A word that is longer, such as a path, exceeds it.
    pub columns: usize,
    /// Whether to write escape sequences for colour.
    pub colour: bool,
}

/// Returns the page as text that ends with a newline.
pub fn text(page: &Page<'_>, layout: Layout) -> String {
    let mut out = String::new();
    write(&mut out, page, layout).expect("a String takes all that is written");
    out
}

fn write(out: &mut String, page: &Page<'_>, layout: Layout) -> fmt::Result {
    let verdict = match page.verdict {
        Verdict::Compatible => AnsiColor::Green.on_default().bold(),
        Verdict::Breaking => level_style(Level::Breaking),
    };
    let paragraph = Paragraph {
        layout,
        style: verdict,
        indent: 0,
    };
    paragraph.write(out, &page.headline)?;
    for section in &page.sections {
        write_section(out, section, layout)?;
    }
    Ok(())
}

fn write_section(out: &mut String, section: &Section<'_>, layout: Layout) -> fmt::Result {
    let worst = section.findings.iter().map(|finding| finding.level).min();
    let style = worst.map_or(Style::new().bold(), level_style);
    writeln!(out)?;
    Paragraph {
        layout,
        style,
        indent: 0,
    }
    .write(
        out,
        &format!("{} ({})", section.title, section.findings.len()),
    )?;
    for group in section.groups() {
        write_group(out, group, layout)?;
    }
    Ok(())
}

fn write_group(out: &mut String, group: &[&Finding], layout: Layout) -> fmt::Result {
    let Some(first) = group.first() else {
        return Ok(());
    };
    writeln!(out)?;
    Paragraph {
        layout,
        style: Style::new(),
        indent: 2,
    }
    .write(out, &first.message)?;
    let below = Paragraph {
        layout,
        style: Style::new().dimmed(),
        indent: 4,
    };
    below.write(out, &first.path)?;
    for finding in group {
        let observed = match finding.evidence {
            Evidence::Document => "",
            Evidence::Observed => ", seen on the server",
        };
        let rule = finding.id;
        match finding.affects.is_empty() {
            true => below.write(out, &format!("{rule}{observed}"))?,
            false => {
                let (way, operations) = (way(finding.direction), operations(finding));
                below.write(out, &format!("{way} {operations} ({rule}{observed})"))?;
            }
        }
    }
    Ok(())
}

fn operations(finding: &Finding) -> String {
    let named: Vec<&str> = finding
        .affects
        .iter()
        .take(NAMED)
        .map(String::as_str)
        .collect();
    match finding.affects.len() - named.len() {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

fn level_style(level: Level) -> Style {
    let colour = match level {
        Level::Breaking => AnsiColor::Red,
        Level::Warning => AnsiColor::Yellow,
        Level::Info => AnsiColor::Cyan,
    };
    colour.on_default().bold()
}

/// A text that is wrapped into lines.
struct Paragraph {
    layout: Layout,
    style: Style,
    /// The number of columns that are left free before each line.
    indent: usize,
}

impl Paragraph {
    fn write(&self, out: &mut String, words: &str) -> fmt::Result {
        let words = sanitize::line(words, usize::MAX);
        let room = self.layout.columns.saturating_sub(self.indent);
        let mut line = String::new();
        let mut taken = 0;
        for word in words.split(' ') {
            let length = word.chars().count();
            if taken > 0 && taken + 1 + length > room {
                self.line(out, &line)?;
                line.clear();
                taken = 0;
            }
            if taken > 0 {
                line.push(' ');
                taken += 1;
            }
            line.push_str(word);
            taken += length;
        }
        self.line(out, &line)
    }

    fn line(&self, out: &mut String, line: &str) -> fmt::Result {
        let indent = self.indent;
        match self.layout.colour {
            true => writeln!(
                out,
                "{:indent$}{}{line}{}",
                "",
                self.style.render(),
                self.style.render_reset()
            ),
            false => writeln!(out, "{:indent$}{line}", ""),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::compat::{Direction, Report};

    use super::*;

    fn report(message: &str, affects: usize) -> Report {
        let finding = |id, level, path: &str, message: &str| Finding {
            id,
            level,
            direction: Direction::Request,
            path: path.to_owned(),
            message: message.to_owned(),
            evidence: Evidence::Document,
            affects: (0..affects).map(|n| format!("vm.op-{n}")).collect(),
        };
        Report::new(
            "v1.0",
            "v2.0",
            [
                finding("added", Level::Info, "/b", "There is more."),
                finding("removed", Level::Breaking, "/a", message),
            ],
        )
    }

    const PLAIN: Layout = Layout {
        columns: 30,
        colour: false,
    };

    #[test]
    fn severe_findings_come_first_and_lines_are_wrapped() {
        let shown = text(
            &report("The property `a` of `B` is gone from the request.", 7).page(),
            PLAIN,
        );
        assert_eq!(
            shown,
            "\
v2.0 breaks clients that were
built for v1.0: 1 breaking, 1
for information.

Breaking (1)

  The property `a` of `B` is
  gone from the request.
    /a
    sent with vm.op-0,
    vm.op-1, vm.op-2, vm.op-3,
    vm.op-4, vm.op-5 and 1
    more (removed)

For information (1)

  There is more.
    /b
    sent with vm.op-0,
    vm.op-1, vm.op-2, vm.op-3,
    vm.op-4, vm.op-5 and 1
    more (added)
"
        );
    }

    #[test]
    fn control_characters_of_a_document_do_not_reach_the_terminal() {
        let hostile = report("\u{1b}]0;title\u{7}\u{1b}[2J\nfake: compatible", 0);
        let plain = text(&hostile.page(), PLAIN);
        assert!(
            !plain.contains(|c: char| c.is_control() && c != '\n'),
            "{plain:?}"
        );
        assert!(
            !plain
                .lines()
                .any(|line| line.contains("fake: compatible") && line.starts_with("fake"))
        );
        let coloured = Layout {
            colour: true,
            ..PLAIN
        };
        let coloured = text(&hostile.page(), coloured);
        assert!(
            coloured.contains("\u{1b}[31m") || coloured.contains("\u{1b}[1m"),
            "{coloured:?}"
        );
        assert!(
            !coloured.contains("\u{1b}]") && !coloured.contains("\u{1b}[2J"),
            "{coloured:?}"
        );
    }
}
