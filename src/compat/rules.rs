//! The rules of the comparison, as data.
//!
//! The *base* is the contract that a client was built for, and the *revision* is the contract that it would be used
//! with (see [`Report`](super::Report)). A rule says what one kind of change from base to revision means to that
//! client. Two principles give the whole table: the server must still accept the client's requests, and its responses
//! must still be as the base promised. So a change that allows more is harmless in a request and breaks a response. A
//! change that allows less breaks a request and is harmless in a response.
//!
//! Each rule has a pair of documents in `fixtures/compat/<id>/` that trigger it, and the findings that are expected.

use super::{Direction, Level};

/// The meaning of one kind of change, from the base to the revision, to a client that was built for the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The name of the rule, which never changes. It is the `id` of a finding.
    pub id: &'static str,
    /// The level of the findings.
    pub level: Level,
    /// The direction in which the changed part is sent.
    pub direction: Direction,
    /// The part of the contract that changed.
    pub area: Area,
    /// How the part changed.
    pub action: Action,
    /// The reason for the level, in one sentence.
    pub why: &'static str,
}

/// The parts of a contract that can change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Area {
    /// The path of the server's address, which is the base of every path.
    BasePath,
    /// A path with all its methods.
    Endpoint,
    /// One method of a path that still exists.
    Method,
    /// The deprecation of an endpoint or of a schema.
    Deprecation,
    /// The body of a request or of a response.
    Body,
    /// A required body that is new.
    RequiredBody,
    /// Whether a body is required.
    BodyRequired,
    /// A media type of a body that still exists, or a range of media types.
    MediaType,
    /// A status from 200 to 299, or the class of these statuses.
    SuccessStatus,
    /// Any other status or class, or `default`.
    ErrorStatus,
    /// A property of an object.
    Property,
    /// A required property that is new.
    RequiredProperty,
    /// Whether a property is required.
    PropertyRequired,
    /// The type of a body or of a property.
    Type,
    /// The type of a list's items.
    Items,
    /// The type of a map's values.
    MapValues,
    /// A reference that leads to another schema, while both documents have both schemas.
    Reference,
    /// The format of a number or of a string.
    Format,
    /// The list of allowed values as a whole.
    Enum,
    /// One of the allowed values.
    EnumValue,
    /// The value that the server uses if the request has none.
    Default,
    /// Whether `null` is allowed.
    Null,
    /// The minimum of a number.
    Minimum,
    /// The maximum of a number.
    Maximum,
    /// The pattern of a string.
    Pattern,
    /// Any other restriction: a length, a count, a multiple, uniqueness, or unnamed properties.
    Constraint,
}

/// How a part of a contract changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// The part is new.
    Added,
    /// The part is gone.
    Removed,
    /// The part changed, and neither form allows everything that the other allows.
    Changed,
    /// The new form allows everything that the old form allows, and more.
    Widened,
    /// The new form allows less than the old form, and nothing new.
    Narrowed,
    /// The part changed in a way that does not break a client.
    Compatible,
    /// The part changed, and the document is not enough to decide the effect.
    Doubtful,
}

impl Action {
    /// Returns the action of the reverse change.
    pub const fn inverse(self) -> Action {
        match self {
            Action::Added => Action::Removed,
            Action::Removed => Action::Added,
            Action::Widened => Action::Narrowed,
            Action::Narrowed => Action::Widened,
            Action::Changed | Action::Compatible | Action::Doubtful => self,
        }
    }
}

/// Returns the rule for a change, if there is one.
pub fn rule(direction: Direction, area: Area, action: Action) -> Option<&'static Rule> {
    RULES
        .iter()
        .find(|rule| (rule.direction, rule.area, rule.action) == (direction, area, action))
}

const fn row(
    id: &'static str,
    level: Level,
    direction: Direction,
    area: Area,
    action: Action,
    why: &'static str,
) -> Rule {
    Rule {
        id,
        level,
        direction,
        area,
        action,
        why,
    }
}

use Action::{Added, Changed, Compatible, Doubtful, Narrowed, Removed, Widened};
use Direction::{Request, Response};
use Level::{Breaking, Info, Warning};

