//! From a document to a contract. Strict: whatever is not understood stops it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use super::fields::{Fields, Place};
use super::{
    Body, Content, Contract, Endpoint, Error, Invalid, Method, Problem, Release, Response, Schema,
    Shape, references, tree,
};

/// Keywords that hold text for people, or names that nothing depends on.
const PROSE: &[&str] = &["description", "operationId", "summary", "title"];

/// Reads a canonical contract, which names its release itself.
///
/// # Errors
///
/// Every variant of [`Error`] but [`Error::Sources`].
pub fn read(path: &Path) -> Result<Contract, Error> {
    from_bytes(path, &tree::bytes(path)?, None)
}

/// Reads an upstream document, or a canonical contract, as that of `release`.
///
/// # Errors
///
/// As [`read`].
pub fn read_import(path: &Path, release: Release) -> Result<Contract, Error> {
    from_bytes(path, &tree::bytes(path)?, Some(release))
}

/// Reads a document of whatever release: a canonical contract, which names its own, or an upstream document, which
/// names none and gets [`Release::UNNAMED`].
///
/// # Errors
///
/// As [`read`].
pub fn read_any(path: &Path) -> Result<Contract, Error> {
    let bytes = tree::bytes(path)?;
    let tree = parse(path, &bytes)?;
    let named = tree["info"]["version"].as_str();
    let release = named
        .and_then(|named| named.parse().ok())
        .unwrap_or(Release::UNNAMED);
    in_file(path, &tree, Some(release))
}

