//! Checks qcow2 images for use by a sandbox: [`chain`] finds the files that make a disk, and refuses images that can't
//! be used safely.
//!
//! Only headers are read, no clusters. [`chain`] reads the headers of an image and of its backing files. It refuses an
//! image whose disk would take bytes from other files, or would change without a write by the guest.
//!
//! # Writable images must be of version 2
//!
//! A writable overlay has to be of version 2 (`qemu-img create -o compat=0.10`). Opening one of version 3 for writing
//! changes it: the VMM sets the dirty bit in the header, and clears it when it closes the image, so its digest after a
//! restore is never that of the golden copy. If a copy was taken with the bit set, the VMM also rebuilds its reference
//! counts, and writes a header without the format of the backing file, which it then guesses. Version 2 has no such
//! bit: an image that is opened and not written to keeps every byte and its timestamps. (All observed on v51.2, v52.0
//! and v53.0.) A backing file is opened for reading only, and may be of either version.
//!
//! # Backing files must have absolute names
//!
//! The VM gets a private copy of the overlay in another directory, and v51.2 and v52.0 look for a relative backing file
//! in the VMM's working directory, v53.0 beside the overlay. So a relative name is refused. The name in the copy's
//! header isn't rewritten either, because the copy would then have another digest than the original.

mod chain;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod header;

pub use chain::{Chain, Member, chain};
pub use header::Problem;
