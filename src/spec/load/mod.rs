//! Reads an OpenAPI document into a [`Contract`]. The loader is strict: a keyword or value that it does not know is an
//! error.

mod schema;
mod servers;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::fields::{Fields, Place};
use super::{
    Body, Content, Contract, Endpoint, Error, Invalid, Method, Problem, Release, Response, Schema,
    Shape, bounded_yaml, references,
};
pub(super) use schema::schema;

/// Keywords whose value is text for readers, or a name that no other part of the document uses.
const PROSE: &[&str] = &["description", "operationId", "summary", "title"];

/// Reads a contract in canonical form, which names its release.
///
/// # Errors
///
/// Every variant of [`Error`] but [`Error::Sources`].
pub fn read(path: &Path) -> Result<Contract, Error> {
    from_bytes(path, &bounded_yaml::bytes(path)?, None)
}

/// Reads an upstream document, or a contract in canonical form, as the contract of `release`.
///
/// # Errors
///
/// As [`read`].
pub fn read_import(path: &Path, release: Release) -> Result<Contract, Error> {
    from_bytes(path, &bounded_yaml::bytes(path)?, Some(release))
}

/// Reads a document of an unknown release: a contract in canonical form, which names its release, or an upstream
/// document, which does not and gets [`Release::UNNAMED`].
///
/// # Errors
///
/// As [`read`].
pub fn read_any(path: &Path) -> Result<Contract, Error> {
    let bytes = bounded_yaml::bytes(path)?;
    let tree = parse(path, &bytes)?;
    let named = tree["info"]["version"].as_str();
    let release = named
        .and_then(|named| named.parse().ok())
        .unwrap_or(Release::UNNAMED);
    in_file(path, &tree, Some(release))
}

/// Parses `bytes`, which were read from `path`, as a contract.
pub(super) fn from_bytes(
    path: &Path,
    bytes: &[u8],
    release: Option<Release>,
) -> Result<Contract, Error> {
    in_file(path, &parse(path, bytes)?, release)
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Value, Error> {
    bounded_yaml::parse(bytes).map_err(|source| Error::Syntax {
        path: path.to_owned(),
        source: Box::new(source),
    })
}

fn in_file(path: &Path, tree: &Value, release: Option<Release>) -> Result<Contract, Error> {
    from_tree(tree, release).map_err(|source| Error::Invalid {
        path: path.to_owned(),
        source,
    })
}

pub(super) fn from_tree(tree: &Value, release: Option<Release>) -> Result<Contract, Invalid> {
    let mut root = Place::root(tree).fields()?;
    let version = root.need("openapi")?;
    if !version.text()?.starts_with("3.0.") {
        let found = format!("`{:.60}`", version.text()?);
        return Err(version.invalid(Problem::Expected {
            expected: "OpenAPI 3.0",
            found,
        }));
    }
    let release = {
        let mut info = root.need("info")?.fields()?;
        info.drop_prose(&[
            "contact",
            "description",
            "license",
            "termsOfService",
            "title",
        ]);
        let version = info.need("version")?;
        let named = version.text()?;
        info.finish()?;
        match release {
            Some(release) => release,
            None => named.parse().map_err(|_| {
                let found = format!("`{named:.60}`");
                version.invalid(Problem::Expected {
                    expected: "the tag of a release",
                    found,
                })
            })?,
        }
    };
    let servers = servers::of_document(root.take("servers"))?;
    let paths = root.need("paths")?;
    let shared = Shared::read(root.take("components"))?;
    let paths = paths
        .entries()?
        .filter(|(path, _)| !is_extension(path))
        .map(|(path, place)| Ok((path.to_owned(), shared.methods(&place)?)))
        .collect::<Result<_, Invalid>>()?;
    let schemas = match &shared.schemas {
        None => BTreeMap::new(),
        Some(schemas) => schemas
            .entries()?
            .map(|(name, place)| Ok((name.to_owned(), schema(&place)?)))
            .collect::<Result<_, Invalid>>()?,
    };
    root.drop_prose(&["externalDocs", "tags"]);
    root.finish()?;
    let contract = Contract {
        release,
        servers,
        paths,
        schemas,
    };
    references::check(&contract)?;
    Ok(contract)
}

/// The parts of `components` that endpoints may refer to.
struct Shared<'a> {
    schemas: Option<Place<'a>>,
    bodies: Option<Place<'a>>,
    responses: Option<Place<'a>>,
}

impl<'a> Shared<'a> {
    fn read(components: Option<Place<'a>>) -> Result<Self, Invalid> {
        let mut shared = Shared {
            schemas: None,
            bodies: None,
            responses: None,
        };
        if let Some(components) = components {
            let mut fields = components.fields()?;
            shared.schemas = fields.take("schemas");
            shared.bodies = fields.take("requestBodies");
            shared.responses = fields.take("responses");
            fields.drop_prose(&["examples"]);
            fields.finish()?;
        }
        Ok(shared)
    }

