//! The contract of one release.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::{Number, Value};

use super::{Invalid, Release, references};

/// The API of one release: what can be asked, with what, and what comes back.
///
/// Everything is kept in ordered maps, so two contracts compare and print the same way on every machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contract {
    /// The release that this is the contract of. An upstream document does not say: its `info.version` is `0.3.0` in
    /// every release, so the importer names it.
    pub release: Release,
    /// The addresses that every path is relative to: `http://localhost/api/v1`. A variable of an address is replaced by
    /// each of its values. A document without any means `/`.
    pub servers: Vec<String>,
    /// The endpoints by path (`/vm.info`) and method.
    pub paths: BTreeMap<String, BTreeMap<Method, Endpoint>>,
    /// The named schemas.
    pub schemas: BTreeMap<String, Schema>,
}

impl Contract {
    /// The base paths of `endpoint`, which is one of this contract's: the paths of its addresses, or of the contract's
    /// where it has none of its own. Each is empty, or starts with a slash and ends without one: `/api/v1`.
    pub fn base_paths(&self, endpoint: &Endpoint) -> BTreeSet<String> {
        let servers = match endpoint.servers.is_empty() {
            true => &self.servers,
            false => &endpoint.servers,
        };
        servers.iter().map(|server| base_path(server)).collect()
    }

    /// Checks that every reference leads to a schema, and not round in a circle. A contract that was read has passed
    /// this.
    ///
    /// # Errors
    ///
    /// [`Problem::DanglingReference`](super::Problem::DanglingReference) and
    /// [`Problem::ReferenceCycle`](super::Problem::ReferenceCycle), with the first such place.
    pub fn check_references(&self) -> Result<(), Invalid> {
        references::check(self)
    }
}

/// The path of a server's address, without slashes at the end. What comes before it, scheme and host, says how a
/// server is reached, and the api-socket makes that meaningless.
fn base_path(address: &str) -> String {
    let address = address.split(['?', '#']).next().unwrap_or_default();
    let relative = match address.split_once("//") {
        Some((scheme, rest)) if scheme.is_empty() || scheme.ends_with(':') => {
            rest.find('/').map_or("", |path| &rest[path..])
        }
        _ => address,
    };
    // A relative address is relative to the document's own, whose path no contract knows: the root stands for it.
    let mut steps: Vec<&str> = Vec::new();
    for step in relative.split('/') {
        match step {
            "" | "." => {}
            ".." => drop(steps.pop()),
            step => steps.push(step),
        }
    }
    steps.iter().map(|step| format!("/{step}")).collect()
}

/// An HTTP method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    /// `DELETE`
    Delete,
    /// `GET`
    Get,
    /// `PATCH`
    Patch,
    /// `POST`
    Post,
    /// `PUT`
    Put,
}

impl Method {
    /// Every method that a document may name.
    pub const ALL: [Method; 5] = [
        Method::Delete,
        Method::Get,
        Method::Patch,
        Method::Post,
        Method::Put,
    ];

    /// The key of the method in an OpenAPI document: `get`.
    pub const fn key(self) -> &'static str {
        match self {
            Method::Delete => "delete",
            Method::Get => "get",
            Method::Patch => "patch",
            Method::Post => "post",
            Method::Put => "put",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key().to_ascii_uppercase())
    }
}

/// One method of one path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// The request's body, for an endpoint that takes one.
    pub body: Option<Body>,
    /// The responses by HTTP status.
    pub responses: BTreeMap<u16, Response>,
    /// The responses to every other status (`default`), or to those of one class (`4XX`).
    pub fallbacks: BTreeMap<String, Response>,
    /// Whether the document advises against it.
    pub deprecated: bool,
    /// The addresses that its path is relative to, where they are not the contract's; else empty. As
    /// [`Contract::servers`] otherwise.
    pub servers: Vec<String>,
}

impl Endpoint {
    /// Every response by its key in a document: a status, a class of statuses, or `default`.
    pub fn all_responses(&self) -> BTreeMap<String, &Response> {
        let known = self.responses.iter();
        let known = known.map(|(status, response)| (status.to_string(), response));
        let others = self.fallbacks.iter();
        let others = others.map(|(statuses, response)| (statuses.clone(), response));
        known.chain(others).collect()
    }
}

/// The body of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// Whether the endpoint refuses a request without it.
    pub required: bool,
    /// What it holds.
    pub content: Content,
}

