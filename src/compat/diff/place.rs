//! [`Place`]: a schema at its place in one of the two documents.

use std::collections::BTreeMap;

use crate::spec::{Contract, Schema, Shape, escaped};

/// The schema of a value without restrictions.
static ANY: Schema = Schema {
    shape: Shape::Any,
    default: None,
    nullable: false,
    deprecated: false,
    constraints: BTreeMap::new(),
};

/// A schema with its place.
#[derive(Clone)]
pub(super) struct Place<'c> {
    pub(super) schema: &'c Schema,
    /// The JSON pointer of the schema's text. The places inside the schema are below it.
    pub(super) pointer: String,
    /// The JSON pointer at which a change of the value itself is reported. It is `pointer`, unless only one of the
    /// documents has a reference at this place: then the place changed, and not the named schema.
    pub(super) seat: String,
    /// The name for readers: `DiskConfig.path`, `vm.create request.disks[]`.
    pub(super) name: String,
    /// The name of the schema, if it is a named one.
    pub(super) named: Option<&'c str>,
}

impl<'c> Place<'c> {
    pub(super) fn root(schema: &'c Schema, pointer: String, name: String) -> Self {
        Place {
            schema,
            seat: pointer.clone(),
            pointer,
            name,
            named: None,
        }
    }

    /// Returns this schema as the one at `place`. It is used if the other document has no reference there.
    pub(super) fn seen_from(self, place: &Place<'c>) -> Self {
        Place {
            seat: place.seat.clone(),
            name: place.name.clone(),
            ..self
        }
    }

    /// Returns the property `name` of this object.
    pub(super) fn property(&self, name: &str, schema: &'c Schema) -> Place<'c> {
        Place::root(
            schema,
            format!("{}/properties/{}", self.pointer, escaped(name)),
            format!("{}.{name}", self.name),
        )
    }

    /// Returns the items of this list.
    pub(super) fn items(&self, schema: &'c Schema) -> Place<'c> {
        Place::root(
            schema,
            format!("{}/items", self.pointer),
            format!("{}[]", self.name),
        )
    }

    /// Returns the values of this map. An object that does not restrict its unnamed values has values of any type,
    /// which have no place of their own.
    pub(super) fn values(&self) -> Place<'c> {
        let name = format!("{}{{}}", self.name);
        match &self.schema.shape {
            Shape::Map(values) => Place::root(
                values,
                format!("{}/additionalProperties", self.pointer),
                name,
            ),
            _ => Place::root(&ANY, self.pointer.clone(), name),
        }
    }
}

/// The named schemas of one document. For a schema that is only a reference to another one, `ends` has the name of the
/// last schema in the chain.
pub(super) struct Names<'c> {
    contract: &'c Contract,
    ends: BTreeMap<&'c str, &'c str>,
}

impl<'c> Names<'c> {
    pub(super) fn of(contract: &'c Contract) -> Self {
        let mut ends: BTreeMap<&str, &str> = BTreeMap::new();
        for name in contract.schemas.keys() {
            let mut chain = vec![name.as_str()];
            let mut at = name.as_str();
            // A contract that was read has no cycle of references. One that was built by a program may have one; this
            // loop ends all the same.
            while let Some(Shape::Reference(next)) =
                contract.schemas.get(at).map(|schema| &schema.shape)
                && !ends.contains_key(at)
                && chain.len() <= contract.schemas.len()
            {
                at = next;
                chain.push(at);
            }
            let end = ends.get(at).copied().unwrap_or(at);
            ends.extend(chain.into_iter().map(|name| (name, end)));
        }
        Names { contract, ends }
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.contract.schemas.contains_key(name)
    }

    /// Returns the named schema that `place` refers to, or `place` itself.
    pub(super) fn resolve(&self, place: &Place<'c>) -> Place<'c> {
        let Shape::Reference(name) = &place.schema.shape else {
            return place.clone();
        };
        let found = self
            .ends
            .get(name.as_str())
            .and_then(|end| self.contract.schemas.get_key_value(*end));
        match found {
            None => place.clone(),
            Some((name, schema)) => {
                let pointer = format!("/components/schemas/{}", escaped(name));
                Place {
                    named: Some(name),
                    ..Place::root(schema, pointer, name.clone())
                }
            }
        }
    }

    /// Returns the named schema that `schema` refers to, or `schema` itself.
    pub(super) fn shape(&self, schema: &'c Schema) -> &'c Schema {
        match &schema.shape {
            Shape::Reference(name) => self
                .ends
                .get(name.as_str())
                .and_then(|end| self.contract.schemas.get(*end))
                .unwrap_or(schema),
            _ => schema,
        }
    }
}
