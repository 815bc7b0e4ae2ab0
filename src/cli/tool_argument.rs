//! [`ToolLine`]: a tool and its parameters on a command line, either the words after `--` or one quoted argument.

use std::ffi::OsString;
use std::time::Duration;

use chv_sandbox::sanitize;
use clap::Parser;
use jiff::SignedDuration;
use serde_json::{Map, Value};

use crate::cli::{Failure, usage};

/// The tool and its parameters.
#[derive(Clone, Debug)]
pub(super) struct ToolLine {
    pub(super) tool: String,
    pub(super) params: Value,
}

#[derive(Parser)]
#[command(name = "run", no_binary_name = true, disable_help_flag = true)]
struct Line {
    /// The tool's name.
    tool: String,
    /// A parameter whose value is a string.
    #[arg(long = "param", value_name = "NAME=TEXT", allow_hyphen_values = true, value_parser = text)]
    texts: Vec<(String, Value)>,
    /// A parameter whose value is any JSON.
    #[arg(long = "json", value_name = "NAME=JSON", allow_hyphen_values = true, value_parser = json)]
    values: Vec<(String, Value)>,
}

impl ToolLine {
    /// Parses the words after `--`.
    pub(super) fn parse(words: &[OsString]) -> Result<ToolLine, Failure> {
        let line = Line::try_parse_from(words)?;
        let mut params = Map::new();
        for (name, value) in line.texts.into_iter().chain(line.values) {
            if params.insert(name.clone(), value).is_some() {
                let message = format_args!("the parameter {name} is given twice");
                return Err(usage("run", message));
            }
        }
        Ok(ToolLine {
            tool: line.tool,
            params: Value::Object(params),
        })
    }

    /// Parses one argument that holds all words, quoted as for a shell.
    pub(super) fn split(line: &str) -> Result<ToolLine, String> {
        let words = shlex::split(line).ok_or("a quote in it is not closed")?;
        let words: Vec<_> = words.into_iter().map(OsString::from).collect();
        ToolLine::parse(&words).map_err(|failure| {
            let said = failure.to_string();
            let first = said.lines().next().unwrap_or_default();
            let first = first.strip_prefix("error: ").unwrap_or(first);
            sanitize::line(first, 200)
        })
    }
}

/// Parses a time limit, such as 90s or 5m.
pub(super) fn duration(text: &str) -> Result<Duration, &'static str> {
    let parsed: Result<SignedDuration, _> = text.parse();
    let parsed = parsed.map_err(|_| "give a number and a unit, such as 5s or 250ms")?;
    Duration::try_from(parsed).map_err(|_| "it is negative")
}

fn named(text: &str) -> Result<(String, &str), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value)),
        _ => Err("it is not NAME=VALUE".to_owned()),
    }
}

fn text(argument: &str) -> Result<(String, Value), String> {
    let (name, value) = named(argument)?;
    Ok((name, Value::from(value)))
}

fn json(argument: &str) -> Result<(String, Value), String> {
    let (name, value) = named(argument)?;
    let value = serde_json::from_str(value).map_err(|error| error.to_string())?;
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(words: &[&str]) -> Result<(String, Value), String> {
        let words: Vec<_> = words.iter().map(OsString::from).collect();
        match ToolLine::parse(&words) {
            Ok(line) => Ok((line.tool, line.params)),
            Err(failure) => Err(failure.to_string()),
        }
    }

    #[test]
    fn parameters_are_texts_unless_they_are_json() {
        let line = parse(&[
            "sh",
            "--param",
            "script=a=b --c",
            "--json",
            "n=[1, null]",
            "--param=e=",
        ]);
        let params = json!({ "script": "a=b --c", "n": [1, null], "e": "" });
        assert_eq!(line, Ok(("sh".to_owned(), params)));
        assert_eq!(parse(&["whoami"]), Ok(("whoami".to_owned(), json!({}))));
        assert_eq!(
            parse(&["echo", "--param", "message=-x"]).unwrap().1,
            json!({ "message": "-x" })
        );
    }

    #[test]
    fn a_line_is_split_as_a_shell_splits_it() {
        let line = ToolLine::split("sh --param 'script=import json, re' --json n=1").unwrap();
        assert_eq!(line.tool, "sh");
        assert_eq!(line.params, json!({ "script": "import json, re", "n": 1 }));
        for (line, said) in [
            ("", "required"),
            ("sh --param 'script=x", "not closed"),
            ("sh --param script", "NAME=VALUE"),
            ("sh more", "unexpected argument"),
            ("sh --param a=1 --param a=2", "given twice"),
        ] {
            let error = ToolLine::split(line).unwrap_err();
            assert!(error.contains(said) && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn anything_else_is_wrong_usage() {
        #[track_caller]
        fn check(words: &[&str], said: &str) {
            let error = parse(words).unwrap_err();
            assert!(error.contains(said), "{words:?}: {error}");
        }
        check(&["sh", "--param", "script"], "NAME=VALUE");
        check(&["sh", "--param", "=x"], "NAME=VALUE");
        check(&["sh", "--json", "n=x"], "expected value");
        check(&["sh", "--param", "a=1", "--json", "a=1"], "given twice");
        check(&["sh", "-c", "true"], "unexpected argument");
        check(&["sh", "more"], "unexpected argument");
        check(&["--param", "a=1"], "required");
    }
}