    fn methods(&self, path: &Place<'a>) -> Result<BTreeMap<Method, Endpoint>, Invalid> {
        let mut fields = path.fields()?;
        fields.drop_prose(PROSE);
        let of_path = fields
            .take("servers")
            .map(|place| servers::addresses(&place))
            .transpose()?
            .unwrap_or_default();
        let mut methods = BTreeMap::new();
        for method in Method::ALL {
            if let Some(place) = fields.take(method.key()) {
                let mut endpoint = self.endpoint(&place)?;
                if endpoint.servers.is_empty() {
                    endpoint.servers.clone_from(&of_path);
                }
                methods.insert(method, endpoint);
            }
        }
        fields.finish()?;
        Ok(methods)
    }

    fn endpoint(&self, place: &Place<'a>) -> Result<Endpoint, Invalid> {
        let mut fields = place.fields()?;
        fields.drop_prose(PROSE);
        fields.drop_prose(&["externalDocs", "tags"]);
        let mut endpoint = Endpoint {
            deprecated: flag(&mut fields, "deprecated")?,
            ..Endpoint::default()
        };
        if let Some(place) = fields.take("servers") {
            endpoint.servers = servers::addresses(&place)?;
        }
        if let Some(place) = fields.take("requestBody") {
            let place = referred(place, &self.bodies, "#/components/requestBodies/")?;
            endpoint.body = Some(body(&place)?);
        }
        for (status, place) in fields.need("responses")?.entries()? {
            if is_extension(status) {
                continue;
            }
            let fallback = status == "default" || is_class(status);
            let number = match fallback {
                true => None,
                false => Some(place.status(status)?),
            };
            let place = referred(place, &self.responses, "#/components/responses/")?;
            let response = response(&place)?;
            match number {
                Some(number) => drop(endpoint.responses.insert(number, response)),
                None => drop(endpoint.fallbacks.insert(status.to_owned(), response)),
            }
        }
        fields.finish()?;
        Ok(endpoint)
    }
}

/// Whether the key is an extension (`x-internal`), to which OpenAPI gives no meaning.
fn is_extension(key: &str) -> bool {
    key.starts_with("x-")
}

/// Whether the key stands for all statuses of one class: `4XX`.
fn is_class(status: &str) -> bool {
    matches!(status.as_bytes(), [b'1'..=b'5', b'X', b'X'])
}

/// Returns `place` itself, or the entry of `section` that it refers to.
fn referred<'a>(
    place: Place<'a>,
    section: &Option<Place<'a>>,
    prefix: &str,
) -> Result<Place<'a>, Invalid> {
    let mut fields = place.fields()?;
    let Some(reference) = fields.take("$ref") else {
        return Ok(place);
    };
    fields.drop_prose(PROSE);
    fields.finish()?;
    let text = reference.text()?;
    let dangling = || reference.invalid(Problem::DanglingReference(text.to_owned()));
    let (name, section) = text
        .strip_prefix(prefix)
        .zip(section.as_ref())
        .ok_or_else(dangling)?;
    let found = section.mapping()?.get(name).ok_or_else(dangling)?;
    Ok(section.child(name, found))
}

fn body(place: &Place<'_>) -> Result<Body, Invalid> {
    let mut fields = place.fields()?;
    fields.drop_prose(PROSE);
    let required = flag(&mut fields, "required")?;
    let content = content(&fields.need("content")?)?;
    fields.finish()?;
    Ok(Body { required, content })
}

fn response(place: &Place<'_>) -> Result<Response, Invalid> {
    let mut fields = place.fields()?;
    fields.drop_prose(PROSE);
    fields.drop_prose(&["links"]);
    let content = fields
        .take("content")
        .map(|place| content(&place))
        .transpose()?
        .unwrap_or_default();
    fields.finish()?;
    Ok(Response { content })
}

fn content(place: &Place<'_>) -> Result<Content, Invalid> {
    place
        .entries()?
        .map(|(media_type, place)| {
            let mut fields = place.fields()?;
            fields.drop_prose(&["example", "examples"]);
            let schema = match fields.take("schema") {
                Some(place) => schema(&place)?,
                None => Schema::new(Shape::Any),
            };
            fields.finish()?;
            Ok((media_type.to_owned(), schema))
        })
        .collect()
}

fn flag(fields: &mut Fields<'_>, keyword: &'static str) -> Result<bool, Invalid> {
    fields.take(keyword).map_or(Ok(false), |place| place.flag())
}
