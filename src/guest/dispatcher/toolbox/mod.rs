//! The tools that may be run, and how their parameters become arguments.

mod file;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

pub use file::ToolsFileError;

use super::confinement::Limits;

/// Most bytes of one parameter's value. The kernel takes at most 128 KiB for one argument.
pub const MAX_PARAM: usize = 64 * 1024;

/// The tools that may be run. There is no free-form command line: a tool is a program with fixed arguments,
/// some of which end in the value of a named parameter.
///
/// | tool | runs |
/// |---|---|
/// | `echo {message}` | `printf -- "%s\n" message`, which takes every message literally, unlike `echo -n` |
/// | `whoami` | `whoami` |
/// | `uname {flag}` | `uname flag`; `-a`, `-s`, `-n`, `-r`, `-v`, `-m` or `-o` |
/// | `cat {path}` | `cat -- path` |
/// | `ls {path}` | `ls -- path` |
/// | `env` | `env` |
/// | `sh {script}` | `sh -c script`; only where it was switched on |
#[derive(Clone, Debug)]
pub struct Toolbox {
    tools: BTreeMap<String, Tool>,
    limits: Limits,
}

impl Toolbox {
    /// The tools that every guest has; `sh` is not among them.
    pub fn built_in() -> Toolbox {
        let tools = [
            ("echo", Tool::new("printf", &["--", "%s\\n", "{message}"])),
            ("whoami", Tool::new("whoami", &[])),
            (
                "uname",
                Tool::new("uname", &["{flag}"])
                    .choose("flag", &["-a", "-s", "-n", "-r", "-v", "-m", "-o"]),
            ),
            ("cat", Tool::new("cat", &["--", "{path}"])),
            ("ls", Tool::new("ls", &["--", "{path}"])),
            ("env", Tool::new("env", &[])),
        ];
        Toolbox {
            tools: tools.map(|(name, tool)| (name.to_owned(), tool)).into(),
            limits: Limits::default(),
        }
    }

    /// The same tools and `sh {script}`.
    pub fn with_shell(mut self) -> Toolbox {
        let shell = Tool::new("sh", &["-c", "{script}"]);
        self.tools.insert("sh".to_owned(), shell);
        self
    }

    /// The limits that the tools file asks for, else the defaults.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What to run for a call of `tool` with `params`.
    pub(super) fn command_line(&self, tool: &str, params: &Value) -> Result<CommandLine, Refused> {
        let known = self.tools.get(tool).ok_or(Refused::UnknownTool)?;
        let none = Map::new();
        let params = match params {
            Value::Object(params) => params,
            Value::Null => &none,
            _ => return Err(Refused::Params("params must be an object".to_owned())),
        };
        known.command_line(params).map_err(Refused::Params)
    }
}

/// Why a call is not run.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    UnknownTool,
    /// What is wrong with the parameters.
    Params(String),
}

/// A program and its arguments, ready to run.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CommandLine {
    pub(super) program: String,
    pub(super) arguments: Vec<String>,
}

#[derive(Clone, Debug)]
struct Tool {
    /// An absolute path inside the tools' root, or for a built-in tool a name that is looked up in `PATH`.
    program: String,
    arguments: Vec<Argument>,
    /// The only values that a parameter may have, for those that are restricted.
    choices: BTreeMap<String, Vec<String>>,
}

impl Tool {
    /// A built-in tool. Its arguments are checked by the test of the built-in tools.
    fn new(program: &str, arguments: &[&str]) -> Tool {
        let parse = |text: &&str| {
            Argument::parse(text).unwrap_or_else(|| Argument::Literal((*text).to_owned()))
        };
        Tool {
            program: program.to_owned(),
            arguments: arguments.iter().map(parse).collect(),
            choices: BTreeMap::new(),
        }
    }

    fn choose(mut self, param: &str, values: &[&str]) -> Tool {
        let values = values.iter().map(|value| (*value).to_owned()).collect();
        self.choices.insert(param.to_owned(), values);
        self
    }

    fn params(&self) -> BTreeSet<&str> {
        self.arguments.iter().filter_map(Argument::param).collect()
    }

    fn command_line(&self, params: &Map<String, Value>) -> Result<CommandLine, String> {
        let known = self.params();
        if let Some(unknown) = params.keys().find(|name| !known.contains(name.as_str())) {
            let unknown: String = unknown.chars().take(64).collect();
            return Err(format!("unknown parameter {unknown:?}"));
        }
        let mut arguments = Vec::with_capacity(self.arguments.len());
        let mut options_ended = false;
        for argument in &self.arguments {
            let argument = match argument {
                Argument::Literal(text) => text.clone(),
                Argument::Param { prefix, name } => {
                    let value = self.value(name, params)?;
                    let may_be_option = prefix.is_empty() && !options_ended;
                    if may_be_option && value.starts_with('-') && !self.choices.contains_key(name) {
                        return Err(format!("parameter {name:?} must not begin with \"-\""));
                    }
                    format!("{prefix}{value}")
                }
            };
            options_ended |= argument == "--";
            arguments.push(argument);
        }
        Ok(CommandLine {
            program: self.program.clone(),
            arguments,
        })
    }

