//! [`ProbeScript`]: a script that a probe runs in the guest. Its output is parsed into [`Findings`].
//!
//! A script reports in lines of its output what it tried, which breaches it found and what it could not try. Each line
//! begins with a token that is random for each dispatch, so lines of an earlier dispatch are ignored:
//!
//! ```text
//! TOKEN tried mount
//! TOKEN breach mount 9p host can be mounted
//! TOKEN cannot connect the image has no nc
//! TOKEN say clock 1789000000
//! TOKEN end
//! ```

use serde_json::json;
use uuid::Uuid;

use super::findings::Findings;
use crate::sandbox::{ToolExecution, ToolInvocation};
use crate::sanitize;

const PRELUDE: &str = include_str!("battery/scripts/prelude.sh");

/// How many lines of a script are read. A real script prints far fewer.
const MAX_LINES: usize = 1000;

/// The most characters of a value.
const LONGEST: usize = 240;

/// A script for the tool `sh`.
#[derive(Clone, Debug)]
pub(super) struct ProbeScript {
    text: String,
    token: String,
}

impl ProbeScript {
    /// The script of the probe `name`. The shell variables `variables` are set for `body`. No value may contain a
    /// single quote.
    pub(super) fn new(name: &str, body: &str, variables: &[(&str, &str)]) -> ProbeScript {
        let token = Uuid::new_v4().simple().to_string();
        let mut text = format!("# chv-sandbox redteam: {name}\ntoken='{token}'\n");
        for (variable, value) in variables {
            debug_assert!(!value.contains('\''), "{value}");
            text.push_str(&format!("{variable}='{value}'\n"));
        }
        text.push_str(PRELUDE);
        text.push_str(body);
        text.push_str("\necho \"$token end\"\n");
        ProbeScript { text, token }
    }

    /// A script that prints only the output of `body`, without token lines.
    pub(super) fn bare(name: &str, body: &str) -> ProbeScript {
        ProbeScript {
            text: format!("# chv-sandbox redteam: {name}\n{body}"),
            token: Uuid::new_v4().simple().to_string(),
        }
    }

    pub(super) fn invocation(&self) -> ToolInvocation {
        ToolInvocation::new("sh", json!({ "script": self.text }))
    }

    /// Parses the token lines of its output.
    pub(super) fn findings(&self, execution: &ToolExecution) -> Findings {
        let mut findings = Findings {
            outcome: execution.outcome.to_string(),
            ..Findings::default()
        };
        let text = execution.stdout.text();
        let lines = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(self.token.as_str())?;
            rest.strip_prefix(' ')
        });
        for line in lines.take(MAX_LINES) {
            let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
            let (subject, value) = rest.split_once(' ').unwrap_or((rest, ""));
            let subject = sanitize::line(subject, LONGEST);
            let value = sanitize::line(value, LONGEST);
            match verb {
                "tried" => drop(findings.tried.insert(subject)),
                "breach" => findings.breaches.push((subject, value)),
                "cannot" => findings.cannot.push((subject, value)),
                "say" => drop(findings.said.insert(subject, value)),
                "end" => findings.ended = true,
                _ => {}
            }
        }
        findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::ToolOutcome;

    fn findings(script: &ProbeScript, lines: &str) -> Findings {
        let text = lines.replace("TOKEN", &script.token);
        let outcome = ToolOutcome::Exited { code: 0 };
        script.findings(&ToolExecution::new(outcome, text, ""))
    }

    #[track_caller]
    fn check(lines: &str, expected: &str) {
        let script = ProbeScript::new("test", "", &[]);
        assert_eq!(
            findings(&script, lines).verdict().name(),
            expected,
            "{lines:?}"
        );
    }

    #[test]
    fn only_a_script_that_tried_something_and_ended_passes() {
        check("TOKEN tried x\nTOKEN end\n", "passed");
        check("TOKEN tried x\n", "skipped");
        check("TOKEN end\n", "skipped");
        check("", "skipped");
        check(
            "TOKEN tried x\nTOKEN cannot y no nc\nTOKEN end\n",
            "skipped",
        );
        check("TOKEN tried x\nTOKEN breach x seen\nTOKEN end\n", "failed");
        check("TOKEN breach x seen", "failed");
    }

    #[test]
    fn a_line_without_the_token_counts_for_nothing() {
        check("tried x\nend\n0123 tried x\n0123 end\n", "skipped");
        check("TOKENtried x\nTOKEN  end\n", "skipped");
        check("TOKEN tried x\n0123 breach x seen\nTOKEN end\n", "passed");
        check(" TOKEN tried x\nTOKEN end", "skipped");
    }

    #[test]
    fn two_scripts_have_different_tokens() {
        let (one, two) = (
            ProbeScript::new("a", "", &[]),
            ProbeScript::new("a", "", &[]),
        );
        assert_ne!(one.token, two.token);
    }

    #[test]
    fn a_flood_of_lines_is_cut() {
        let script = ProbeScript::new("test", "", &[]);
        let flood = "TOKEN breach x \u{1b}[2J\n".repeat(MAX_LINES * 3);
        let findings = findings(&script, &flood);
        assert_eq!(findings.breaches.len(), MAX_LINES);
        assert!(!findings.breaches[0].1.contains('\u{1b}'));
    }
}