/// The response with one status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// What it holds; empty for a response without a body.
    pub content: Content,
}

/// Schemas by media type (`application/json`).
pub type Content = BTreeMap<String, Schema>;

/// What a value may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    /// The kind of value, with the facts that belong to that kind.
    pub shape: Shape,
    /// The value that the server takes when none is given.
    pub default: Option<Value>,
    /// Whether `null` is allowed too.
    pub nullable: bool,
    /// Whether the document advises against it.
    pub deprecated: bool,
    /// What restricts it further, by keyword, as the document has it: `pattern`, `maxItems`, `readOnly`. No document
    /// of upstream's has any; [`CONSTRAINTS`](Schema::CONSTRAINTS) are those that are understood.
    pub constraints: BTreeMap<&'static str, Value>,
}

impl Schema {
    /// The keywords that [`constraints`](Schema::constraints) may have. `enum` is there for what is no text,
    /// `additionalProperties` for an object that takes no others, and `format`, `minimum` and `maximum` for a value of
    /// any type, of which they restrict some.
    pub const CONSTRAINTS: [&'static str; 18] = [
        "additionalProperties",
        "enum",
        "exclusiveMaximum",
        "exclusiveMinimum",
        "format",
        "maxItems",
        "maxLength",
        "maxProperties",
        "maximum",
        "minItems",
        "minLength",
        "minProperties",
        "minimum",
        "multipleOf",
        "pattern",
        "readOnly",
        "uniqueItems",
        "writeOnly",
    ];

    /// A schema of `shape` with no other facts.
    pub fn new(shape: Shape) -> Schema {
        Schema {
            shape,
            default: None,
            nullable: false,
            deprecated: false,
            constraints: BTreeMap::new(),
        }
    }

    /// A reference to the named schema `name`.
    pub fn reference(name: impl Into<String>) -> Schema {
        Schema::new(Shape::Reference(name.into()))
    }
}

/// The kind of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Any JSON value.
    Any,
    /// `true` or `false`.
    Boolean,
    /// A whole number.
    Integer {
        /// Its width: `int64`, `uint8`; absent where the document leaves it open.
        format: Option<String>,
        /// The least value.
        minimum: Option<Number>,
        /// The greatest value.
        maximum: Option<Number>,
    },
    /// A number that need not be whole.
    Number {
        /// Its precision: `float`, `double`.
        format: Option<String>,
        /// The least value.
        minimum: Option<Number>,
        /// The greatest value.
        maximum: Option<Number>,
    },
    /// A text.
    String {
        /// How the text is to be read, for instance `date-time`.
        format: Option<String>,
        /// The only values allowed; empty when every text is.
        values: BTreeSet<String>,
    },
    /// A list of values of one schema.
    Array(Box<Schema>),
    /// An object with named properties.
    Object {
        /// The properties by their name on the wire.
        properties: BTreeMap<String, Schema>,
        /// The names that must be present. A document may name one here that it has no property for (v52 does).
        required: BTreeSet<String>,
    },
    /// An object with any keys, whose values all have one schema.
    Map(Box<Schema>),
    /// The schema of this name in [`Contract::schemas`].
    Reference(String),
}

impl Shape {
    /// The name of the kind, as the document spells it.
    pub const fn kind(&self) -> &'static str {
        match self {
            Shape::Any => "any",
            Shape::Boolean => "boolean",
            Shape::Integer { .. } => "integer",
            Shape::Number { .. } => "number",
            Shape::String { .. } => "string",
            Shape::Array(_) => "array",
            Shape::Object { .. } => "object",
            Shape::Map(_) => "map",
            Shape::Reference(_) => "reference",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_path_is_the_path_of_an_address() {
        fn check(address: &str, expected: &str) {
            assert_eq!(base_path(address), expected, "{address}");
        }
        check("http://localhost/api/v1", "/api/v1");
        check("http://localhost/api/v1/", "/api/v1");
        check("https://[::1]:8080/api/v1?x=/y#/z", "/api/v1");
        check("//localhost/api/v1", "/api/v1");
        check("/api/v1", "/api/v1");
        check("api/v1", "/api/v1");
        check("./api/../api/v1/.", "/api/v1");
        check("../../v1", "/v1");
        check("/Api/v1", "/Api/v1");
        check("http://localhost", "");
        check("http://localhost/", "");
        check("/", "");
        check("", "");
    }
}
