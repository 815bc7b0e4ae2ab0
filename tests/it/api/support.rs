//! Compares the table of which release knows which field with the contracts.

use std::collections::BTreeSet;

use chv_sandbox::api::support::{Kind, Object};
use chv_sandbox::api::types::VmConfig;
use chv_sandbox::api::{self, Operation, Release, Request, SUPPORTED};
use chv_sandbox::spec::{Contract, Schema, Shape};
use proptest::prelude::*;

use crate::spec::contracts;

#[test]
fn the_supported_releases_are_those_of_the_contracts() {
    let contracts = contracts::corrected();
    let releases: Vec<Release> = contracts.iter().map(contracts::release).collect();
    assert_eq!(releases, SUPPORTED);
    assert!(SUPPORTED.is_sorted());
}

#[test]
fn the_table_knows_of_each_release_what_its_contract_does() {
    for contract in contracts::corrected() {
        let release = contracts::release(contract);
        let known: BTreeSet<&str> = Operation::ALL
            .iter()
            .filter(|operation| operation.support().includes(release))
            .map(|operation| operation.name())
            .collect();
        let has: BTreeSet<&str> = contract.paths.keys().map(|path| &path[1..]).collect();
        assert_eq!(known, has, "{release}");
        for &operation in Operation::ALL {
            let schema = contracts::body(contract, operation.name());
            if let (Some(object), Some(schema)) = (operation.body(), schema) {
                let table = Table { contract, release };
                table.check(operation.name(), Kind::Object(object), schema);
            }
        }
    }
}

/// One release's column of the table, and that release's contract.
struct Table<'c> {
    contract: &'c Contract,
    release: Release,
}

impl Table<'_> {
    fn check(&self, place: &str, kind: Kind, schema: &Schema) {
        let schema = contracts::resolved(self.contract, schema);
        match (kind, &schema.shape) {
            (Kind::Object(object), Shape::Object { properties, .. }) => {
                let known = self.known(object);
                let has: BTreeSet<&str> = properties.keys().map(|name| &**name).collect();
                assert_eq!(known, has, "{place} on {}", self.release);
                for (name, schema) in properties {
                    let kind = object.field(name).unwrap().kind;
                    self.check(&format!("{place}/{name}"), kind, schema);
                }
            }
            (Kind::Enumeration(enumeration), Shape::String { values, .. }) => {
                for value in values {
                    let support = enumeration.value(value).unwrap().support;
                    assert!(support.includes(self.release), "{place}={value}");
                }
            }
            (Kind::List(items), Shape::Array(schema)) => self.check(place, *items, schema),
            (Kind::Map(values), Shape::Map(schema)) => self.check(place, *values, schema),
            (Kind::Leaf, shape) => {
                let scalar = !matches!(
                    shape,
                    Shape::Object { .. } | Shape::Array(_) | Shape::Map(_)
                );
                assert!(scalar, "{place} on {}: {shape:?}", self.release);
            }
            (kind, shape) => panic!("{place} on {}: {kind:?} is {shape:?}", self.release),
        }
    }

    fn known(&self, object: &Object) -> BTreeSet<&'static str> {
        let fields = object.fields.iter();
        fields
            .filter(|field| field.support.includes(self.release))
            .map(|field| field.name)
            .collect()
    }
}

#[test]
fn tables_are_sorted() {
    fn check(kind: Kind) {
        match kind {
            Kind::Leaf => {}
            Kind::Enumeration(enumeration) => {
                assert!(enumeration.values.is_sorted_by_key(|value| value.text));
            }
            Kind::Object(object) => {
                assert!(object.fields.is_sorted_by_key(|field| field.name));
                object.fields.iter().for_each(|field| check(field.kind));
            }
            Kind::List(inner) | Kind::Map(inner) => check(*inner),
        }
    }
    let bodies = Operation::ALL
        .iter()
        .filter_map(|operation| operation.body());
    bodies.for_each(|object| check(Kind::Object(object)));
}

proptest! {
    /// A configuration with the fields of one release can be sent to that release, and goes through the types
    /// unchanged.
    #[test]
    fn a_config_of_one_release_suits_it(
        release in 0..SUPPORTED.len(),
        choices in prop::collection::vec(any::<bool>(), 1..400),
    ) {
        let contract = &contracts::corrected()[release];
        let schema = contracts::body(contract, "vm.create").unwrap();
        let mut choices = choices.into_iter().cycle();
        let sent = contracts::value(contract, "", schema, &mut |_| choices.next().unwrap());
        let config: VmConfig = serde_json::from_value(sent.clone()).unwrap();
        let request = api::vm_create(&config);
        let unmet: Vec<_> = request
            .requirements()
            .into_iter()
            .filter(|requirement| !requirement.is_met_by(SUPPORTED[release]))
            .collect();
        prop_assert!(unmet.is_empty(), "{unmet:?}");
        let raw = Request::raw(Operation::VmCreate, Some(sent.to_string().into()));
        let mut requirements = [raw.requirements(), request.requirements()];
        requirements.iter_mut().for_each(|list| list.sort_by(|a, b| a.what.cmp(&b.what)));
        prop_assert_eq!(&requirements[0], &requirements[1]);
    }

    /// Whatever a body is, reading it for its requirements comes to an end without a panic.
    #[test]
    fn any_body_can_be_read(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let request = Request::raw(Operation::VmCreate, Some(body.into()));
        request.requirements();
    }
}
