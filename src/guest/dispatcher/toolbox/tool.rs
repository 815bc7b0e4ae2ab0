//! [`Tool`], one tool of a toolbox: a program with fixed arguments, some of which end in the value of a named
//! parameter.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::Limits;
use super::run_options::AllowedOptions;

/// The most bytes of one parameter's value: 64 KiB. The kernel accepts at most 128 KiB for one argument
/// (`MAX_ARG_STRLEN`).
pub(crate) const MAX_PARAM: usize = 64 * 1024;

#[derive(Clone, Debug)]
pub(super) struct Tool {
    /// An absolute path inside the tools' root. For a built-in tool: a name that is searched for in `PATH`.
    pub(super) program: String,
    pub(super) arguments: Vec<Argument>,
    /// For each restricted parameter, the only values that it may have.
    pub(super) choices: BTreeMap<String, Vec<String>>,
    pub(super) allowed: AllowedOptions,
    /// Limits that replace those of all tools.
    pub(super) limits: Limits,
}

impl Tool {
    /// A built-in tool. A test checks that all of their arguments can be parsed.
    pub(super) fn new(program: &str, arguments: &[&str]) -> Tool {
        let parse = |text: &&str| {
            Argument::parse(text).unwrap_or_else(|| Argument::Literal((*text).to_owned()))
        };
        Tool {
            program: program.to_owned(),
            arguments: arguments.iter().map(parse).collect(),
            choices: BTreeMap::new(),
            allowed: AllowedOptions::default(),
            limits: Limits::NONE,
        }
    }

    pub(super) fn choose(mut self, param: &str, values: &[&str]) -> Tool {
        let values = values.iter().map(|value| (*value).to_owned()).collect();
        self.choices.insert(param.to_owned(), values);
        self
    }

    pub(super) fn params(&self) -> BTreeSet<&str> {
        self.arguments.iter().filter_map(Argument::param).collect()
    }

    pub(super) fn arguments(&self, params: &Map<String, Value>) -> Result<Vec<String>, String> {
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
        Ok(arguments)
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
pub(super) enum Argument {
    Literal(String),
    /// `prefix`, followed by the value of the parameter `name`.
    Param {
        prefix: String,
        name: String,
    },
}

impl Argument {
    /// Parses `text`, `{name}` or `prefix{name}`. `None` if there are other braces, or a NUL byte.
    pub(super) fn parse(text: &str) -> Option<Argument> {
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

/// Whether this can be the name of a tool or a parameter: 1 to 64 of `a-z`, `0-9`, `_`, `-`.
pub(super) fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
