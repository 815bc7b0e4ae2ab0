//! [`Target`]: a place in a contract's schemas, as a correction writes it.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

use super::super::{Contract, Schema, Shape};
use super::Problem;

/// A place in the schemas of a contract: a schema (`VmState`), a property (`DiskConfig.path`), the items of a list
/// (`CpuAffinity.host_cpus[]`) or the values of a map (`VmCounters{}`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Target {
    schema: String,
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Property(String),
    Items,
    Values,
}

/// The text does not have the form of a place in a schema.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a place in a schema: expected `Schema`, `Schema.property`, `Schema.list[]` or `Schema.map{{}}`"
)]
pub struct ParseTargetError(String);

impl FromStr for Target {
    type Err = ParseTargetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || ParseTargetError(text.to_owned());
        let name_at = |rest: &str| rest.find(['.', '[', '{']).unwrap_or(rest.len());
        let (schema, mut rest) = text.split_at(name_at(text));
        let mut steps = Vec::new();
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix("[]") {
                steps.push(Step::Items);
                rest = after;
            } else if let Some(after) = rest.strip_prefix("{}") {
                steps.push(Step::Values);
                rest = after;
            } else {
                let after = rest.strip_prefix('.').ok_or_else(invalid)?;
                let (property, after) = after.split_at(name_at(after));
                if property.is_empty() {
                    return Err(invalid());
                }
                steps.push(Step::Property(property.to_owned()));
                rest = after;
            }
        }
        if schema.is_empty() {
            return Err(invalid());
        }
        Ok(Target {
            schema: schema.to_owned(),
            steps,
        })
    }
}

impl Target {
    /// Returns the place as a JSON pointer into the document: `/components/schemas/DiskConfig/properties/path`.
    pub fn pointer(&self) -> String {
        let escaped = |name: &str| name.replace('~', "~0").replace('/', "~1");
        let mut pointer = format!("/components/schemas/{}", escaped(&self.schema));
        for step in &self.steps {
            match step {
                Step::Property(name) => pointer += &format!("/properties/{}", escaped(name)),
                Step::Items => pointer += "/items",
                Step::Values => pointer += "/additionalProperties",
            }
        }
        pointer
    }
}

impl TryFrom<String> for Target {
    type Error = ParseTargetError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.schema)?;
        self.steps.iter().try_for_each(|step| match step {
            Step::Property(name) => write!(f, ".{name}"),
            Step::Items => f.write_str("[]"),
            Step::Values => f.write_str("{}"),
        })
    }
}

impl Target {
    /// Returns the schema at this place.
    pub(super) fn find<'c>(&self, contract: &'c mut Contract) -> Result<&'c mut Schema, Problem> {
        let root = contract
            .schemas
            .get_mut(&self.schema)
            .ok_or(Problem::Absent)?;
        self.steps
            .iter()
            .try_fold(root, |schema, step| match (step, &mut schema.shape) {
                (Step::Property(name), Shape::Object { properties, .. }) => {
                    properties.get_mut(name).ok_or(Problem::Absent)
                }
                (Step::Items, Shape::Array(items)) => Ok(&mut **items),
                (Step::Values, Shape::Map(values)) => Ok(&mut **values),
                _ => Err(Problem::Absent),
            })
    }

    /// Splits the place of a property into the object's place and the property's name.
    pub(super) fn split(&self) -> Result<(Target, &str), Problem> {
        match self.steps.split_last() {
            Some((Step::Property(name), steps)) => Ok((
                Target {
                    schema: self.schema.clone(),
                    steps: steps.to_vec(),
                },
                name,
            )),
            _ => Err(Problem::WrongKind("schema without a name in an object")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_read_and_written_back() {
        fn check(text: &str, valid: bool) {
            match text.parse::<Target>() {
                Ok(target) => assert_eq!((target.to_string().as_str(), valid), (text, true)),
                Err(error) => assert!(!valid, "{error}"),
            }
        }
        check("VmState", true);
        check("VmConfig.generic-vhost-user", true);
        check("CpuAffinity.host_cpus[]", true);
        check("VmCounters{}{}", true);
        check("NumaConfig.distances[].distance", true);
        check("", false);
        check(".x", false);
        check("X.", false);
        check("X[0]", false);
        check("X{", false);
    }
}
