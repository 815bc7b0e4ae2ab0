//! What is generated from: the corrected contract, and what the document said before.

use std::collections::BTreeSet;
use std::path::Path;

use chv_sandbox::spec::{
    self, Applied, Content, Contract, Corrections, Endpoint, Method, Schema, Shape,
};

use super::names;

/// The contract with what the generator has to know beside it.
pub(super) struct Api {
    /// The contract as the server has it.
    pub(super) contract: Contract,
    /// The contract as the document has it.
    documented: Contract,
    /// Which correction touched which place.
    applied: Applied,
    /// The schemas that may be part of an answer.
    pub(super) answered: BTreeSet<String>,
    /// The schemas that may be part of a request.
    pub(super) asked: BTreeSet<String>,
}

/// One operation: an endpoint with its names.
pub(super) struct Op<'a> {
    /// `vm.add-disk`
    pub(super) name: &'a str,
    /// `/api/v1/vm.add-disk`
    pub(super) path: String,
    /// `VmAddDisk`
    pub(super) variant: syn::Ident,
    /// `vm_add_disk`
    pub(super) function: syn::Ident,
    pub(super) method: Method,
    pub(super) endpoint: &'a Endpoint,
}

impl Api {
    /// Reads the contract and the corrections below `folder`.
    pub(super) fn read(folder: &Path) -> Api {
        let documented = spec::read(&folder.join("v53.0.json")).expect("the contract is valid");
        let corrections =
            Corrections::read(&folder.join("corrections.toml")).expect("the corrections are valid");
        let mut contract = documented.clone();
        let applied = corrections
            .apply(&mut contract)
            .expect("every correction applies");
        let mut api = Api {
            contract,
            documented,
            applied,
            answered: BTreeSet::new(),
            asked: BTreeSet::new(),
        };
        let (mut answered, mut asked) = (BTreeSet::new(), BTreeSet::new());
        for op in api.operations() {
            for response in op.endpoint.responses.values() {
                json(&response.content).inspect(|schema| api.reach(schema, &mut answered));
            }
            if let Some(body) = &op.endpoint.body {
                json(&body.content).inspect(|schema| api.reach(schema, &mut asked));
            }
        }
        (api.answered, api.asked) = (answered, asked);
        api
    }

    /// Every operation, sorted by name.
    pub(super) fn operations(&self) -> impl Iterator<Item = Op<'_>> {
        let base = self.contract.server.trim_start_matches("http://localhost");
        self.contract.paths.iter().flat_map(move |(path, methods)| {
            assert_eq!(
                methods.len(),
                1,
                "{path}: an operation is named by its path alone"
            );
            methods.iter().map(move |(method, endpoint)| {
                let name = path.trim_start_matches('/');
                Op {
                    name,
                    path: format!("{base}{path}"),
                    variant: names::variant(name),
                    function: names::field(name),
                    method: *method,
                    endpoint,
                }
            })
        })
    }

    /// Adds every schema that can be reached from `schema`.
    pub(super) fn reach(&self, schema: &Schema, reached: &mut BTreeSet<String>) {
        match &schema.shape {
            Shape::Reference(name) if reached.insert(name.clone()) => {
                self.reach(&self.contract.schemas[name], reached);
            }
            Shape::Array(items) => self.reach(items, reached),
            Shape::Map(values) => self.reach(values, reached),
            Shape::Object { properties, .. } => {
                properties
                    .values()
                    .for_each(|property| self.reach(property, reached));
            }
            _ => {}
        }
    }

    /// The schema that `schema` stands for, whose default it shares.
    pub(super) fn resolve<'a>(&'a self, schema: &'a Schema) -> &'a Schema {
        match &schema.shape {
            Shape::Reference(name) => self.resolve(&self.contract.schemas[name]),
            _ => schema,
        }
    }

    /// The correction that a property owes its name to, for a property that the document does not have.
    pub(super) fn undocumented(&self, schema: &str, property: &str) -> Option<&str> {
        let known = match self
            .documented
            .schemas
            .get(schema)
            .map(|schema| &schema.shape)
        {
            Some(Shape::Object { properties, .. }) => properties.contains_key(property),
            _ => false,
        };
        let correction = self.applied.get(&format!("{schema}.{property}"));
        (!known).then(|| correction.map(String::as_str)).flatten()
    }

    /// The correction that added a schema, for one that the document does not have.
    pub(super) fn undocumented_schema(&self, schema: &str) -> Option<&str> {
        let known = self.documented.schemas.contains_key(schema);
        (!known)
            .then(|| self.applied.get(schema).map(String::as_str))
            .flatten()
    }
}

/// The schema of a JSON body.
pub(super) fn json(content: &Content) -> Option<&Schema> {
    assert!(
        content
            .keys()
            .all(|media_type| media_type == "application/json"),
        "{content:?} is not only JSON"
    );
    content.values().next()
}
