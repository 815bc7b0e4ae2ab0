//! [`try_all`] finds out which fields of a request a server reads.
//!
//! A server ignores a field that it doesn't know, without an error. A value of a wrong type shows the difference: the
//! server refuses it in a field that it reads, and accepts it in a field that it ignores. So each field of each
//! contract is sent with such a value, and again under a name of the same length that no release has. If both get the
//! same answer, the field is ignored. This needs no VM and has no effect: a request that the server accepts in spite of
//! the wrong value fails for another reason, and a VM that gets created is deleted again.
//!
//! Whether a field is required, and which of its values are allowed, is found by sending it and by leaving it out. A
//! request that the server can't parse is answered with status 400. A request whose only fault is that there is no VM
//! has another status.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use super::Error;
use super::field_bodies::{self, ANY_TEXT, Needed, Trap, unknown};
use super::session::{ask, start};
use crate::replay::wire::RawResponse;
use crate::spec::Contract;
use crate::vmm::{Vmm, VmmConfig};

/// A field of a request, and how a server treats it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// The name of the operation: `vm.create`.
    pub operation: String,
    /// The JSON pointer of the field in the body: `/disks/0/path`.
    pub place: String,
    /// The JSON pointer of the field in the contract that it was taken from.
    pub pointer: String,
    /// Whether the server reads the field. `None` if the server ended without an answer.
    pub read: Option<bool>,
    /// Whether the server refuses a request without the field but accepts one with it. `None` if it accepts neither.
    pub required: Option<bool>,
    /// Whether the contract that the field was taken from requires it.
    pub required_by_contract: bool,
    /// The values of the contract that the server refuses, although it accepts a request without the field.
    pub refused: Vec<String>,
}

/// Tries the fields of every request in `contracts`, on VMMs that have no VM. Paths that are not in `served` are left
/// out. A field that several contracts have gets the pointer of the first of them.
pub(super) async fn try_all(
    config: &VmmConfig,
    contracts: &[&Contract],
    served: &BTreeSet<String>,
) -> Result<Vec<Field>, Error> {
    let needed = Needed::by_any(contracts);
    let mut traps: BTreeMap<(String, String), Trap> = BTreeMap::new();
    for contract in contracts {
        for trap in field_bodies::of(contract, &needed) {
            if served.contains(&trap.path) {
                let key = (trap.path.clone(), trap.place.clone());
                traps.entry(key).or_insert(trap);
            }
        }
    }
    let mut server = Server {
        config,
        vmm: start(config, None).await?,
    };
    let mut fields = Vec::new();
    for trap in traps.into_values() {
        fields.push(server.try_one(trap).await?);
    }
    server.vmm.shutdown().await;
    Ok(fields)
}

/// A VMM, which is started again when it ends.
struct Server<'a> {
    config: &'a VmmConfig,
    vmm: Vmm,
}

impl Server<'_> {
    async fn try_one(&mut self, trap: Trap) -> Result<Field, Error> {
        let Trap { path, name, .. } = &trap;
        let with = self.answer(path, &trap.body, name).await?;
        let without = self.answer(path, &trap.control, &unknown(name)).await?;
        let read = with.zip(without).map(|(with, without)| with != without);
        let left_out = self.is_malformed(path, &trap.without).await?;
        let mut taken = false;
        let mut refused = Vec::new();
        for (value, body) in &trap.with {
            match self.is_malformed(path, body).await? {
                // The value may have to be an address or a path.
                Some(true) if value == ANY_TEXT => {}
                Some(true) => refused.push(value.to_string()),
                Some(false) => taken = true,
                None => {}
            }
        }
        if left_out != Some(false) {
            refused.clear();
        }
        Ok(Field {
            operation: path.trim_start_matches('/').to_owned(),
            read,
            required: left_out.filter(|left_out| taken || !left_out),
            required_by_contract: trap.required,
            refused,
            place: trap.place,
            pointer: trap.pointer,
        })
    }

    /// Whether the server can't parse a body. `None` if the VMM ends.
    async fn is_malformed(&mut self, path: &str, body: &Value) -> Result<Option<bool>, Error> {
        let answer = self.answer(path, body, "").await?;
        Ok(answer.map(|(status, _)| status == 400))
    }

    async fn answer(
        &mut self,
        path: &str,
        body: &Value,
        name: &str,
    ) -> Result<Option<(u16, String)>, Error> {
        let answer = answer(self.vmm.client().address().path(), path, body, name).await?;
        if answer.is_none() {
            self.vmm.shutdown().await;
            self.vmm = start(self.config, None).await?;
        }
        Ok(answer)
    }
}

/// Returns the status and the text of the answer to `body`, without the name of the field that is tried. `None` if the
/// VMM ends.
async fn answer(
    socket: &Path,
    path: &str,
    body: &Value,
    name: &str,
) -> Result<Option<(u16, String)>, Error> {
    const DURING: &str = "trying fields";
    // In some releases this call ends the VMM if there is no VM to send.
    let needs_vm = path == "/vm.send-migration";
    if needs_vm {
        put(socket, "/vm.create", b"{}", DURING).await?;
    }
    let answer = put(socket, path, body.to_string().as_bytes(), DURING).await?;
    if needs_vm || (path == "/vm.create" && answer.as_ref().is_some_and(|a| a.status < 300)) {
        put(socket, "/vm.delete", b"", DURING).await?;
    }
    Ok(answer.map(|answer| {
        let said = String::from_utf8_lossy(&answer.body).replace(&format!("`{name}`"), "");
        (answer.status, said)
    }))
}

async fn put(
    socket: &Path,
    path: &str,
    body: &[u8],
    during: &'static str,
) -> Result<Option<RawResponse>, Error> {
    match ask(socket, "PUT", &format!("/api/v1{path}"), body, during).await {
        Err(error) if error.is_vmm_ended() => Ok(None),
        answer => answer,
    }
}
