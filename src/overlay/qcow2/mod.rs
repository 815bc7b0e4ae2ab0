//! qcow2 images, as far as a sandbox has to know them: which files a disk is made of, and whether it may be used.
//!
//! Nothing here reads a cluster. [`chain`] reads the headers of an image and of the files below it, and refuses what
//! would let the bytes of a disk come from elsewhere than from those files, or change without a guest's doing.
//!
//! # Version 2 for what is written to
//!
//! A writable overlay has to be of version 2 (`qemu-img create -o compat=0.10`). Opening one of version 3 for writing
//! changes it: the VMM sets the dirty bit in the header, and clears it when it closes the image, so its digest after a
//! restore is never that of the golden copy. A copy that was taken with the bit set is worse: the VMM rebuilds its
//! reference counts, and writes a header without the format of the backing file, which it then guesses. Version 2 has
//! no such bit: opened and not written to, it keeps every byte and its timestamps. (All seen on v51.2, v52.0 and
//! v53.0.) A backing file is opened for reading only, and may be of either version.
//!
//! # Absolute names
//!
//! The VM gets a private copy of the overlay in another directory, and v51.2 and v52.0 look for a relative backing
//! file in the VMM's working directory, v53.0 beside the overlay. So a relative name is refused; one in the header
//! isn't rewritten, since that would give the copy another digest than its origin.

mod chain;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod header;

pub use chain::{Chain, Member, chain};
pub use header::Problem;
