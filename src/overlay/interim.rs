use super::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::path::Path;
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Debug)]
pub struct VerityDigest([u8; 32]);
impl std::fmt::Display for VerityDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "fsverity-sha256:{:?}", self.0)
    }
}
impl From<[u8; 32]> for VerityDigest {
    fn from(b: [u8; 32]) -> Self {
        Self(b)
    }
}
impl VerityDigest {
    pub fn of(b: &[u8]) -> Self {
        Self(Sha256::digest(b).into())
    }
}
pub struct HashedV {
    pub digest: VerityDigest,
    pub length: u64,
    pub identity: FileIdentity,
}
#[derive(Default)]
pub struct Threads;
pub struct Digests {
    pub sha256: Digest,
    pub fsverity: VerityDigest,
    pub length: u64,
    pub identity: FileIdentity,
}
pub fn fsverity(p: &Path, a: AccessPolicy, _: Threads) -> Result<HashedV, Error> {
    let h = sha256(p, a)?;
    Ok(HashedV {
        digest: VerityDigest(*h.digest.as_bytes()),
        length: h.length,
        identity: h.identity,
    })
}
pub fn digests(p: &Path, a: AccessPolicy) -> Result<Digests, Error> {
    let h = sha256(p, a)?;
    Ok(Digests {
        sha256: h.digest,
        fsverity: VerityDigest(*h.digest.as_bytes()),
        length: h.length,
        identity: h.identity,
    })
}
