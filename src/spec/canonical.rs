//! Writes a [`Contract`] in its canonical form: an OpenAPI document in JSON with sorted keys and without prose. Equal
//! contracts give the same bytes.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{Body, Content, Contract, Endpoint, Response, Schema, Shape};

impl Contract {
    /// Returns the contract as an OpenAPI 3.0 document in JSON, with a newline at its end. [`read`](super::read) of
    /// that text gives an equal contract, and the canonical form of that contract has the same bytes.
    ///
    /// OpenAPI requires a `title` and a `description` in some places. The canonical form writes fixed or empty texts
    /// there.
    pub fn canonical(&self) -> String {
        let mut text = format!("{:#}", sorted(self.document()));
        text.push('\n');
        text
    }

    fn document(&self) -> Value {
        let paths = self.paths.iter().map(|(path, methods)| {
            let methods = methods
                .iter()
                .map(|(method, endpoint)| (method.key().to_owned(), self::endpoint(endpoint)));
            (path.clone(), Value::Object(methods.collect()))
        });
        let schemas = self
            .schemas
            .iter()
            .map(|(name, schema)| (name.clone(), self::schema(schema)));
        json!({
            "openapi": "3.0.1",
            "info": { "title": "VMM API", "version": self.release.to_string() },
            "servers": servers(&self.servers),
            "paths": paths.collect::<Map<_, _>>(),
            "components": { "schemas": schemas.collect::<Map<_, _>>() },
        })
    }
}

fn servers(addresses: &[String]) -> Value {
    addresses
        .iter()
        .map(|address| json!({ "url": address }))
        .collect()
}

fn endpoint(endpoint: &Endpoint) -> Value {
    let responses = endpoint.all_responses().into_iter();
    let responses = responses.map(|(status, Response { content })| {
        let mut response = json!({ "description": "" });
        if !content.is_empty() {
            response["content"] = self::content(content);
        }
        (status, response)
    });
    let mut value = json!({ "responses": responses.collect::<Map<_, _>>() });
    if let Some(Body { required, content }) = &endpoint.body {
        value["requestBody"] = json!({ "content": self::content(content), "required": required });
    }
    if endpoint.deprecated {
        value["deprecated"] = true.into();
    }
    if !endpoint.servers.is_empty() {
        value["servers"] = servers(&endpoint.servers);
    }
    value
}

fn content(content: &Content) -> Value {
    let content = content.iter().map(|(media_type, schema)| {
        (
            media_type.clone(),
            json!({ "schema": self::schema(schema) }),
        )
    });
    Value::Object(content.collect())
}

/// Returns `schema` as it is written in an OpenAPI document.
pub(super) fn schema(schema: &Schema) -> Value {
    let mut value = shape(&schema.shape);
    if let Some(default) = &schema.default {
        value["default"] = default.clone();
    }
    if schema.nullable {
        value["nullable"] = true.into();
    }
    if schema.deprecated {
        value["deprecated"] = true.into();
    }
    for (keyword, constraint) in &schema.constraints {
        value[*keyword] = constraint.clone();
    }
    value
}

fn shape(shape: &Shape) -> Value {
    let mut value = match shape {
        Shape::Any => json!({}),
        Shape::Reference(name) => json!({ "$ref": format!("#/components/schemas/{name}") }),
        Shape::Map(values) => json!({ "type": "object", "additionalProperties": schema(values) }),
        other => json!({ "type": other.kind() }),
    };
    let mut set = |keyword: &str, fact: Option<Value>| {
        if let Some(fact) = fact {
            value[keyword] = fact;
        }
    };
    match shape {
        Shape::Integer {
            format,
            minimum,
            maximum,
        }
        | Shape::Number {
            format,
            minimum,
            maximum,
        } => {
            set("format", format.clone().map(Value::from));
            set("minimum", minimum.clone().map(Value::from));
            set("maximum", maximum.clone().map(Value::from));
        }
        Shape::String { format, values } => {
            set("format", format.clone().map(Value::from));
            set("enum", list(values));
        }
        Shape::Array(items) => set("items", Some(schema(items))),
        Shape::Object {
            properties,
            required,
        } => {
            let properties = properties
                .iter()
                .map(|(name, property)| (name.clone(), schema(property)));
            set("properties", Some(Value::Object(properties.collect())));
            set("required", list(required));
        }
        Shape::Any | Shape::Boolean | Shape::Map(_) | Shape::Reference(_) => {}
    }
    value
}

/// Returns the texts as a JSON list, or `None` if there are none: OpenAPI does not allow an empty `required`.
fn list(texts: &BTreeSet<String>) -> Option<Value> {
    (!texts.is_empty()).then(|| texts.iter().cloned().collect())
}

/// Sorts the keys of all objects. This is needed because another crate of the build may enable serde_json's
/// `preserve_order` feature, which keeps keys in the order of insertion.
fn sorted(mut document: Value) -> Value {
    document.sort_all_objects();
    document
}
