//! Removes the backtraces from a VMM's log for an error text ([`without_backtraces`]). They don't help the user of a
//! VMM, and they hide the lines that do.

/// The heading of a backtrace, in lower case.
const HEADING: &str = "stack backtrace:";

/// Returns `log` without the backtraces of Rust programs. A backtrace is its heading, each frame with its place in the
/// source, and the notes that tell how to get a longer one.
///
/// A log that was cut may begin within a backtrace. Its first numbered lines are removed too if one of them has a place
/// in the source. A list of numbered causes has none, so it stays.
pub(in crate::vmm) fn without_backtraces(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    let cut = lines.iter().take_while(|line| is_of_frame(line)).count();
    let cut = if lines[..cut].iter().any(|line| is_place(line)) {
        cut
    } else {
        0
    };
    let mut kept: Vec<&str> = Vec::new();
    let mut in_frames = false;
    for line in &lines[cut..] {
        if line.trim().eq_ignore_ascii_case(HEADING) {
            in_frames = true;
            while kept.last().is_some_and(|line| line.trim().is_empty()) {
                kept.pop();
            }
            continue;
        }
        in_frames = in_frames && is_of_frame(line);
        if !in_frames && !is_note(line) {
            kept.push(line);
        }
    }
    let mut text = kept.join("\n");
    if log.ends_with('\n') && !text.is_empty() {
        text.push('\n');
    }
    text
}

fn is_of_frame(line: &str) -> bool {
    is_place(line) || is_frame(line)
}

/// Whether the line is a frame, such as `   4: main::run` or `   4:     0x55d0 - main::run`.
fn is_frame(line: &str) -> bool {
    let digits = line.trim_start();
    let rest = digits.trim_start_matches(|char: char| char.is_ascii_digit());
    rest.len() < digits.len() && rest.starts_with(": ")
}

/// Whether the line is a place in the source, such as `             at ./src/main.rs:58:16`.
fn is_place(line: &str) -> bool {
    line.starts_with(' ') && line.trim_start().starts_with("at ")
}

fn is_note(line: &str) -> bool {
    line.trim_start().starts_with("note: ") && line.contains("RUST_BACKTRACE=")
}

#[cfg(test)]
mod tests {
    use super::without_backtraces;

    #[track_caller]
    fn check(log: &str, expected: &str) {
        assert_eq!(without_backtraces(log), expected);
    }

    #[test]
    fn the_backtrace_of_an_error_is_removed_and_its_causes_stay() {
        check(
            "ERROR: Fatal error: CreateHypervisor(VmCreate(Permission denied (os error 13)\n\nStack backtrace:\n   \
             0: <unknown>\n   1: __libc_start_call_main\n             at ./csu/start.h:58:16\n   2: <unknown>))\n\
             Error: exited with the following chain of errors:\n  0: Failed to open hypervisor interface\n  \
             1: Permission denied (os error 13)\n",
            "ERROR: Fatal error: CreateHypervisor(VmCreate(Permission denied (os error 13)\n\
             Error: exited with the following chain of errors:\n  0: Failed to open hypervisor interface\n  \
             1: Permission denied (os error 13)\n",
        );
    }

    #[test]
    fn the_backtrace_of_a_panic_is_removed_with_its_notes() {
        check(
            "thread 'vmm' panicked at src/lib.rs:7:9:\nno disk\nstack backtrace:\n   \
             0:     0x55d0 - core::panicking\n             \
             at /rustc/1/library/core/src/panicking.rs:75:14\n  10: main\nnote: Some details are omitted, run with \
             `RUST_BACKTRACE=full` for a verbose backtrace.\nlast words",
            "thread 'vmm' panicked at src/lib.rs:7:9:\nno disk\nlast words",
        );
        check(
            "no disk\nnote: run with `RUST_BACKTRACE=1` environment variable to display a backtrace\n",
            "no disk\n",
        );
    }

    #[test]
    fn a_log_that_begins_within_a_backtrace() {
        check(
            "  12: main\n             at ./m.rs:1:1\nError: no\n",
            "Error: no\n",
        );
        check("  0: Failed\n  1: no\n", "  0: Failed\n  1: no\n");
    }

    #[test]
    fn lines_that_only_resemble_a_backtrace_stay() {
        for log in [
            "",
            "\n",
            "one\n\ntwo",
            "at once\n  5 VMs: none\n",
            "note: see there\n",
        ] {
            check(log, if log == "\n" { "" } else { log });
        }
        check("stack backtrace:\n", "");
        check("a\nstack backtrace:\nb\n", "a\nb\n");
    }
}
