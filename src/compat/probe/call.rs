//! A call as text, `PUT /api/v1/vm.boot`, and where it stands in a contract.

use crate::spec::{Contract, Endpoint, Method};

/// The endpoint of a call such as `PUT /api/v1/vm.boot` in the contract, with its pointer.
pub(super) fn endpoint<'a>(contract: &'a Contract, call: &str) -> Option<(String, &'a Endpoint)> {
    let (method, path) = call.split_once(' ')?;
    let path = path.strip_prefix("/api/v1")?;
    let method = Method::ALL.into_iter().find(|m| m.to_string() == method)?;
    let endpoint = contract.paths.get(path)?.get(&method)?;
    let pointer = format!("/paths/{}/{}", path.replace('/', "~1"), method.key());
    Some((pointer, endpoint))
}

/// The operation's name of a call (`vm.boot`), or the path that is none's.
pub(super) fn name(call: &str) -> &str {
    let path = call.split_once(' ').map_or(call, |(_, path)| path);
    path.strip_prefix("/api/v1/").unwrap_or(path)
}
