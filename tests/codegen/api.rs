//! The generator's input ([`Api`]): the union of the corrected contracts, and the documents before their correction.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use chv_sandbox::spec::{
    self, Applied, Content, Contract, Corrections, Endpoint, Method, Release, Schema, Shape,
};

use super::names;
use super::union::{self, Known};

/// The union of the contracts, with the documents and the corrections that it was made of.
pub(super) struct Api {
    /// The union of the contracts of all releases, with their corrections.
    pub(super) contract: Contract,
    /// The supported releases, oldest first.
    pub(super) releases: Vec<Release>,
    known: Known,
    /// The contract of each release without corrections.
    documented: BTreeMap<Release, Contract>,
    /// For each release, the name of the correction that changed each place.
    applied: BTreeMap<Release, Applied>,
    /// The names of the schemas that may be part of a response.
    pub(super) answered: BTreeSet<String>,
    /// The names of the schemas that may be part of a request.
    pub(super) asked: BTreeSet<String>,
}

/// The range of releases that know an item. `None` as an end means the oldest or the newest supported release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span {
    pub(super) since: Option<Release>,
    pub(super) until: Option<Release>,
}

/// One operation: an endpoint with its names in Rust.
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

impl Span {
    /// Whether every supported release knows the item.
    pub(super) fn is_universal(self) -> bool {
        self.since.is_none() && self.until.is_none()
    }
}

impl Api {
    /// Reads the contracts and the corrections in `folder`, and forms the union.
    pub(super) fn read(folder: &Path) -> Api {
        let corrections = Corrections::read(&folder.join(spec::CORRECTIONS));
        let corrections = corrections.expect("the corrections are valid");
        let documented = spec::contracts(folder).expect("the contracts are valid");
        let mut applied = BTreeMap::new();
        let mut contracts = Vec::new();
        for (release, document) in &documented {
            let mut contract = document.clone();
            let corrected = corrections
                .apply(&mut contract)
                .unwrap_or_else(|error| panic!("{error}"));
            contracts.push(contract);
            applied.insert(*release, corrected);
        }
        let (contract, known) = union::of(&contracts)
            .unwrap_or_else(|conflicts| panic!("no union:\n{}", conflicts.join("\n")));
        let mut api = Api {
            contract,
            releases: documented.keys().copied().collect(),
            known,
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

    /// Returns every operation, sorted by name.
    pub(super) fn operations(&self) -> impl Iterator<Item = Op<'_>> {
        self.contract.paths.iter().flat_map(move |(path, methods)| {
            assert_eq!(
                methods.len(),
                1,
                "{path} has several methods, but an operation is named by its path alone"
            );
            methods.iter().map(move |(method, endpoint)| {
                let name = path.trim_start_matches('/');
                let bases = self.contract.base_paths(endpoint);
                assert_eq!(bases.len(), 1, "{path} has several base paths");
                let base = bases.first().expect("there is one base path");
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

    /// Adds the names of every schema that can be reached from `schema`.
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

    /// Follows a reference to a schema that is used in its place, and so has the same default.
    pub(super) fn resolve<'a>(&'a self, schema: &'a Schema) -> &'a Schema {
        match &schema.shape {
            Shape::Reference(name) => self.resolve(&self.contract.schemas[name]),
            _ => schema,
        }
    }

    /// Returns the range of releases that know `place`. [`Known`] describes the form of a place.
    pub(super) fn span(&self, place: &str) -> Span {
        let known = self.known.get(place);
        let (first, last) = (self.releases.first(), self.releases.last());
        let since = known.and_then(BTreeSet::first);
        let until = known.and_then(BTreeSet::last);
        Span {
            since: since.filter(|since| Some(*since) != first).copied(),
            until: until.filter(|until| Some(*until) != last).copied(),
        }
    }

    /// Returns a sentence about the releases that know `place`. `None` if these are the releases that know its `owner`.
    pub(super) fn support(&self, place: &str, owner: Option<&str>) -> Option<String> {
        let all = Span {
            since: None,
            until: None,
        };
        let (span, around) = (
            self.span(place),
            owner.map_or(all, |owner| self.span(owner)),
        );
        let since = span.since.filter(|_| span.since != around.since);
        let until = span.until.filter(|_| span.until != around.until);
        match (since, until) {
            (None, None) => None,
            (Some(since), None) => Some(format!("Since {since}.")),
            (None, Some(until)) => Some(format!("Until {until}.")),
            (Some(since), Some(until)) if since == until => Some(format!("Only {since}.")),
            (Some(since), Some(until)) => Some(format!("{since} to {until}.")),
        }
    }

    /// Returns the name of the correction that added or renamed a property, if the document does not have that name.
    pub(super) fn undocumented(&self, schema: &str, property: &str) -> Option<&str> {
        let place = format!("{schema}.{property}");
        let (documented, applied) = self.newest_knowing(&place)?;
        let known = match documented.schemas.get(schema).map(|schema| &schema.shape) {
            Some(Shape::Object { properties, .. }) => properties.contains_key(property),
            _ => false,
        };
        (!known)
            .then(|| applied.get(&place).map(String::as_str))
            .flatten()
    }

    /// Returns the name of the correction that added a schema, if the document does not have it.
    pub(super) fn undocumented_schema(&self, schema: &str) -> Option<&str> {
        let (documented, applied) = self.newest_knowing(schema)?;
        let known = documented.schemas.contains_key(schema);
        (!known)
            .then(|| applied.get(schema).map(String::as_str))
            .flatten()
    }

    /// Returns the uncorrected contract of the newest release that knows `place`, and the corrections of that release.
    fn newest_knowing(&self, place: &str) -> Option<(&Contract, &Applied)> {
        let release = self.known.get(place)?.last()?;
        Some((self.documented.get(release)?, self.applied.get(release)?))
    }
}

/// Returns the schema of a JSON body.
pub(super) fn json(content: &Content) -> Option<&Schema> {
    assert!(
        content
            .keys()
            .all(|media_type| media_type == "application/json"),
        "{content:?} is not only JSON"
    );
    content.values().next()
}
