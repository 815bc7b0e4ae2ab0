//! Reads an image's tools file into a [`Toolbox`]. The file is JSON; unknown fields and values out of bounds are
//! errors.

use std::collections::BTreeMap;
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

use super::defaults::Defaults;
use super::run_options::AllowedOptions;
use super::tool::{Argument, Tool, is_name};
use super::{Entry, Limits, Toolbox};
use crate::files::{ReadError, Symlinks, read_bounded};

/// The longest tools file, in bytes.
pub(super) const MAX_TOOLS_FILE: u64 = 64 * 1024;
const MAX_TOOLS: usize = 64;
const MAX_ARGUMENTS: usize = 32;
const MAX_TEXT: usize = 4096;

/// A tools file could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ToolsFileError {
    /// The file exists but could not be read, or is not a regular file.
    #[error("the tools file {} cannot be read", path.display())]
    Read {
        /// The file's path.
        path: PathBuf,
        /// The error of opening or reading it.
        source: std::io::Error,
    },
    /// The file has more than 64 KiB.
    #[error("the tools file has more than {MAX_TOOLS_FILE} bytes; declare fewer tools")]
    TooLarge,
    /// The file isn't JSON, or has an unknown field or a value of another type.
    #[error("the tools file is not JSON of the documented form")]
    Shape(#[source] serde_json::Error),
    /// The declaration of a tool can't be used.
    #[error("the tools file declares {tool:?}, which cannot be offered: {reason}")]
    Tool {
        /// The tool's name.
        tool: String,
        /// Which rule the declaration breaks.
        reason: &'static str,
    },
    /// The path of the directory for files can't be used.
    #[error("the tools file's \"files\" cannot be the directory for files: {reason}")]
    Files {
        /// Which rule the path breaks.
        reason: &'static str,
    },
    /// The environment, directory or user for every tool can't be used.
    #[error("the tools file's \"defaults\" cannot be used: {reason}")]
    Defaults {
        /// Which rule they break.
        reason: &'static str,
    },
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct ToolsFile {
    sh: bool,
    tools: Declared,
    limits: DeclaredLimits,
    files: Option<String>,
    defaults: Defaults,
}

/// The declared tools in their order. A list, since a map would hide that two tools have the same name.
#[derive(Default)]
struct Declared(Vec<(String, DeclaredTool)>);

impl<'de> Deserialize<'de> for Declared {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Entries)
    }
}

struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = Declared;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tools")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Declared, A::Error> {
        let mut tools = Vec::new();
        while let Some(entry) = map.next_entry()? {
            tools.push(entry);
        }
        Ok(Declared(tools))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeclaredTool {
    program: String,
    #[serde(default)]
    arguments: Vec<String>,
    #[serde(default)]
    choices: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    stdin: bool,
    #[serde(default)]
    cwd: bool,
    #[serde(default)]
    env: Vec<String>,
    #[serde(default)]
    limits: DeclaredLimits,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct DeclaredLimits {
    memory_mib: Option<u64>,
    processes: Option<u64>,
    open_files: Option<u64>,
    file_size_mib: Option<u64>,
    output_mib: Option<u64>,
}

impl DeclaredLimits {
    /// The declared limits, and those of `others` for limits that aren't declared.
    fn or(&self, others: &Limits) -> Limits {
        Limits {
            memory_mib: self.memory_mib.or(others.memory_mib),
            processes: self.processes.or(others.processes),
            open_files: self.open_files.or(others.open_files),
            file_size_mib: self.file_size_mib.or(others.file_size_mib),
            output_mib: self.output_mib.or(others.output_mib),
        }
    }
}

impl Toolbox {
    /// The built-in tools and those of the tools file at `path`. If there is no such file, the built-in tools alone.
    ///
    /// # Errors
    ///
    /// Those of [`Toolbox::from_json`], and [`ToolsFileError::Read`] if the file exists but can't be read or is not
    /// a regular file.
    pub fn load(path: &Path) -> Result<Toolbox, ToolsFileError> {
        match read_bounded(path, MAX_TOOLS_FILE, Symlinks::Follow) {
            Ok(json) => Toolbox::from_json(&json),
            Err(ReadError::Failed { source, .. }) if source.kind() == ErrorKind::NotFound => {
                Ok(Toolbox::built_in())
            }
            Err(ReadError::TooLarge { .. }) => Err(ToolsFileError::TooLarge),
            Err(error) => Err(ToolsFileError::Read {
                path: path.to_owned(),
                source: error.into(),
            }),
        }
    }

    /// The built-in tools and those that a tools file declares:
    ///
    /// ```json
    /// {
    ///   "sh": true,
    ///   "tools": {
    ///     "count": {
    ///       "program": "/usr/bin/wc",
    ///       "arguments": ["{unit}", "--", "{path}"],
    ///       "choices": { "unit": ["-c", "-l"] },
    ///       "stdin": true,
    ///       "cwd": true,
    ///       "env": ["LANG", "APP_*"],
    ///       "limits": { "memory_mib": 1024 }
    ///     }
    ///   },
    ///   "limits": { "memory_mib": 256, "processes": 16, "open_files": 64, "file_size_mib": 16, "output_mib": 64 },
    ///   "files": "/work",
    ///   "defaults": { "env": { "LANG": "C" }, "cwd": "/srv", "user": { "uid": 33, "gid": 33 } }
    /// }
    /// ```
    ///
    /// Every field but `program` may be left out. A parameter's value that begins with `-` is accepted only after the
    /// argument `--`, behind a prefix (`--file={path}`), or if `choices` lists it.
    ///
    /// `stdin`, `cwd` and `env` say what a run with streams may choose for this tool: standard input, the working
    /// directory, and environment variables with these names. A name that ends with `*` is a prefix and allows every
    /// name that begins with it, except `PATH`, `HOME` and names that begin with `LD_`; these must be listed in full. A
    /// tool's own `limits` replace the `limits` of all tools ([`Limits`]).
    ///
    /// `defaults` apply to every tool: environment variables beside or in place of the guest's own, the working
    /// directory in place of `/`, and the user and group in place of 1000. A run with streams may override the
    /// variables and the directory. The user can't be root.
    ///
    /// # Errors
    ///
    /// Nothing of the file is used if it has an error:
    ///
    /// - [`ToolsFileError::TooLarge`] if it has more than 64 KiB
    /// - [`ToolsFileError::Shape`] if it isn't JSON, or has an unknown field or a value of another type
    /// - [`ToolsFileError::Tool`] if a tool's declaration breaks a rule, or its name is used twice
    /// - [`ToolsFileError::Files`] and [`ToolsFileError::Defaults`] if `files` or `defaults` can't be used
    pub fn from_json(json: &[u8]) -> Result<Toolbox, ToolsFileError> {
        if json.len() as u64 > MAX_TOOLS_FILE {
            return Err(ToolsFileError::TooLarge);
        }
        let file: ToolsFile = serde_json::from_slice(json).map_err(ToolsFileError::Shape)?;
        let mut toolbox = Toolbox::built_in();
        if file.sh {
            toolbox = toolbox.with_shell();
        }
        let refuse = |tool: &str, reason| ToolsFileError::Tool {
            tool: tool.to_owned(),
            reason,
        };
        for (name, declared) in file.tools.0 {
            if !is_name(&name) {
                return Err(refuse(&name, "names have 1 to 64 of a-z, 0-9, _ and -"));
            }
            if name == "sh" || toolbox.tools.contains_key(&name) {
                return Err(refuse(&name, "there is a tool of this name already"));
            }
            if toolbox.tools.len() == MAX_TOOLS {
                return Err(refuse(&name, "there are more than 64 tools"));
            }
            let tool = declared.check().map_err(|reason| refuse(&name, reason))?;
            toolbox.tools.insert(name, Entry::Program(tool));
        }
        toolbox.limits = file.limits.or(&Limits::default());
        let reason = file.defaults.check();
        reason.map_err(|reason| ToolsFileError::Defaults { reason })?;
        toolbox.defaults = file.defaults;
        match file.files {
            Some(files) => toolbox.with_files_directory(&files),
            None => Ok(toolbox),
        }
    }
}

impl DeclaredTool {
    fn check(self) -> Result<Tool, &'static str> {
        if !self.program.starts_with('/') {
            return Err("its program is not an absolute path");
        }
        if self.program.contains('\0') || self.program.len() > MAX_TEXT {
            return Err("its program has a NUL byte or more than 4096 bytes");
        }
        if self.arguments.len() > MAX_ARGUMENTS {
            return Err("it has more than 32 arguments");
        }
        if self.arguments.iter().any(|text| text.len() > MAX_TEXT) {
            return Err("an argument has more than 4096 bytes");
        }
        let arguments: Option<Vec<_>> = self.arguments.iter().map(|a| Argument::parse(a)).collect();
        let tool = Tool {
            program: self.program,
            arguments: arguments
                .ok_or("an argument is neither plain text nor text and one {param} at its end")?,
            choices: self.choices,
            allowed: AllowedOptions::declared(self.stdin, self.cwd, &self.env)?,
            limits: self.limits.or(&Limits::NONE),
        };
        let params = tool.params();
        if !tool
            .choices
            .keys()
            .all(|name| params.contains(name.as_str()))
        {
            return Err("it has choices for a parameter that it doesn't take");
        }
        if tool.choices.values().any(Vec::is_empty) {
            return Err("it has an empty list of choices");
        }
        Ok(tool)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::{Action, RunOptions};
    use super::*;

    #[test]
    fn declared_tools_are_offered() {
        let json = br#"{
            "sh": true,
            "tools": {"count": {
                "program": "/usr/bin/wc",
                "arguments": ["{unit}", "--total={when}", "{path}"],
                "choices": {"unit": ["-c", "-l"]}
            }},
            "limits": {"processes": 3}
        }"#;
        let toolbox = Toolbox::from_json(json).unwrap();
        let params = json!({"unit": "-l", "when": "-always", "path": "/x"});
        let call = |tool: &str, params: &Value| toolbox.call(tool, params, &RunOptions::default());
        match call("count", &params).unwrap().action {
            Action::Program { program, arguments } => {
                assert_eq!(program, "/usr/bin/wc");
                assert_eq!(arguments, ["-l", "--total=-always", "/x"]);
            }
            other => panic!("{other:?}"),
        }
        assert!(call("sh", &json!({"script": "true"})).is_ok());
        assert!(call("whoami", &json!({})).is_ok());
        assert_eq!(toolbox.limits().processes, Some(3));
        assert_eq!(toolbox.limits().memory_mib, Limits::default().memory_mib);
        assert_eq!(toolbox.files_directory(), "/work");
        let elsewhere = Toolbox::from_json(br#"{"files": "/data/in"}"#).unwrap();
        assert_eq!(elsewhere.files_directory(), "/data/in");
        let option = json!({"unit": "-l", "when": "x", "path": "-x"});
        assert!(call("count", &option).is_err());
    }

    #[test]
    fn without_a_file_there_are_the_built_in_tools() {
        let toolbox = Toolbox::load(Path::new("/nonexistent/chv-tools.json")).unwrap();
        let call = |tool: &str, params: &Value| toolbox.call(tool, params, &RunOptions::default());
        assert!(call("whoami", &json!({})).is_ok());
        assert!(call("sh", &json!({"script": "true"})).is_err());
    }

    #[test]
    fn anything_else_is_refused() {
        #[track_caller]
        fn check(json: &str, expected: &str) {
            let error = Toolbox::from_json(json.as_bytes()).unwrap_err();
            let message = crate::causes::Causes(&error).to_string();
            assert!(message.contains(expected), "{json}: {message}");
        }
        let tool = |name: &str, tool: &str| format!(r#"{{"tools": {{"{name}": {tool}}}}}"#);
        check("", "EOF");
        check("1", "invalid type");
        check("{\"shell\": true}", "unknown field");
        check("{\"sh\": 1}", "invalid type");
        check("{\"limits\": {\"memory\": 1}}", "unknown field");
        check("{\"limits\": {\"processes\": -1}}", "invalid value");
        check(
            &tool("x", r#"{"program": "/x", "limits": {"memory": 1}}"#),
            "unknown field",
        );
        check(
            &tool("x", r#"{"program": "/x", "stdin": 1}"#),
            "invalid type",
        );
        check(
            &tool("x", r#"{"program": "/x", "env": ["A*B"]}"#),
            "neither a name",
        );
        check("{\"files\": \"work\"}", "not an absolute path");
        check("{\"files\": \"/a/../b\"}", "\"..\"");
        check("{\"files\": \"/a\\u0000\"}", "NUL");
        check(&tool("x", "{}"), "missing field `program`");
        check(
            &tool("x", r#"{"program": "/x", "shell": true}"#),
            "unknown field",
        );
        check(&tool("x", r#"{"program": "x"}"#), "not an absolute path");
        check(&tool("x", r#"{"program": "/\u0000"}"#), "NUL");
        check(
            &tool("x", r#"{"program": "/x", "arguments": ["{a}{b}"]}"#),
            "neither",
        );
        check(
            &tool("x", r#"{"program": "/x", "choices": {"a": ["b"]}}"#),
            "doesn't take",
        );
        check(
            &tool(
                "x",
                r#"{"program": "/x", "arguments": ["{a}"], "choices": {"a": []}}"#,
            ),
            "empty list",
        );
        check(&tool("echo", r#"{"program": "/x"}"#), "of this name");
        check(&tool("sh", r#"{"program": "/x"}"#), "of this name");
        let twice = r#"{"tools": {"x": {"program": "/x"}, "x": {"program": "/y"}}}"#;
        check(twice, "of this name");
        check(&tool("a b", r#"{"program": "/x"}"#), "names have");
        check(&" ".repeat(64 * 1024 + 1), "more than 65536 bytes");
        let many: Vec<String> = (0..64)
            .map(|n| format!(r#""t{n}": {{"program": "/x"}}"#))
            .collect();
        check(
            &format!(r#"{{"tools": {{{}}}}}"#, many.join(",")),
            "more than 64",
        );
        let arguments = vec![r#""a""#; 33].join(",");
        check(
            &tool(
                "x",
                &format!(r#"{{"program": "/x", "arguments": [{arguments}]}}"#),
            ),
            "more than 32",
        );
    }
}
