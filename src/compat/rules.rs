//! The rules of the comparison, as data.
//!
//! A rule says what one kind of change means to a client that was built for the base. What follows from the whole
//! table: what a client sends must still be taken, and what it reads must still be what it was promised. So a change
//! that widens what is allowed is harmless in a request and breaks in a response, and one that narrows it the other
//! way round.
//!
//! Each rule has a pair of documents in `fixtures/compat/<id>/` that triggers it, with the findings it has to give.

use super::{Direction, Level};

/// What one kind of change means to a client that was built for the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name, unique and for ever: the `id` of a finding.
    pub id: &'static str,
    /// How much it matters.
    pub level: Level,
    /// Which way the thing travels.
    pub direction: Direction,
    /// What changed.
    pub area: Area,
    /// What became of it.
    pub action: Action,
    /// Why it has this level, in a sentence.
    pub why: &'static str,
}

/// What of a contract can change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Area {
    /// The path of the server's address, which every path is relative to.
    BasePath,
    /// A path with all its methods.
    Endpoint,
    /// One method of a path that stays.
    Method,
    /// The deprecation of an endpoint, or of a schema.
    Deprecation,
    /// The body of a request or of a response.
    Body,
    /// A body without which a request is refused.
    RequiredBody,
    /// Whether a request may go without its body.
    BodyRequired,
    /// A media type of a body that stays, or a range of them.
    MediaType,
    /// A status from 200 to 299, or their class.
    SuccessStatus,
    /// Any other status or class, and `default`.
    ErrorStatus,
    /// A property of an object.
    Property,
    /// A property without which a request is refused.
    RequiredProperty,
    /// Whether an object may go without a property.
    PropertyRequired,
    /// The type of a body or of a property.
    Type,
    /// The type of a list's items.
    Items,
    /// The type of a map's values.
    MapValues,
    /// The schema that a reference leads to, while both schemas are in both documents.
    Reference,
    /// The format of a number or of a text.
    Format,
    /// Whether there is a list of allowed values.
    Enum,
    /// One of the allowed values.
    EnumValue,
    /// The value that the server takes when none is given.
    Default,
    /// Whether `null` is allowed.
    Null,
    /// The least number.
    Minimum,
    /// The greatest number.
    Maximum,
    /// The pattern of a text.
    Pattern,
    /// Any other restriction: a length, a count, a multiple, uniqueness, unnamed properties.
    Constraint,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It is another, and neither contains the other.
    Changed,
    /// It allows what it did, and more.
    Widened,
    /// It allows less than it did, and nothing new.
    Narrowed,
    /// It is another, which differs in nothing that breaks.
    Compatible,
    /// It is another, and the document cannot decide what follows.
    Doubtful,
}

