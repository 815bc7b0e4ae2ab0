//! The extra environment of a VMM's process.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error};
use toml::Value;

/// Extra environment of a VMM's process, by name. Its values may be secrets: neither `Debug` nor an error of
/// [`SandboxConfig::from_toml`](super::SandboxConfig::from_toml) shows them. A parser that reads a configuration inside of
/// another document may quote the whole line in an error of its own.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct VmmEnv(pub BTreeMap<String, String>);

impl VmmEnv {
    /// Why the environment can't be given to a process.
    pub(super) fn fault(&self) -> Option<String> {
        self.0.iter().find_map(|(name, value)| {
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

/// The usual message about a value of the wrong kind quotes it. These messages don't.
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