/// Every rule, grouped by the part that changed.
#[rustfmt::skip]
pub const RULES: &[Rule] = &[
    row("base-path-removed", Breaking, Request, Area::BasePath, Removed, "Calls below it fail."),
    row("base-path-added", Info, Request, Area::BasePath, Added, "No client of the base calls anything below it."),
    row("endpoint-removed", Breaking, Request, Area::Endpoint, Removed, "Calls to it fail."),
    row("endpoint-added", Info, Request, Area::Endpoint, Added, "No client of the base calls it."),
    row("method-removed", Breaking, Request, Area::Method, Removed, "Calls with it fail."),
    row("method-added", Info, Request, Area::Method, Added, "No client of the base uses it."),

    row("request-body-removed", Breaking, Request, Area::Body, Removed, "A client's value is refused or lost."),
    row("request-body-added", Info, Request, Area::Body, Added, "It may be left out."),
    row("request-required-body-added", Breaking, Request, Area::RequiredBody, Added, "A client of the base sends none and is refused."),
    row("request-body-became-required", Breaking, Request, Area::BodyRequired, Added, "A client that leaves it out is refused."),
    row("request-body-became-optional", Info, Request, Area::BodyRequired, Removed, "A client that sends it still may."),
    row("response-body-removed", Breaking, Response, Area::Body, Removed, "A client expects a body and gets none."),
    row("response-body-added", Info, Response, Area::Body, Added, "No client of the base reads it."),
    row("request-media-type-removed", Breaking, Request, Area::MediaType, Removed, "A client's request is refused."),
    row("request-media-type-added", Info, Request, Area::MediaType, Added, "No client of the base sends it."),
    row("request-media-type-narrowed", Breaking, Request, Area::MediaType, Narrowed, "Some values that a client may send are refused."),
    row("request-media-type-widened", Info, Request, Area::MediaType, Widened, "A client's request is still allowed."),
    row("response-media-type-removed", Breaking, Response, Area::MediaType, Removed, "A client cannot read the type that is sent instead."),
    row("response-media-type-added", Info, Response, Area::MediaType, Added, "The type that a client reads is still there."),
    row("response-media-type-narrowed", Info, Response, Area::MediaType, Narrowed, "A client still gets only what it expects."),
    row("response-media-type-widened", Breaking, Response, Area::MediaType, Widened, "A client may get a value that it cannot read."),
    row("success-status-removed", Breaking, Response, Area::SuccessStatus, Removed, "A client takes any other status for a failure."),
    row("success-status-added", Info, Response, Area::SuccessStatus, Added, "The statuses that a client knows are still there."),
    row("success-status-narrowed", Info, Response, Area::SuccessStatus, Narrowed, "A client has fewer statuses to handle, and one of success remains."),
    row("error-status-removed", Info, Response, Area::ErrorStatus, Removed, "A client has one case less to handle."),
    row("error-status-added", Info, Response, Area::ErrorStatus, Added, "A client takes an error status that it doesn't know for a failure."),

    row("request-property-removed", Breaking, Request, Area::Property, Removed, "The server ignores a property that it doesn't know, so a client's value is lost without an error."),
    row("request-property-added", Info, Request, Area::Property, Added, "It may be left out."),
    row("request-required-property-added", Breaking, Request, Area::RequiredProperty, Added, "A client of the base leaves it out and is refused, whether or not there is a default."),
    row("response-property-removed", Breaking, Response, Area::Property, Removed, "A client that reads it finds nothing."),
    row("response-property-added", Info, Response, Area::Property, Added, "A client ignores it."),
    row("request-property-became-required", Breaking, Request, Area::PropertyRequired, Added, "A client that leaves it out is refused."),
    row("request-property-became-optional", Info, Request, Area::PropertyRequired, Removed, "A client that sends it still may."),
    row("response-property-became-required", Info, Response, Area::PropertyRequired, Added, "A client has one case less to handle."),
    row("response-property-became-optional", Breaking, Response, Area::PropertyRequired, Removed, "A client that relies on it finds nothing."),

    row("request-type-changed", Breaking, Request, Area::Type, Changed, "A client's request is refused."),
    row("request-type-narrowed", Breaking, Request, Area::Type, Narrowed, "Some values that a client may send are refused."),
    row("request-type-widened", Info, Request, Area::Type, Widened, "A client's request is still allowed."),
    row("response-type-changed", Breaking, Response, Area::Type, Changed, "A client cannot read it."),
    row("response-type-narrowed", Info, Response, Area::Type, Narrowed, "A client still gets only what it expects."),
    row("response-type-widened", Breaking, Response, Area::Type, Widened, "A client may get a value that it cannot read."),
    row("request-items-changed", Breaking, Request, Area::Items, Changed, "A client's request is refused."),
    row("request-items-narrowed", Breaking, Request, Area::Items, Narrowed, "Some values that a client may send are refused."),
    row("request-items-widened", Info, Request, Area::Items, Widened, "A client's request is still allowed."),
    row("response-items-changed", Breaking, Response, Area::Items, Changed, "A client cannot read them."),
    row("response-items-narrowed", Info, Response, Area::Items, Narrowed, "A client still gets only what it expects."),
    row("response-items-widened", Breaking, Response, Area::Items, Widened, "A client may get a value that it cannot read."),
    row("request-map-values-changed", Breaking, Request, Area::MapValues, Changed, "A client's request is refused."),
    row("request-map-values-narrowed", Breaking, Request, Area::MapValues, Narrowed, "Some values that a client may send are refused."),
    row("request-map-values-widened", Info, Request, Area::MapValues, Widened, "A client's request is still allowed."),
    row("response-map-values-changed", Breaking, Response, Area::MapValues, Changed, "A client cannot read them."),
    row("response-map-values-narrowed", Info, Response, Area::MapValues, Narrowed, "A client still gets only what it expects."),
    row("response-map-values-widened", Breaking, Response, Area::MapValues, Widened, "A client may get a value that it cannot read."),

    row("request-reference-changed", Breaking, Request, Area::Reference, Changed, "A client's value is refused or lost."),
    row("request-reference-doubtful", Warning, Request, Area::Reference, Doubtful, "A property that a client leaves out may have another default."),
    row("request-reference-compatible", Info, Request, Area::Reference, Compatible, "A client's request is still allowed."),
    row("response-reference-changed", Breaking, Response, Area::Reference, Changed, "A client cannot read it, or misses a part."),
    row("response-reference-compatible", Info, Response, Area::Reference, Compatible, "A client still gets only what it expects."),
    row("response-reference-doubtful", Warning, Response, Area::Reference, Doubtful, "A client may get a value that it doesn't know."),

    row("request-format-changed", Breaking, Request, Area::Format, Changed, "Some values that a client may send are refused."),
    row("request-format-narrowed", Breaking, Request, Area::Format, Narrowed, "Some values that a client may send are refused."),
    row("request-format-widened", Info, Request, Area::Format, Widened, "A client's request is still allowed."),
    row("response-format-changed", Breaking, Response, Area::Format, Changed, "A client may get a value that it cannot hold."),
    row("response-format-narrowed", Info, Response, Area::Format, Narrowed, "A client still gets only what it expects."),
    row("response-format-widened", Breaking, Response, Area::Format, Widened, "A client may get a value that it cannot hold."),
    row("request-minimum-narrowed", Breaking, Request, Area::Minimum, Narrowed, "Some values that a client may send are refused."),
    row("request-minimum-widened", Info, Request, Area::Minimum, Widened, "A client's request is still allowed."),
    row("response-minimum-narrowed", Info, Response, Area::Minimum, Narrowed, "A client still gets only what it expects."),
    row("response-minimum-widened", Breaking, Response, Area::Minimum, Widened, "A client may get a value that it does not expect."),
    row("request-maximum-narrowed", Breaking, Request, Area::Maximum, Narrowed, "Some values that a client may send are refused."),
    row("request-maximum-widened", Info, Request, Area::Maximum, Widened, "A client's request is still allowed."),
    row("response-maximum-narrowed", Info, Response, Area::Maximum, Narrowed, "A client still gets only what it expects."),
    row("response-maximum-widened", Breaking, Response, Area::Maximum, Widened, "A client may get a value that it does not expect."),
    row("request-constraint-changed", Breaking, Request, Area::Constraint, Changed, "Some values that a client may send are refused."),
    row("request-constraint-narrowed", Breaking, Request, Area::Constraint, Narrowed, "Some values that a client may send are refused."),
    row("request-constraint-widened", Info, Request, Area::Constraint, Widened, "A client's request is still allowed."),
    row("response-constraint-changed", Breaking, Response, Area::Constraint, Changed, "A client may get a value that it does not expect."),
    row("response-constraint-narrowed", Info, Response, Area::Constraint, Narrowed, "A client still gets only what it expects."),
    row("response-constraint-widened", Breaking, Response, Area::Constraint, Widened, "A client may get a value that it does not expect."),
    row("request-pattern-added", Breaking, Request, Area::Pattern, Added, "Some values that a client may send are refused."),
    row("request-pattern-changed", Warning, Request, Area::Pattern, Changed, "The texts that two patterns allow are not compared."),
    row("request-pattern-removed", Info, Request, Area::Pattern, Removed, "A client's request is still allowed."),
    row("response-pattern-added", Info, Response, Area::Pattern, Added, "A client reads a text whatever its pattern."),
    row("response-pattern-changed", Info, Response, Area::Pattern, Changed, "A client reads a text whatever its pattern."),
    row("response-pattern-removed", Info, Response, Area::Pattern, Removed, "A client reads a text whatever its pattern."),

    row("request-enum-added", Breaking, Request, Area::Enum, Added, "Every value was allowed; those not in the list are refused."),
    row("request-enum-removed", Info, Request, Area::Enum, Removed, "A client's request is still allowed."),
    row("response-enum-added", Info, Response, Area::Enum, Added, "A client still gets only what it expects."),
    row("response-enum-removed", Warning, Response, Area::Enum, Removed, "A client may get a value that it doesn't know; the document does not say whether it can handle that."),
    row("request-enum-value-removed", Breaking, Request, Area::EnumValue, Removed, "A client that sends it is refused."),
    row("request-enum-value-added", Info, Request, Area::EnumValue, Added, "No client of the base sends it."),
    row("response-enum-value-removed", Info, Response, Area::EnumValue, Removed, "A client has one case less to handle."),
    row("response-enum-value-added", Warning, Response, Area::EnumValue, Added, "A client may get a value that it doesn't know; the document does not say whether it can handle that."),
    row("request-default-added", Info, Request, Area::Default, Added, "The base made no promise for an absent value."),
    row("request-default-changed", Warning, Request, Area::Default, Changed, "A client that leaves the value out gets another."),
    row("request-default-removed", Warning, Request, Area::Default, Removed, "The document no longer says which value is used if a client sends none."),
    row("response-default-added", Info, Response, Area::Default, Added, "A client reads the value that is sent."),
    row("response-default-changed", Info, Response, Area::Default, Changed, "A client reads the value that is sent."),
    row("response-default-removed", Info, Response, Area::Default, Removed, "A client reads the value that is sent."),
    row("request-null-removed", Breaking, Request, Area::Null, Removed, "A client that sends `null` is refused."),
    row("request-null-added", Info, Request, Area::Null, Added, "A client's request is still allowed."),
    row("response-null-removed", Info, Response, Area::Null, Removed, "A client has one case less to handle."),
    row("response-null-added", Breaking, Response, Area::Null, Added, "A client may get `null` where it expects a value."),
    row("request-deprecation-added", Info, Request, Area::Deprecation, Added, "It works as before."),
    row("request-deprecation-removed", Info, Request, Area::Deprecation, Removed, "It works as before."),
    row("response-deprecation-added", Info, Response, Area::Deprecation, Added, "It is there as before."),
    row("response-deprecation-removed", Info, Response, Area::Deprecation, Removed, "It is there as before."),
];
