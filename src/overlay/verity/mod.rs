//! The Linux fs-verity digest of a file: a tree of hashes over its blocks.
//!
//! Each block of 4 KiB is hashed (the last one filled up with zeros). 128 such hashes make a block of the next level,
//! which is hashed in turn, and so on up to one hash, the root; [`VerityDigest`] is the hash of a descriptor with the
//! root and the length. (Documentation/filesystems/fsverity.rst of the kernel, "Merkle tree".)
//!
//! Segments of 128 blocks are hashed by several threads ([`Tree`]), each of which keeps four blocks in flight (`block`,
//! `sha_ni`). The levels above the segments take little time, and the calling thread computes them ([`levels`]).

mod block;
mod digest;
mod levels;
#[cfg(target_arch = "x86_64")]
mod sha_ni;
mod tree;
mod two_digests;

pub use digest::VerityDigest;
pub(super) use tree::Tree;
pub(super) use two_digests::TwoDigests;

/// A SHA-256 within the tree.
type Hash = [u8; 32];
