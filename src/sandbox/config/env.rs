//! [`VmmEnv`]: the extra environment of a VMM's process.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error};
use toml::Value;

/// Extra environment variables of a VMM's process: values by name.
///
/// The values may be secrets. `Debug` shows the names alone, and no error of
/// [`SandboxConfig::from_toml`](super::SandboxConfig::from_toml) shows a value. If a configuration is part of another
/// document, the parser of that document may quote a whole line in an error of its own.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct VmmEnv(pub BTreeMap<String, String>);

impl VmmEnv {
    /// The first reason why a process can't be given this environment, for
    /// [`ConfigError::Invalid`](super::ConfigError).
    pub(super) fn first_illegal(&self) -> Option<String> {
        self.0.iter().find_map(|(name, value)| {
            // A name such as `TOKEN=secret` may hold a value, so only the part before `=` is shown.
            let begin = name.split('=').next().unwrap_or_default();
            if name.contains('=') {
                Some(format!("has a name with `=` in it, after {begin:?}"))
            } else if name.is_empty() {
                Some("has a variable without a name".to_owned())
            } else if name.contains('\0') || value.contains('\0') {
                Some(format!("has a NUL character in {name:?}"))
            } else {
                None
            }
        })
    }
}

impl fmt::Debug for VmmEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for VmmEnv {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        let variables = variables.into_iter();
        VmmEnv(
            variables
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        )
    }
}

/// A derived implementation would quote a value of the wrong type in its error. This one names only the variable.
impl<'de> Deserialize<'de> for VmmEnv {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Value::Table(variables) = Value::deserialize(deserializer)? else {
            let expected = "expected a table of names and values, such as { NAME = \"value\" }";
            return Err(D::Error::custom(expected));
        };
        let variables = variables.into_iter().map(|(name, value)| match value {
            Value::String(value) => Ok((name, value)),
            _ => {
                let message = format!("expected a text in quotes as the value of `{name}`");
                Err(D::Error::custom(message))
            }
        });
        variables.collect::<Result<_, _>>().map(VmmEnv)
    }
}
