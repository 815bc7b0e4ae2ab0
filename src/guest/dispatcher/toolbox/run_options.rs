//! [`RunOptions`]: the standard input, environment and directory that a host asks for in a run with streams; and
//! [`AllowedOptions`]: which of them a tool accepts.

use std::collections::BTreeMap;

use super::directory;
use crate::guest::protocol::MAX_ENVIRONMENT;

/// The most names and patterns of environment variables that a tools file may declare for one tool.
const MAX_PATTERNS: usize = 64;

/// The longest name of an environment variable, in bytes.
const MAX_NAME: usize = 256;

/// What the host asks for besides the tool and its parameters.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::guest::dispatcher) struct RunOptions<'a> {
    /// Whether the host wants to write standard input.
    pub(in crate::guest::dispatcher) stdin: bool,
    pub(in crate::guest::dispatcher) env: Option<&'a BTreeMap<String, String>>,
    pub(in crate::guest::dispatcher) cwd: Option<&'a str>,
}

/// Which wishes a tool accepts.
#[derive(Clone, Debug, Default)]
pub(super) struct AllowedOptions {
    stdin: bool,
    cwd: bool,
    env: Variables,
}

/// Which environment variables a tool accepts.
#[derive(Clone, Debug)]
enum Variables {
    All,
    These(Vec<Pattern>),
}

impl Default for Variables {
    fn default() -> Variables {
        Variables::These(Vec::new())
    }
}

#[derive(Clone, Debug)]
enum Pattern {
    Name(String),
    /// Every name with this prefix that isn't [protected](is_protected).
    Prefix(String),
}

impl AllowedOptions {
    /// Accepts every wish.
    pub(super) const ALL: &'static AllowedOptions = &AllowedOptions {
        stdin: true,
        cwd: true,
        env: Variables::All,
    };

    /// What the built-in shell accepts. A host that gives the shell a script can set all of this in the script, except
    /// `LD_*`, which the dynamic linker reads before the shell runs. So only `LD_*` is refused.
    pub(super) fn by_shell() -> AllowedOptions {
        let patterns = [
            Pattern::Prefix(String::new()),
            Pattern::Name("PATH".to_owned()),
            Pattern::Name("HOME".to_owned()),
        ];
        AllowedOptions {
            stdin: true,
            cwd: true,
            env: Variables::These(patterns.into()),
        }
    }

    /// What a tools file declares for a tool. `env` has names of variables, and prefixes of names followed by `*`.
    pub(super) fn declared(
        stdin: bool,
        cwd: bool,
        env: &[String],
    ) -> Result<AllowedOptions, &'static str> {
        if env.len() > MAX_PATTERNS {
            return Err("it names more than 64 environment variables");
        }
        let patterns = env.iter().map(|text| match text.strip_suffix('*') {
            Some("") => Some(Pattern::Prefix(String::new())),
            Some(prefix) => is_variable(prefix).then(|| Pattern::Prefix(prefix.to_owned())),
            None => is_variable(text).then(|| Pattern::Name(text.clone())),
        });
        let patterns: Option<Vec<_>> = patterns.collect();
        Ok(AllowedOptions {
            stdin,
            cwd,
            env: Variables::These(patterns.ok_or(
                "its environment has what is neither a name of A-Z, a-z, 0-9 and _ nor one with a * at its end",
            )?),
        })
    }

    /// Checks the host's wishes. The error is the text that the host gets.
    pub(super) fn check(&self, wishes: &RunOptions<'_>) -> Result<(), String> {
        if wishes.stdin && !self.stdin {
            return Err("the tool takes no standard input".to_owned());
        }
        if let Some(cwd) = wishes.cwd {
            if !self.cwd {
                return Err("the tool's directory can't be chosen".to_owned());
            }
            directory(cwd).map_err(|reason| format!("the directory can't be used: {reason}"))?;
        }
        let Some(env) = wishes.env else {
            return Ok(());
        };
        let size: usize = env
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        if size > MAX_ENVIRONMENT {
            return Err(format!(
                "the environment has {size} bytes; at most {MAX_ENVIRONMENT} are taken"
            ));
        }
        for (name, value) in env {
            let shown: String = name.chars().take(64).collect();
            if !is_variable(name) {
                return Err(format!("{shown:?} is no name of an environment variable"));
            }
            if !self.env.allows(name) {
                return Err(format!(
                    "the tool doesn't take the environment variable {shown:?}"
                ));
            }
            if value.contains('\0') {
                return Err(format!(
                    "the environment variable {shown:?} contains a NUL byte"
                ));
            }
        }
        Ok(())
    }
}

impl Variables {
    fn allows(&self, name: &str) -> bool {
        match self {
            Variables::All => true,
            Variables::These(patterns) => patterns.iter().any(|pattern| match pattern {
                Pattern::Name(allowed) => allowed == name,
                Pattern::Prefix(prefix) => name.starts_with(prefix) && !is_protected(name),
            }),
        }
    }
}

