//! [`Status`]: the exit statuses of all commands, and the part of a command's help that lists them.

use std::fmt::Write;
use std::process::ExitCode;

/// How a command ended. This is the only table of exit statuses: every command ends with one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// The answer is yes, or the command is done.
    Yes,
    /// The answer is no.
    No,
    /// The answer could not be found, or the command failed.
    Undecided,
    /// The command line is wrong.
    Usage,
    /// `run` has no exit code of a tool to pass on, or its reset was not verified.
    NoResult,
    /// SIGINT (Ctrl-C) ended the command: 128 and the signal's number, as shells report it.
    Interrupted,
    /// SIGTERM ended the command.
    Terminated,
    /// A tool ran, and this is its exit code.
    OfTool(u8),
}

impl Status {
    /// The exit code of the process.
    pub(crate) fn code(self) -> u8 {
        match self {
            Status::Yes => 0,
            Status::No => 1,
            Status::Undecided => 2,
            Status::Usage => 64,
            Status::NoResult => 125,
            Status::Interrupted => 130,
            Status::Terminated => 143,
            Status::OfTool(code) => code,
        }
    }

    /// [`Status::Yes`] or [`Status::No`].
    pub(crate) fn of(yes: bool) -> Status {
        match yes {
            true => Status::Yes,
            false => Status::No,
        }
    }
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> ExitCode {
        ExitCode::from(status.code())
    }
}

/// The heading of the list of exit statuses in a command's help.
const HEADING: &str = "Exit status:";

/// The meaning of a status, unless the command gives its own text.
const GENERAL: &[(Status, &str)] = &[
    (Status::Undecided, "it could not be done"),
    (Status::Usage, "wrong usage"),
    (Status::Interrupted, "interrupted (SIGINT)"),
    (Status::Terminated, "terminated (SIGTERM)"),
];

/// The list of exit statuses for the end of a command's help: the statuses in `own`, and the general ones that `own`
/// doesn't replace.
pub(crate) fn help(own: &[(Status, &str)]) -> String {
    let is_own = |status| own.iter().any(|(named, _)| *named == status);
    // `run`, which has a status of its own for failures, doesn't list the general one.
    let others = GENERAL.iter().filter(|(status, _)| {
        !is_own(*status) && (*status != Status::Undecided || !is_own(Status::NoResult))
    });
    let mut rows: Vec<_> = own.iter().chain(others).collect();
    rows.sort_by_key(|(status, _)| status.code());
    let mut text = HEADING.to_owned();
    for (status, meaning) in rows {
        // Writing to a string does not fail.
        let _ = write!(text, "\n  {:<4} {meaning}", status.code());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_says_what_its_own_statuses_mean() {
        let text = help(&[
            (Status::No, "tampered"),
            (Status::Yes, "good"),
            (Status::Undecided, "a file is missing"),
        ]);
        let expected = "Exit status:\n  0    good\n  1    tampered\n  2    a file is missing\n  64   wrong usage\n  \
                        130  interrupted (SIGINT)\n  143  terminated (SIGTERM)";
        assert_eq!(text, expected);
    }
}