/// The contract in `bytes`, which were read from `path`.
pub(super) fn from_bytes(
    path: &Path,
    bytes: &[u8],
    release: Option<Release>,
) -> Result<Contract, Error> {
    in_file(path, &parse(path, bytes)?, release)
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Value, Error> {
    tree::parse(bytes).map_err(|source| Error::Syntax {
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
    let server = server(&root.need("servers")?)?;
    let paths = root
        .need("paths")?
        .entries()?
        .map(|(path, place)| Ok((path.to_owned(), methods(&place)?)))
        .collect::<Result<_, Invalid>>()?;
    let mut components = root.need("components")?.fields()?;
    let schemas = components
        .need("schemas")?
        .entries()?
        .map(|(name, place)| Ok((name.to_owned(), schema(&place)?)))
        .collect::<Result<_, Invalid>>()?;
    components.finish()?;
    root.drop_prose(&["externalDocs", "tags"]);
    root.finish()?;
    let contract = Contract {
        release,
        server,
        paths,
        schemas,
    };
    references::check(&contract)?;
    Ok(contract)
}

/// The one server's address.
fn server(servers: &Place<'_>) -> Result<String, Invalid> {
    let expected = |found: String| Problem::Expected {
        expected: "a list of one server",
        found,
    };
    let Some([only]) = servers.value.as_array().map(Vec::as_slice) else {
        return Err(servers.invalid(expected("something else".to_owned())));
    };
    let mut server = servers.child("0", only).fields()?;
    server.drop_prose(PROSE);
    let url = server.need("url")?.text()?.to_owned();
    server.finish()?;
    Ok(url)
}

fn methods(path: &Place<'_>) -> Result<BTreeMap<Method, Endpoint>, Invalid> {
    let mut fields = path.fields()?;
    fields.drop_prose(PROSE);
    let mut methods = BTreeMap::new();
    for method in Method::ALL {
        if let Some(place) = fields.take(method.key()) {
            methods.insert(method, endpoint(&place)?);
        }
    }
    fields.finish()?;
    Ok(methods)
}

fn endpoint(place: &Place<'_>) -> Result<Endpoint, Invalid> {
    let mut fields = place.fields()?;
    fields.drop_prose(PROSE);
    fields.drop_prose(&["tags"]);
    let body = fields
        .take("requestBody")
        .map(|place| body(&place))
        .transpose()?;
    let responses = fields
        .need("responses")?
        .entries()?
        .map(|(status, place)| Ok((place.status(status)?, response(&place)?)))
        .collect::<Result<_, Invalid>>()?;
    fields.finish()?;
    Ok(Endpoint { body, responses })
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
            let schema = schema(&fields.need("schema")?)?;
            fields.finish()?;
            Ok((media_type.to_owned(), schema))
        })
        .collect()
}

/// Reads one schema.
pub(super) fn schema(place: &Place<'_>) -> Result<Schema, Invalid> {
    let mut fields = place.fields()?;
    if let Some(reference) = fields.take("$ref") {
        // OpenAPI 3.0 says that what stands beside a reference is ignored: a fact there would be lost.
        fields.finish()?;
        return Ok(Schema::new(Shape::Reference(referenced(&reference)?)));
    }
    fields.drop_prose(PROSE);
    fields.drop_prose(&["example", "externalDocs"]);
    let default = fields.take("default").map(|place| place.value.clone());
    let nullable = flag(&mut fields, "nullable")?;
    let deprecated = flag(&mut fields, "deprecated")?;
    let shape = shape(&mut fields, place)?;
    fields.finish()?;
    Ok(Schema {
        shape,
        default,
        nullable,
        deprecated,
    })
}

/// The shape that the keyword `type` and the keywords of that type describe. Those of another type are left in
/// `fields`, where they count as unknown.
fn shape(fields: &mut Fields<'_>, place: &Place<'_>) -> Result<Shape, Invalid> {
    let Some(kind) = fields.take("type") else {
        return Ok(Shape::Any);
    };
    Ok(match kind.text()? {
        "boolean" => Shape::Boolean,
        "integer" => {
            let (format, minimum, maximum) = numeric(fields)?;
            Shape::Integer {
                format,
                minimum,
                maximum,
            }
        }
        "number" => {
            let (format, minimum, maximum) = numeric(fields)?;
            Shape::Number {
                format,
                minimum,
                maximum,
            }
        }
        "string" => {
            let values = match fields.take("enum") {
                None => BTreeSet::new(),
                Some(place) => place.texts()?,
            };
            Shape::String {
                format: text(fields, "format")?,
                values,
            }
        }
        "array" => Shape::Array(Box::new(schema(&fields.need("items")?)?)),
        "object" => object(fields, place)?,
        // A slip of v52.0, which can be read in one way only: the format stands where the type belongs.
        width @ ("int8" | "int16" | "int32" | "int64" | "uint8" | "uint16" | "uint32"
        | "uint64") => Shape::Integer {
            format: Some(width.to_owned()),
            minimum: None,
            maximum: None,
        },
        other => {
            let found = format!("`{other:.60}`");
            return Err(kind.invalid(Problem::Expected {
                expected: "a type of OpenAPI 3.0",
                found,
            }));
        }
    })
}

fn object(fields: &mut Fields<'_>, place: &Place<'_>) -> Result<Shape, Invalid> {
    let properties = fields.take("properties");
    let required = fields
        .take("required")
        .map(|place| place.texts())
        .transpose()?
        .unwrap_or_default();
    if let Some(values) = fields.take("additionalProperties") {
        return match properties {
            None if required.is_empty() => Ok(Shape::Map(Box::new(schema(&values)?))),
            _ => Err(place.invalid(Problem::Conflict("additionalProperties", "properties"))),
        };
    }
    let properties = match properties {
        None => BTreeMap::new(),
        Some(properties) => properties
            .entries()?
            .map(|(name, place)| Ok((name.to_owned(), schema(&place)?)))
            .collect::<Result<_, Invalid>>()?,
    };
    Ok(Shape::Object {
        properties,
        required,
    })
}

type Numeric = (
    Option<String>,
    Option<serde_json::Number>,
    Option<serde_json::Number>,
);

fn numeric(fields: &mut Fields<'_>) -> Result<Numeric, Invalid> {
    let mut bound = |keyword| {
        fields
            .take(keyword)
            .map(|place| place.number().cloned())
            .transpose()
    };
    let (minimum, maximum) = (bound("minimum")?, bound("maximum")?);
    Ok((text(fields, "format")?, minimum, maximum))
}

fn text(fields: &mut Fields<'_>, keyword: &'static str) -> Result<Option<String>, Invalid> {
    fields
        .take(keyword)
        .map(|place| place.text().map(str::to_owned))
        .transpose()
}

fn flag(fields: &mut Fields<'_>, keyword: &'static str) -> Result<bool, Invalid> {
    fields.take(keyword).map_or(Ok(false), |place| place.flag())
}

/// The name that `$ref` leads to. Whether there is such a schema is checked when all are known.
fn referenced(place: &Place<'_>) -> Result<String, Invalid> {
    let text = place.text()?;
    match text.strip_prefix("#/components/schemas/") {
        Some(name) if !name.is_empty() && !name.contains('/') => Ok(name.to_owned()),
        _ => Err(place.invalid(Problem::DanglingReference(text.to_owned()))),
    }
}