impl Action {
    /// What would take it back.
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

/// The rule for a change, if there is one.
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

/// Every rule, grouped by what changed.
#[rustfmt::skip]
pub const RULES: &[Rule] = &[
    row("base-path-removed", Breaking, Request, Area::BasePath, Removed, "Calls below it fail."),
    row("base-path-added", Info, Request, Area::BasePath, Added, "No client of the base calls anything below it."),
    row("endpoint-removed", Breaking, Request, Area::Endpoint, Removed, "Calls to it fail."),
    row("endpoint-added", Info, Request, Area::Endpoint, Added, "No client of the base calls it."),
    row("method-removed", Breaking, Request, Area::Method, Removed, "Calls with it fail."),
    row("method-added", Info, Request, Area::Method, Added, "No client of the base uses it."),

    row("request-body-removed", Breaking, Request, Area::Body, Removed, "What a client sends is refused or lost."),
    row("request-body-added", Info, Request, Area::Body, Added, "It may be left out."),
    row("request-required-body-added", Breaking, Request, Area::RequiredBody, Added, "A client of the base sends none and is refused."),
    row("request-body-became-required", Breaking, Request, Area::BodyRequired, Added, "A client that leaves it out is refused."),
    row("request-body-became-optional", Info, Request, Area::BodyRequired, Removed, "A client that sends it still may."),
    row("response-body-removed", Breaking, Response, Area::Body, Removed, "A client waits for something to read."),
    row("response-body-added", Info, Response, Area::Body, Added, "No client of the base reads it."),
    row("request-media-type-removed", Breaking, Request, Area::MediaType, Removed, "What a client sends is refused."),
    row("request-media-type-added", Info, Request, Area::MediaType, Added, "No client of the base sends it."),
    row("request-media-type-narrowed", Breaking, Request, Area::MediaType, Narrowed, "Some of what a client may send is refused."),
    row("request-media-type-widened", Info, Request, Area::MediaType, Widened, "What a client sends is still allowed."),
    row("response-media-type-removed", Breaking, Response, Area::MediaType, Removed, "A client cannot read what comes instead."),
    row("response-media-type-added", Info, Response, Area::MediaType, Added, "What a client asks for is still there."),
    row("response-media-type-narrowed", Info, Response, Area::MediaType, Narrowed, "What comes is still what a client expects."),
    row("response-media-type-widened", Breaking, Response, Area::MediaType, Widened, "A client may meet what it cannot read."),
    row("success-status-removed", Breaking, Response, Area::SuccessStatus, Removed, "A client takes any other answer for a failure."),
    row("success-status-added", Info, Response, Area::SuccessStatus, Added, "The statuses that a client knows are still there."),
    row("success-status-narrowed", Info, Response, Area::SuccessStatus, Narrowed, "A client has fewer cases to meet, and still one of success."),
    row("error-status-removed", Info, Response, Area::ErrorStatus, Removed, "A client has one case less to meet."),
    row("error-status-added", Info, Response, Area::ErrorStatus, Added, "A failure that a client doesn't know is a failure all the same."),

    row("request-property-removed", Breaking, Request, Area::Property, Removed, "The server ignores what it doesn't know: what a client sends is lost without a word."),
    row("request-property-added", Info, Request, Area::Property, Added, "It may be left out."),
    row("request-required-property-added", Breaking, Request, Area::RequiredProperty, Added, "A client of the base leaves it out and is refused, whether or not there is a default."),
    row("response-property-removed", Breaking, Response, Area::Property, Removed, "A client that reads it finds nothing."),
    row("response-property-added", Info, Response, Area::Property, Added, "A client reads past it."),
    row("request-property-became-required", Breaking, Request, Area::PropertyRequired, Added, "A client that leaves it out is refused."),
    row("request-property-became-optional", Info, Request, Area::PropertyRequired, Removed, "A client that sends it still may."),
    row("response-property-became-required", Info, Response, Area::PropertyRequired, Added, "A client has one case less to meet."),
    row("response-property-became-optional", Breaking, Response, Area::PropertyRequired, Removed, "A client that relies on it finds nothing."),

    row("request-type-changed", Breaking, Request, Area::Type, Changed, "What a client sends is refused."),
    row("request-type-narrowed", Breaking, Request, Area::Type, Narrowed, "Some of what a client may send is refused."),
    row("request-type-widened", Info, Request, Area::Type, Widened, "What a client sends is still allowed."),
    row("response-type-changed", Breaking, Response, Area::Type, Changed, "A client cannot read it."),
    row("response-type-narrowed", Info, Response, Area::Type, Narrowed, "What comes is still what a client expects."),
    row("response-type-widened", Breaking, Response, Area::Type, Widened, "A client may meet what it cannot read."),
    row("request-items-changed", Breaking, Request, Area::Items, Changed, "What a client sends is refused."),
    row("request-items-narrowed", Breaking, Request, Area::Items, Narrowed, "Some of what a client may send is refused."),
    row("request-items-widened", Info, Request, Area::Items, Widened, "What a client sends is still allowed."),
    row("response-items-changed", Breaking, Response, Area::Items, Changed, "A client cannot read them."),
    row("response-items-narrowed", Info, Response, Area::Items, Narrowed, "What comes is still what a client expects."),
    row("response-items-widened", Breaking, Response, Area::Items, Widened, "A client may meet what it cannot read."),
    row("request-map-values-changed", Breaking, Request, Area::MapValues, Changed, "What a client sends is refused."),
    row("request-map-values-narrowed", Breaking, Request, Area::MapValues, Narrowed, "Some of what a client may send is refused."),
    row("request-map-values-widened", Info, Request, Area::MapValues, Widened, "What a client sends is still allowed."),
    row("response-map-values-changed", Breaking, Response, Area::MapValues, Changed, "A client cannot read them."),
    row("response-map-values-narrowed", Info, Response, Area::MapValues, Narrowed, "What comes is still what a client expects."),
    row("response-map-values-widened", Breaking, Response, Area::MapValues, Widened, "A client may meet what it cannot read."),

    row("request-reference-changed", Breaking, Request, Area::Reference, Changed, "What a client sends is refused or lost."),
    row("request-reference-doubtful", Warning, Request, Area::Reference, Doubtful, "What a client leaves out may mean something else."),
    row("request-reference-compatible", Info, Request, Area::Reference, Compatible, "What a client sends is still allowed."),
    row("response-reference-changed", Breaking, Response, Area::Reference, Changed, "A client cannot read it, or misses a part."),
    row("response-reference-compatible", Info, Response, Area::Reference, Compatible, "What comes is still what a client expects."),
    row("response-reference-doubtful", Warning, Response, Area::Reference, Doubtful, "A client may meet a value that it doesn't know."),

    row("request-format-changed", Breaking, Request, Area::Format, Changed, "Some of what a client may send is refused."),
    row("request-format-narrowed", Breaking, Request, Area::Format, Narrowed, "Some of what a client may send is refused."),
    row("request-format-widened", Info, Request, Area::Format, Widened, "What a client sends is still allowed."),
    row("response-format-changed", Breaking, Response, Area::Format, Changed, "A client may meet what it cannot hold."),
    row("response-format-narrowed", Info, Response, Area::Format, Narrowed, "What comes is still what a client expects."),
    row("response-format-widened", Breaking, Response, Area::Format, Widened, "A client may meet what it cannot hold."),
    row("request-minimum-narrowed", Breaking, Request, Area::Minimum, Narrowed, "Some of what a client may send is refused."),
    row("request-minimum-widened", Info, Request, Area::Minimum, Widened, "What a client sends is still allowed."),
    row("response-minimum-narrowed", Info, Response, Area::Minimum, Narrowed, "What comes is still what a client expects."),
    row("response-minimum-widened", Breaking, Response, Area::Minimum, Widened, "A client may meet what it does not expect."),
    row("request-maximum-narrowed", Breaking, Request, Area::Maximum, Narrowed, "Some of what a client may send is refused."),
    row("request-maximum-widened", Info, Request, Area::Maximum, Widened, "What a client sends is still allowed."),
    row("response-maximum-narrowed", Info, Response, Area::Maximum, Narrowed, "What comes is still what a client expects."),
    row("response-maximum-widened", Breaking, Response, Area::Maximum, Widened, "A client may meet what it does not expect."),
    row("request-constraint-changed", Breaking, Request, Area::Constraint, Changed, "Some of what a client may send is refused."),
    row("request-constraint-narrowed", Breaking, Request, Area::Constraint, Narrowed, "Some of what a client may send is refused."),
    row("request-constraint-widened", Info, Request, Area::Constraint, Widened, "What a client sends is still allowed."),
    row("response-constraint-changed", Breaking, Response, Area::Constraint, Changed, "A client may meet what it does not expect."),
    row("response-constraint-narrowed", Info, Response, Area::Constraint, Narrowed, "What comes is still what a client expects."),
    row("response-constraint-widened", Breaking, Response, Area::Constraint, Widened, "A client may meet what it does not expect."),
    row("request-pattern-added", Breaking, Request, Area::Pattern, Added, "Some of what a client may send is refused."),
    row("request-pattern-changed", Warning, Request, Area::Pattern, Changed, "Which texts each of two patterns takes is not compared."),
    row("request-pattern-removed", Info, Request, Area::Pattern, Removed, "What a client sends is still allowed."),
    row("response-pattern-added", Info, Response, Area::Pattern, Added, "A text is read as a text, whatever its pattern."),
    row("response-pattern-changed", Info, Response, Area::Pattern, Changed, "A text is read as a text, whatever its pattern."),
    row("response-pattern-removed", Info, Response, Area::Pattern, Removed, "A text is read as a text, whatever its pattern."),

    row("request-enum-added", Breaking, Request, Area::Enum, Added, "Every value was allowed; those not in the list are refused."),
    row("request-enum-removed", Info, Request, Area::Enum, Removed, "What a client sends is still allowed."),
    row("response-enum-added", Info, Response, Area::Enum, Added, "What comes is still what a client expects."),
    row("response-enum-removed", Warning, Response, Area::Enum, Removed, "A client may meet a value that it doesn't know; whether it copes, no document says."),
    row("request-enum-value-removed", Breaking, Request, Area::EnumValue, Removed, "A client that sends it is refused."),
    row("request-enum-value-added", Info, Request, Area::EnumValue, Added, "No client of the base sends it."),
    row("response-enum-value-removed", Info, Response, Area::EnumValue, Removed, "A client has one case less to meet."),
    row("response-enum-value-added", Warning, Response, Area::EnumValue, Added, "A client may meet a value that it doesn't know; whether it copes, no document says."),
    row("request-default-added", Info, Request, Area::Default, Added, "What happened without a value was not promised."),
    row("request-default-changed", Warning, Request, Area::Default, Changed, "A client that leaves the value out gets another."),
    row("request-default-removed", Warning, Request, Area::Default, Removed, "What a client gets that leaves the value out is no longer said."),
    row("response-default-added", Info, Response, Area::Default, Added, "A client reads what is there."),
    row("response-default-changed", Info, Response, Area::Default, Changed, "A client reads what is there."),
    row("response-default-removed", Info, Response, Area::Default, Removed, "A client reads what is there."),
    row("request-null-removed", Breaking, Request, Area::Null, Removed, "A client that sends `null` is refused."),
    row("request-null-added", Info, Request, Area::Null, Added, "What a client sends is still allowed."),
    row("response-null-removed", Info, Response, Area::Null, Removed, "A client has one case less to meet."),
    row("response-null-added", Breaking, Response, Area::Null, Added, "A client may meet `null` where it expects a value."),
    row("request-deprecation-added", Info, Request, Area::Deprecation, Added, "It works as before."),
    row("request-deprecation-removed", Info, Request, Area::Deprecation, Removed, "It works as before."),
    row("response-deprecation-added", Info, Response, Area::Deprecation, Added, "It is there as before."),
    row("response-deprecation-removed", Info, Response, Area::Deprecation, Removed, "It is there as before."),
];