    fn value<'a>(&self, name: &str, params: &'a Map<String, Value>) -> Result<&'a str, String> {
        let value = match params.get(name) {
            Some(Value::String(value)) => value,
            Some(_) => return Err(format!("parameter {name:?} must be a string")),
            None => return Err(format!("parameter {name:?} is missing")),
        };
        if value.len() > MAX_PARAM {
            return Err(format!(
                "parameter {name:?} has {} bytes; at most {MAX_PARAM} are taken",
                value.len()
            ));
        }
        if value.contains('\0') {
            return Err(format!("parameter {name:?} contains a NUL byte"));
        }
        match self.choices.get(name) {
            Some(choices) if !choices.contains(value) => Err(format!(
                "parameter {name:?} must be one of {}",
                choices.join(", ")
            )),
            _ => Ok(value),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Argument {
    Literal(String),
    /// `prefix` and then the value of the parameter `name`.
    Param {
        prefix: String,
        name: String,
    },
}

impl Argument {
    /// Reads `text`, `{name}` or `prefix{name}`; `None` when braces stand in any other way.
    fn parse(text: &str) -> Option<Argument> {
        let Some((prefix, rest)) = text.split_once('{') else {
            let literal = !text.contains(['}', '\0']);
            return literal.then(|| Argument::Literal(text.to_owned()));
        };
        let name = rest.strip_suffix('}')?;
        (is_name(name) && !prefix.contains(['}', '\0'])).then(|| Argument::Param {
            prefix: prefix.to_owned(),
            name: name.to_owned(),
        })
    }

    fn param(&self) -> Option<&str> {
        match self {
            Argument::Literal(_) => None,
            Argument::Param { name, .. } => Some(name),
        }
    }
}

/// Names of tools and parameters: 1 to 64 of `a-z`, `0-9`, `_`, `-`.
fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn params_become_arguments() {
        #[track_caller]
        fn check(tool: &str, params: Value, expected: &[&str]) {
            let toolbox = Toolbox::built_in().with_shell();
            let line = toolbox.command_line(tool, &params).unwrap();
            let mut actual = vec![line.program];
            actual.extend(line.arguments);
            assert_eq!(actual, expected);
        }
        let printf = ["printf", "--", "%s\\n"];
        check(
            "echo",
            json!({"message": "hi"}),
            &[&printf[..], &["hi"]].concat(),
        );
        check(
            "echo",
            json!({"message": "-n {x}"}),
            &[&printf[..], &["-n {x}"]].concat(),
        );
        check(
            "echo",
            json!({"message": ""}),
            &[&printf[..], &[""]].concat(),
        );
        check("whoami", json!({}), &["whoami"]);
        check("whoami", Value::Null, &["whoami"]);
        check("uname", json!({"flag": "-a"}), &["uname", "-a"]);
        check(
            "cat",
            json!({"path": "/etc/hostname"}),
            &["cat", "--", "/etc/hostname"],
        );
        check("cat", json!({"path": "-n"}), &["cat", "--", "-n"]);
        check("ls", json!({"path": "/"}), &["ls", "--", "/"]);
        check("env", json!({}), &["env"]);
        check(
            "sh",
            json!({"script": "echo $0; true"}),
            &["sh", "-c", "echo $0; true"],
        );
    }

    #[test]
    fn other_params_are_refused() {
        #[track_caller]
        fn check(tool: &str, params: Value, expected: &str) {
            let refused = Toolbox::built_in().with_shell().command_line(tool, &params);
            match refused.unwrap_err() {
                Refused::Params(message) => assert!(message.contains(expected), "{message}"),
                Refused::UnknownTool => panic!("{tool} is not known"),
            }
        }
        check("echo", json!({}), "\"message\" is missing");
        check("echo", Value::Null, "\"message\" is missing");
        check("echo", json!({"message": 1}), "must be a string");
        check("echo", json!({"message": null}), "must be a string");
        check("echo", json!({"message": "a\u{0}b"}), "NUL");
        check(
            "echo",
            json!({"message": "x".repeat(MAX_PARAM + 1)}),
            "65537 bytes",
        );
        check(
            "echo",
            json!({"message": "x", "flag": "-a"}),
            "unknown parameter \"flag\"",
        );
        check("whoami", json!({"": ""}), "unknown parameter \"\"");
        check("whoami", json!([]), "must be an object");
        check("uname", json!({"flag": "a"}), "must be one of -a");
        check("uname", json!({"flag": "--help"}), "must be one of -a");
        check("sh", json!({"script": "-x"}), "must not begin with");
    }

    #[test]
    fn tools_that_are_not_listed_are_unknown() {
        for tool in ["sh", "rm", "", "/bin/ls", "Echo"] {
            let refused = Toolbox::built_in().command_line(tool, &json!({}));
            assert_eq!(refused, Err(Refused::UnknownTool), "{tool}");
        }
    }

    #[test]
    fn arguments_have_one_placeholder_at_the_end() {
        #[track_caller]
        fn check(text: &str, expected: Option<(&str, Option<&str>)>) {
            let expected = expected.map(|(text, name)| match name {
                None => Argument::Literal(text.to_owned()),
                Some(name) => Argument::Param {
                    prefix: text.to_owned(),
                    name: name.to_owned(),
                },
            });
            assert_eq!(Argument::parse(text), expected, "{text}");
        }
        check("", Some(("", None)));
        check("--flag", Some(("--flag", None)));
        check("{name}", Some(("", Some("name"))));
        check("--out={name}", Some(("--out=", Some("name"))));
        for text in [
            "{}", "{a", "a}", "{a}b", "{a}{b}", "{{a}}", "{A}", "}{a}", "{a b}", "\0",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn every_built_in_argument_is_well_formed() {
        for tool in Toolbox::built_in().with_shell().tools.values() {
            for argument in &tool.arguments {
                if let Argument::Literal(text) = argument {
                    assert!(Argument::parse(text).is_some(), "{text}");
                }
            }
        }
    }
}
