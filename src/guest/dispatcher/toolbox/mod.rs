//! The [`Toolbox`]: the tools that a dispatcher offers, and how parameters become arguments.

mod defaults;
mod file;
mod run_options;
mod tool;

use std::collections::BTreeMap;

use serde_json::{Map, Value};

pub use file::ToolsFileError;
pub(super) use run_options::RunOptions;

use super::function::{Function, FunctionRun};
use super::limits::Limits;
use defaults::Defaults;
use run_options::AllowedOptions;
use tool::Tool;

/// The directory for files, unless the tools file names another.
const FILES_DIRECTORY: &str = "/work";

/// The longest path that the kernel accepts, in bytes, without its NUL byte (`PATH_MAX`).
const MAX_PATH: usize = 4095;

/// The tools that a dispatcher offers. A host can't give a free-form command line: a tool is a program with fixed
/// arguments, some of which end in the value of a named parameter.
///
/// | tool | runs |
/// |---|---|
/// | `echo {message}` | `printf -- "%s\n" message`, which takes every message literally, unlike `echo -n` |
/// | `whoami` | `whoami` |
/// | `uname {flag}` | `uname flag`; `-a`, `-s`, `-n`, `-r`, `-v`, `-m` or `-o` |
/// | `cat {path}` | `cat -- path` |
/// | `ls {path}` | `ls -- path` |
/// | `env` | `env` |
/// | `sh {script}` | `sh -c script`; only with [`with_shell`](Self::with_shell) or `"sh": true` in the tools file |
///
/// A run with streams may ask for standard input, environment variables and a working directory. Of the built-in tools
/// only `sh` accepts these, with any variable but `LD_*`. A tool of the tools file accepts what its declaration allows.
#[derive(Clone, Debug)]
pub struct Toolbox {
    tools: BTreeMap<String, Entry>,
    limits: Limits,
    files: String,
    defaults: Defaults,
}

impl Toolbox {
    /// The built-in tools without `sh`, with the default limits.
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
            tools: tools
                .map(|(name, tool)| (name.to_owned(), Entry::Program(tool)))
                .into(),
            limits: Limits::default(),
            files: FILES_DIRECTORY.to_owned(),
            defaults: Defaults::default(),
        }
    }

    /// Adds the tool `sh {script}`.
    pub fn with_shell(mut self) -> Toolbox {
        let shell = Tool {
            allowed: AllowedOptions::by_shell(),
            ..Tool::new("sh", &["-c", "{script}"])
        };
        self.tools.insert("sh".to_owned(), Entry::Program(shell));
        self
    }

    /// Adds a tool that is a function of this process, for a stand-in for a guest. It replaces a tool of the same name.
    ///
    /// The function runs in a thread of this process, and nothing confines it. It accepts any parameters, standard
    /// input, any environment variables and any directory. It returns the tool's exit code. If it panics, the tool's
    /// outcome is `guest_failed`.
    #[must_use]
    pub fn with_function(
        mut self,
        name: &str,
        function: impl Fn(&mut FunctionRun) -> u8 + Send + Sync + 'static,
    ) -> Toolbox {
        let entry = Entry::Function(Function::new(function));
        self.tools.insert(name.to_owned(), entry);
        self
    }

    /// The limits that the tools file sets for every tool; the default for each limit that it doesn't set. The limits
    /// of single tools aren't included.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The user and group id that the tools file sets for every tool, if it does. The user is never root.
    pub fn user(&self) -> Option<(u32, u32)> {
        self.defaults.user()
    }

    /// The directory into which and from which files are transferred, as the tools see it: an absolute path, `/work`
    /// unless the tools file names another.
    pub(crate) fn files_directory(&self) -> &str {
        &self.files
    }

    /// Replaces the directory for files.
    ///
    /// # Errors
    ///
    /// [`ToolsFileError::Files`] if `path` isn't absolute, contains `..` or a NUL byte, or has more than 4095 bytes.
    pub fn with_files_directory(mut self, path: &str) -> Result<Toolbox, ToolsFileError> {
        self.files = directory(path)
            .map_err(|reason| ToolsFileError::Files { reason })?
            .to_owned();
        Ok(self)
    }

    /// The call of `tool` with `params` and `wishes`, if the tool exists and accepts them.
    pub(super) fn call(
        &self,
        tool: &str,
        params: &Value,
        wishes: &RunOptions<'_>,
    ) -> Result<Call, Refused> {
        let known = self.tools.get(tool).ok_or(Refused::UnknownTool)?;
        let (action, allowed, limits) = match known {
            Entry::Program(tool) => {
                let none = Map::new();
                let params = match params {
                    Value::Object(params) => params,
                    Value::Null => &none,
                    _ => return Err(Refused::Because("params must be an object".to_owned())),
                };
                let arguments = tool.arguments(params).map_err(Refused::Because)?;
                let program = tool.program.clone();
                let action = Action::Program { program, arguments };
                (action, &tool.allowed, &tool.limits)
            }
            Entry::Function(function) => {
                let (function, params) = (function.clone(), params.clone());
                let action = Action::Function { function, params };
                (action, AllowedOptions::ALL, &Limits::NONE)
            }
        };
        allowed.check(wishes).map_err(Refused::Because)?;
        Ok(Call {
            action,
            has_stdin: wishes.stdin,
            env: self.defaults.env(wishes),
            cwd: self.defaults.cwd(wishes),
            limits: limits.clone(),
        })
    }
}

