//! What stands behind `--`: the tool and its parameters.

use std::ffi::OsString;

use clap::Parser;
use serde_json::{Map, Value};

use crate::cli::{Failure, usage};

/// The tool and its parameters.
pub(super) struct ToolLine {
    pub(super) tool: String,
    pub(super) params: Value,
}

#[derive(Parser)]
#[command(name = "run", no_binary_name = true, disable_help_flag = true)]
struct Line {
    /// The tool's name.
    tool: String,
    /// A parameter that is a text.
    #[arg(long = "param", value_name = "NAME=TEXT", allow_hyphen_values = true, value_parser = text)]
    texts: Vec<(String, Value)>,
    /// A parameter of another kind.
    #[arg(long = "json", value_name = "NAME=JSON", allow_hyphen_values = true, value_parser = json)]
    values: Vec<(String, Value)>,
}

impl ToolLine {
    /// Reads the words behind `--`.
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
