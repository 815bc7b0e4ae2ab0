//! The data model of an API: [`Contract`] with its endpoints and schemas.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::{Number, Value};

use super::{Invalid, Release, references};

/// The API of one release: its endpoints, the bodies that they take, and their responses.
///
/// All maps are ordered, so two contracts compare and print the same way on every machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contract {
    /// The release that has this API. An upstream document does not name its release: `info.version` is `0.3.0` in
    /// every release. The importer sets this field.
    pub release: Release,
    /// The addresses that every path is relative to, for example `http://localhost/api/v1`. An address with variables
    /// is listed once for each combination of their values. A document that lists no server has `/`, as OpenAPI says.
    pub servers: Vec<String>,
    /// The endpoints by path (`/vm.info`) and method.
    pub paths: BTreeMap<String, BTreeMap<Method, Endpoint>>,
    /// The named schemas of the document (`#/components/schemas`).
    pub schemas: BTreeMap<String, Schema>,
}

impl Contract {
    /// Returns the base paths of `endpoint`, which must belong to this contract. They are the paths of the endpoint's
    /// own addresses, or of the contract's addresses if the endpoint has none. Each base path is empty, or starts with
    /// a slash and ends without one: `/api/v1`.
    pub fn base_paths(&self, endpoint: &Endpoint) -> BTreeSet<String> {
        let servers = match endpoint.servers.is_empty() {
            true => &self.servers,
            false => &endpoint.servers,
        };
        servers.iter().map(|server| base_path(server)).collect()
    }

    /// Checks that every reference leads to a schema and that no references form a cycle. The functions that read a
    /// contract make this check; a contract that was changed afterwards may need it.
    ///
    /// # Errors
    ///
    /// [`Problem::DanglingReference`](super::Problem::DanglingReference) or
    /// [`Problem::ReferenceCycle`](super::Problem::ReferenceCycle), for the first such place.
    pub fn check_references(&self) -> Result<(), Invalid> {
        references::check(self)
    }
}

/// Returns the path of a server's address, without slashes at its end. The scheme and the host are dropped, because the
/// client always connects to the api-socket.
fn base_path(address: &str) -> String {
    let address = address.split(['?', '#']).next().unwrap_or_default();
    let relative = match address.split_once("//") {
        Some((scheme, rest)) if scheme.is_empty() || scheme.ends_with(':') => {
            rest.find('/').map_or("", |path| &rest[path..])
        }
        _ => address,
    };
    // The address may be relative to the URL of the document itself. That URL is not known, so its path is taken as
    // `/`.
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
#[non_exhaustive]
pub struct Endpoint {
    /// The request's body, for an endpoint that takes one.
    pub body: Option<Body>,
    /// The responses by HTTP status.
    pub responses: BTreeMap<u16, Response>,
    /// The responses to every other status (`default`), or to those of one class (`4XX`).
    pub fallbacks: BTreeMap<String, Response>,
    /// Whether the document marks the endpoint as deprecated.
    pub deprecated: bool,
    /// The addresses that the endpoint's path is relative to, in the form of [`Contract::servers`]. The list is empty
    /// if the endpoint uses those of the contract.
    pub servers: Vec<String>,
}

impl Endpoint {
    /// Returns every response by its key in a document: a status, a class of statuses (`4XX`), or `default`.
    pub(crate) fn all_responses(&self) -> BTreeMap<String, &Response> {
        let known = self.responses.iter();
        let known = known.map(|(status, response)| (status.to_string(), response));
        let others = self.fallbacks.iter();
        let others = others.map(|(statuses, response)| (statuses.clone(), response));
        known.chain(others).collect()
    }
}

/// The body of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Body {
    /// Whether the endpoint refuses a request without a body.
    pub required: bool,
    /// The schema of the body, by media type.
    pub content: Content,
}

/// The response of an endpoint with one status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Response {
    /// The schema of the body, by media type. Empty for a response without a body.
    pub content: Content,
}

/// Schemas by media type (`application/json`).
pub type Content = BTreeMap<String, Schema>;

/// The values that are allowed at one place of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    /// The type of the value, with the facts that only this type has.
    pub shape: Shape,
    /// The value that the server uses if the request has none.
    pub default: Option<Value>,
    /// Whether `null` is allowed in addition.
    pub nullable: bool,
    /// Whether the document marks the value as deprecated.
    pub deprecated: bool,
    /// Further restrictions by keyword, with the value that the document has: `pattern`, `maxItems`, `readOnly`. No
    /// upstream document has any so far. [`CONSTRAINTS`](Schema::CONSTRAINTS) lists the keywords that are understood.
    pub constraints: BTreeMap<&'static str, Value>,
}

impl Schema {
    /// The keywords that [`constraints`](Schema::constraints) may have. Some of them have a field elsewhere for the
    /// usual case: `enum` is here for values that are not strings, `additionalProperties` for an object that takes no
    /// unnamed properties, and `format`, `minimum` and `maximum` for a schema without a type.
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

    /// Creates a schema of `shape` with no other facts.
    pub fn new(shape: Shape) -> Schema {
        Schema {
            shape,
            default: None,
            nullable: false,
            deprecated: false,
            constraints: BTreeMap::new(),
        }
    }

    /// Creates a reference to the named schema `name`.
    pub fn reference(name: impl Into<String>) -> Schema {
        Schema::new(Shape::Reference(name.into()))
    }
}

/// The type of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Any JSON value.
    Any,
    /// `true` or `false`.
    Boolean,
    /// A whole number.
    Integer {
        /// The width, such as `int64` or `uint8`, which bounds the value too. `None` if the document does not give one.
        format: Option<String>,
        /// The least value; `None` for no bound. If [`constraints`](Schema::constraints) has `exclusiveMinimum`, the
        /// value itself is not allowed.
        minimum: Option<Number>,
        /// The greatest value; `None` for no bound. If [`constraints`](Schema::constraints) has `exclusiveMaximum`, the
        /// value itself is not allowed.
        maximum: Option<Number>,
    },
    /// A number that may have a fraction.
    Number {
        /// The precision, `float` or `double`. `None` if the document does not give one.
        format: Option<String>,
        /// The least value; `None` for no bound. If [`constraints`](Schema::constraints) has `exclusiveMinimum`, the
        /// value itself is not allowed.
        minimum: Option<Number>,
        /// The greatest value; `None` for no bound. If [`constraints`](Schema::constraints) has `exclusiveMaximum`, the
        /// value itself is not allowed.
        maximum: Option<Number>,
    },
    /// A string.
    String {
        /// How the string is to be read, for instance `date-time`. `None` if the document does not say.
        format: Option<String>,
        /// The only values that are allowed. Empty if every string is allowed.
        values: BTreeSet<String>,
    },
    /// A list of values of one schema.
    Array(Box<Schema>),
    /// An object with named properties.
    Object {
        /// The properties by their name on the wire.
        properties: BTreeMap<String, Schema>,
        /// The names that must be present. A document may list a name here that is not among its properties: v52.0
        /// does.
        required: BTreeSet<String>,
    },
    /// An object with any keys, all of whose values have one schema.
    Map(Box<Schema>),
    /// A reference to the schema of this name in [`Contract::schemas`].
    Reference(String),
}

impl Shape {
    /// Returns the name of the type as an OpenAPI document writes it.
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