/// Why a call is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    UnknownTool,
    /// The tool doesn't accept the parameters or the wishes; the text says why.
    Because(String),
}

/// A checked call of a tool, ready to start.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) action: Action,
    /// Whether the host writes the tool's standard input. Otherwise the input is empty.
    pub(super) has_stdin: bool,
    /// Environment variables that are set beside or in place of the guest's own.
    pub(super) env: BTreeMap<String, String>,
    /// The tool's working directory; `/` if this is `None`.
    pub(super) cwd: Option<String>,
    /// The limits that the tools file sets for this tool.
    pub(super) limits: Limits,
}

#[derive(Debug)]
pub(super) enum Action {
    Program {
        program: String,
        arguments: Vec<String>,
    },
    Function {
        function: Function,
        params: Value,
    },
}

impl Call {
    /// The program's name for an error message.
    pub(super) fn name(&self) -> &str {
        match &self.action {
            Action::Program { program, .. } => program,
            Action::Function { .. } => "the function",
        }
    }
}

#[derive(Clone, Debug)]
enum Entry {
    Program(Tool),
    Function(Function),
}

/// Checks the path of a directory inside the tools' root.
pub(super) fn directory(path: &str) -> Result<&str, &'static str> {
    if !path.starts_with('/') {
        return Err("it is not an absolute path");
    }
    if path.contains('\0') || path.len() > MAX_PATH {
        return Err("it has a NUL byte or more than 4095 bytes");
    }
    if path.split('/').any(|name| name == "..") {
        return Err("it has a \"..\" in it");
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::tool::{Argument, MAX_PARAM};
    use super::*;

    #[test]
    fn params_become_arguments() {
        #[track_caller]
        fn check(tool: &str, params: Value, expected: &[&str]) {
            let toolbox = Toolbox::built_in().with_shell();
            let call = toolbox.call(tool, &params, &RunOptions::default()).unwrap();
            let Action::Program { program, arguments } = call.action else {
                panic!("{tool} is no program");
            };
            let actual = [vec![program], arguments].concat();
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
            let toolbox = Toolbox::built_in().with_shell();
            let refused = toolbox.call(tool, &params, &RunOptions::default());
            match refused.unwrap_err() {
                Refused::Because(message) => assert!(message.contains(expected), "{message}"),
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
    fn a_tool_that_is_not_listed_is_unknown() {
        for tool in ["sh", "rm", "", "/bin/ls", "Echo"] {
            let refused = Toolbox::built_in().call(tool, &json!({}), &RunOptions::default());
            assert_eq!(refused.unwrap_err(), Refused::UnknownTool, "{tool}");
        }
    }

    #[test]
    fn every_built_in_argument_is_well_formed() {
        for entry in Toolbox::built_in().with_shell().tools.values() {
            let Entry::Program(tool) = entry else {
                panic!("{entry:?} is built in");
            };
            for argument in &tool.arguments {
                if let Argument::Literal(text) = argument {
                    assert!(Argument::parse(text).is_some(), "{text}");
                }
            }
        }
    }
}
