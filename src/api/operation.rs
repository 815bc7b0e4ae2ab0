//! Converts operations to and from their names.

use std::fmt;
use std::str::FromStr;

use super::Operation;

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text is no operation's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no operation of the VMM's API; they are named as in the document, for instance vm.info"
)]
pub struct UnknownOperation(String);

impl FromStr for Operation {
    type Err = UnknownOperation;

    /// The operation with this [`name`](Operation::name).
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Operation::ALL
            .iter()
            .find(|operation| operation.name() == name);
        found
            .copied()
            .ok_or_else(|| UnknownOperation(name.to_owned()))
    }
}
