//! Packs a bootable image from a distribution's kernel files and `chv-guest` ([`pack`]), and opens a packed one for use
//! ([`Image`]).
//!
//! An image is a directory (mode 0700) of five files (mode 0600):
//!
//! | file | what | the VM sees it as |
//! |---|---|---|
//! | `kernel` | uncompressed x86-64 ELF with a PVH entry | the payload's kernel |
//! | `initramfs` | newc archive: `chv-guest` as `/init`, and the modules it loads | the payload's initramfs |
//! | `root.img` | ext4 with the programs that tools run, never written to | `/dev/vda`, read-only |
//! | `overlay.img` | empty ext4 that receives what tools write | `/dev/vdb` |
//! | `image.json` | the [`Manifest`]: command line, guest build id, digest of every other file | - |
//!
//! The root disk is made from a static busybox, a directory tree, or a container image ([`RootSource`]).
//!
//! [`pack`] needs neither root nor loop devices. The only programs that it runs are e2fsprogs' `mke2fs` and, where it
//! is installed, `e2fsck`, which checks the root disk. The same inputs packed twice on one machine give the same bytes,
//! because times, owners and random ids are fixed. [`Image::open`] opens an image.
//!
//! Every function here blocks on files. An asynchronous caller runs it on a blocking thread.
//!
//! # Container images
//!
//! A container image is read from an *OCI layout* (an image layout of the OCI: a directory with `index.json` and
//! `blobs/sha256/`, or a tar of one) or from an archive that `docker save` made. The errors call either a layout. It
//! holds one or more images. An image has a manifest, a configuration, and *layers*: tar archives that are applied one
//! over the other. [`ContainerSource`] names the image.
//!
//! | in the layers | in the root |
//! |---|---|
//! | files, directories, symbolic and hard links, FIFOs | as they are, with owner, mode, set-id bits and mtime |
//! | `security.capability`, `user.*` | kept; other extended attributes are left out and counted |
//! | devices | left out and counted, because the guest has its own |
//! | *whiteouts*: entries `.wh.NAME` and `.wh..wh..opq` | hide `NAME`, or every file, of the layers below |
//! | a name twice in one layer | an error, unless both entries are directories; then the last counts |
//! | absolute names, `..` | an error |
//!
//! Tools run with the image's environment, working directory and user, but never as root.

mod compression;
mod depmod;
mod e2fsck;
mod elf;
mod error;
mod ext4;
mod ext4_size;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz {
    //! Fuzz targets.
    pub(crate) use super::depmod::fuzz::modules_dep;
    pub(crate) use super::oci::fuzz::{oci_layer, oci_layout};
}
mod cpio;
mod guest;
mod initramfs;
mod inodes;
mod input;
mod kernel;
mod manifest;
mod mke2fs;
mod modules;
mod oci;
mod open;
mod pack;
mod program;
mod stop;
mod survey;
mod tree;

pub use error::Error;
pub use manifest::{FileRecord, Manifest};
pub use modules::ModuleSource;
pub use oci::{
    ContainerError, ContainerRecord, ContainerSource, DEFAULT_CONTENT_LIMIT, EntrypointTool,
    LayerError,
};
pub use open::Image;
pub use pack::{
    DEFAULT_CMDLINE, DEFAULT_OVERLAY_MIB, ImageSpec, RootSource, guest_beside_executable, pack,
    pack_until,
};
