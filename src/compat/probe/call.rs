//! A call as text (`PUT /api/v1/vm.boot`), and its place in a contract.

use crate::spec::{Contract, Endpoint, Method};

/// Returns the endpoint of a call such as `PUT /api/v1/vm.boot` in the contract, with its JSON pointer.
pub(super) fn endpoint<'a>(contract: &'a Contract, call: &str) -> Option<(String, &'a Endpoint)> {
    let (method, path) = call.split_once(' ')?;
    let path = path.strip_prefix("/api/v1")?;
    let method = Method::ALL.into_iter().find(|m| m.to_string() == method)?;
    let endpoint = contract.paths.get(path)?.get(&method)?;
    let pointer = format!("/paths/{}/{}", path.replace('/', "~1"), method.key());
    Some((pointer, endpoint))
}

/// Returns the name of a call's operation (`vm.boot`), or its path if it is no operation.
pub(super) fn name(call: &str) -> &str {
    let path = call.split_once(' ').map_or(call, |(_, path)| path);
    path.strip_prefix("/api/v1/").unwrap_or(path)
}