/// Whether a variable decides which program or library is loaded. A pattern never includes such a variable.
fn is_protected(name: &str) -> bool {
    name == "PATH" || name == "HOME" || name.starts_with("LD_")
}

/// Whether this can be the name of an environment variable: an ASCII letter or `_`, then ASCII letters, digits and `_`,
/// at most [`MAX_NAME`] bytes.
fn is_variable(name: &str) -> bool {
    name.len() <= MAX_NAME
        && name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(env: &[&str]) -> Result<AllowedOptions, &'static str> {
        let env: Vec<_> = env.iter().map(|text| (*text).to_owned()).collect();
        AllowedOptions::declared(false, false, &env)
    }

    #[test]
    fn variables_are_allowed_by_name_and_by_prefix() {
        #[track_caller]
        fn check(allowed: &AllowedOptions, name: &str, expected: bool) {
            let env = BTreeMap::from([(name.to_owned(), "value".to_owned())]);
            let wishes = RunOptions {
                env: Some(&env),
                ..RunOptions::default()
            };
            assert_eq!(allowed.check(&wishes).is_ok(), expected, "{name}");
        }
        let some = declared(&["LANG", "APP_*"]).unwrap();
        for (name, expected) in [
            ("LANG", true),
            ("LANGUAGE", false),
            ("APP_", true),
            ("APP_X", true),
            ("app_x", false),
            ("APP", false),
            ("PATH", false),
        ] {
            check(&some, name, expected);
        }
        let all = declared(&["*"]).unwrap();
        for (name, expected) in [
            ("LANG", true),
            ("_", true),
            ("PATH", false),
            ("HOME", false),
            ("LD_PRELOAD", false),
            ("LD_", false),
            ("LDFLAGS", true),
        ] {
            check(&all, name, expected);
        }
        check(&declared(&["P*", "LD_*"]).unwrap(), "PATH", false);
        check(&declared(&["P*", "LD_*"]).unwrap(), "LD_PRELOAD", false);
        let named = declared(&["PATH", "HOME", "LD_LIBRARY_PATH"]).unwrap();
        for name in ["PATH", "HOME", "LD_LIBRARY_PATH"] {
            check(&named, name, true);
            check(&AllowedOptions::by_shell(), name, !name.starts_with("LD_"));
            check(AllowedOptions::ALL, name, true);
            check(&AllowedOptions::default(), name, false);
        }
        for name in ["", "1A", "A-B", "A=B", "A B", "Ä", "A\0"] {
            check(AllowedOptions::ALL, name, false);
        }
    }

    #[test]
    fn a_declaration_that_is_neither_a_name_nor_a_prefix_is_refused() {
        for text in ["", "A*B", "**", "A=", "1*", "A B", "Ä"] {
            assert!(declared(&[text]).is_err(), "{text}");
        }
        assert!(declared(&["A"; 64]).is_ok());
        assert!(declared(&["A"; 65]).is_err());
        assert!(declared(&[&"A".repeat(256)]).is_ok());
        assert!(declared(&[&"A".repeat(257)]).is_err());
    }

    #[test]
    fn a_refused_wish_has_a_reason() {
        #[track_caller]
        fn check(allowed: &AllowedOptions, wishes: RunOptions<'_>, expected: &str) {
            let reason = allowed.check(&wishes).unwrap_err();
            assert!(reason.contains(expected), "{reason}");
        }
        let none = AllowedOptions::default();
        let stdin = RunOptions {
            stdin: true,
            ..RunOptions::default()
        };
        check(&none, stdin, "no standard input");
        let cwd = |cwd| RunOptions {
            cwd: Some(cwd),
            ..RunOptions::default()
        };
        check(&none, cwd("/"), "can't be chosen");
        check(AllowedOptions::ALL, cwd("tmp"), "not an absolute path");
        check(AllowedOptions::ALL, cwd(""), "not an absolute path");
        check(AllowedOptions::ALL, cwd("/tmp/../etc"), "\"..\"");
        check(AllowedOptions::ALL, cwd("/tmp\0"), "NUL");
        check(
            AllowedOptions::ALL,
            cwd(&format!("/{}", "x".repeat(4095))),
            "4095",
        );

        let long = |length| BTreeMap::from([("A".to_owned(), "x".repeat(length))]);
        let env = |env| RunOptions {
            env: Some(env),
            ..RunOptions::default()
        };
        let (most, too_much) = (long(MAX_ENVIRONMENT - 1), long(MAX_ENVIRONMENT));
        check(AllowedOptions::ALL, env(&too_much), "32769 bytes");
        assert_eq!(AllowedOptions::ALL.check(&env(&most)), Ok(()));
        let nul = BTreeMap::from([("A".to_owned(), "\0".to_owned())]);
        check(AllowedOptions::ALL, env(&nul), "NUL");
    }
}
