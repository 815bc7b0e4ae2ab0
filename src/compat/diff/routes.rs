//! Matches the paths of two contracts by the addresses that requests go to.
//!
//! The address of a request is a base path followed by a path, so a part of one may move into the other: `/api/v1` with
//! `/vm.info` is the same as `/api` with `/v1/vm.info`.

use std::collections::{BTreeMap, BTreeSet};

use crate::spec::{Contract, Endpoint, Method};

/// The methods of a path, with their endpoints.
pub(super) type Methods = BTreeMap<Method, Endpoint>;

/// Returns the paths of a contract that have a method.
pub(super) fn paths(contract: &Contract) -> BTreeMap<&str, &Methods> {
    contract
        .paths
        .iter()
        .filter(|(_, methods)| !methods.is_empty())
        .map(|(path, methods)| (path.as_str(), methods))
        .collect()
}

/// Returns the path in `revision` for each path of `base` that still exists: a path with an address that it had, or
/// else the path of the same name.
pub(super) fn kept<'c>(base: &'c Contract, revision: &'c Contract) -> BTreeMap<&'c str, &'c str> {
    let (old, new) = (paths(base), paths(revision));
    let of_path = |contract: &Contract, (path, methods): (&&'c str, &&'c Methods)| {
        let endpoints = methods.values();
        let addresses = endpoints.flat_map(|endpoint| addresses(contract, path, endpoint));
        (*path, addresses.collect::<BTreeSet<_>>())
    };
    let old_addresses: BTreeMap<&str, _> = old.iter().map(|path| of_path(base, path)).collect();
    let new_addresses: BTreeMap<&str, _> = new.iter().map(|path| of_path(revision, path)).collect();
    let at: BTreeMap<&str, &str> = new_addresses
        .iter()
        .flat_map(|(path, addresses)| {
            addresses
                .iter()
                .map(move |address| (address.as_str(), *path))
        })
        .collect();

    let mut kept: BTreeMap<&str, &str> = BTreeMap::new();
    let mut taken = BTreeSet::new();
    let in_place = |path: &str| {
        let (before, after) = (&old_addresses[path], new_addresses.get(path));
        after.is_some_and(|after| !before.is_disjoint(after))
    };
    for path in old.keys().filter(|path| in_place(path)) {
        taken.insert(*path);
        kept.insert(path, path);
    }
    for (path, addresses) in &old_addresses {
        if !kept.contains_key(path)
            && let Some(moved) = addresses
                .iter()
                .find_map(|address| at.get(address.as_str()))
            && taken.insert(*moved)
        {
            kept.insert(path, moved);
        }
    }
    for path in old.keys() {
        if !kept.contains_key(path)
            && let Some((same, _)) = new.get_key_value(path)
            && taken.insert(*same)
        {
            kept.insert(path, same);
        }
    }
    kept
}

/// Returns the addresses of `endpoint`, which `contract` has at `path`.
pub(super) fn addresses(contract: &Contract, path: &str, endpoint: &Endpoint) -> BTreeSet<String> {
    let bases = contract.base_paths(endpoint).into_iter();
    bases.map(|base| base + path).collect()
}
