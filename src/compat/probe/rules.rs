//! The rules of the probe, as data.

use crate::compat::{Direction, Level};
use Direction::{Request, Response};
use Level::{Breaking, Info, Warning};

/// A rule of the probe: the name of its findings and their level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The identifier, which is the `id` of a finding.
    pub id: &'static str,
    /// The level for a client that was built for the base.
    pub level: Level,
    /// Whether the finding is about the client's requests or the server's responses.
    pub direction: Direction,
    /// The meaning of the finding.
    pub about: &'static str,
}

macro_rules! rules {
    ($($name:ident = $id:literal, $level:ident, $direction:ident, $about:literal;)*) => {
        $(pub(super) const $name: Rule = Rule {
            id: $id,
            level: $level,
            direction: $direction,
            about: $about,
        };)*

        /// Every rule of the probe.
        pub const RULES: &[Rule] = &[$($name),*];
    };
}

rules! {
    // Served paths.
    ROUTE_MISSING = "observed-route-missing", Breaking, Request, "the contract has a path that is not served";
    ROUTE_NOT_BUILT = "observed-route-not-built", Info, Request, "the contract has a path that default builds of the release don't serve, and neither does this one";
    ROUTE_ADDED = "observed-route-added", Info, Request, "a path is served that the contract doesn't have";
    // Outcomes of requests.
    REFUSED = "observed-refused", Breaking, Request, "the server refuses a request that the recorded release accepts";
    ACCEPTED = "observed-accepted", Warning, Request, "the server accepts a request that the recorded release refuses";
    UNREACHED = "observed-unreached", Warning, Response, "a state that the recorded release reached could not be reached here, for any reason";
    VMM_GONE = "observed-vmm-gone", Breaking, Response, "the VMM ends on a request that the recorded release answers";
    ERROR_KIND = "observed-error-kind", Warning, Response, "the client takes an error for another kind than on the recorded release";
    ERROR_SHAPE = "observed-error-shape", Breaking, Response, "the body of an error has another form than on the recorded release";
    STATUS_CHANGED = "observed-status-changed", Info, Response, "the same outcome has another status than on the recorded release";
    // Responses compared with the contract.
    SUCCESS_STATUS = "observed-success-status", Breaking, Response, "a success has a status that the contract doesn't have";
    ERROR_STATUS = "observed-error-status", Info, Response, "an error has a status that the contract doesn't have";
    BODY_MISSING = "observed-body-missing", Breaking, Response, "a response lacks the body of the contract";
    BODY_ADDED = "observed-body-added", Info, Response, "a response has a body where the contract has none";
    NOT_JSON = "observed-not-json", Breaking, Response, "the body of a success is not JSON";
    TYPE = "observed-type", Breaking, Response, "a field has another type than in the contract";
    NULL = "observed-null", Breaking, Response, "a field is null where the contract doesn't allow it";
    NULL_OPTIONAL = "observed-null-optional", Info, Response, "an optional field that is not set is null, and the contract doesn't say so";
    ENUM_VALUE = "observed-enum-value", Warning, Response, "a field has a value that the contract doesn't list";
    RANGE = "observed-range", Breaking, Response, "a number doesn't fit the contract's format or bounds";
    REQUIRED_MISSING = "observed-required-missing", Breaking, Response, "a field is missing that the contract requires";
    FIELD_UNDOCUMENTED = "observed-field-undocumented", Info, Response, "a field is emitted that the contract doesn't have";
    // Responses compared with the recorded ones.
    FIELD_MISSING = "observed-field-missing", Breaking, Response, "a field that the recorded release emits is missing";
    FIELD_TYPE = "observed-field-type", Breaking, Response, "a field has another type than on the recorded release";
    // Fields of requests.
    FIELD_LOST = "observed-field-lost", Breaking, Request, "the server ignores a field of the contract and reports no error";
    FIELD_KNOWN = "observed-field-known", Info, Request, "the server reads a field that only the contract of another release has";
    FIELD_REFUSED = "observed-field-refused", Breaking, Request, "a value that the contract allows is refused";
    FIELD_REQUIRED = "observed-field-required", Breaking, Request, "a request is refused without a field that the contract doesn't require";
    FIELD_OPTIONAL = "observed-field-optional", Info, Request, "a request is accepted without a field that the contract requires";
    // Limits.
    LIMIT_LOWER = "observed-limit-lower", Breaking, Request, "a limit is lower than on the recorded release";
    LIMIT_HIGHER = "observed-limit-higher", Info, Request, "a limit is higher than on the recorded release";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_rule_has_a_name_of_its_own() {
        let names: BTreeSet<_> = RULES.iter().map(|rule| rule.id).collect();
        assert_eq!(names.len(), RULES.len());
        assert!(names.iter().all(|name| name.starts_with("observed-")));
    }
}
