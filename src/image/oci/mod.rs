//! Makes a root disk from a container image ([`Assembled`]): an OCI layout, a tar of one, or a `docker save` archive.
//!
//! ```text
//! store ──▶ select ──▶ layers ──▶ apply ──▶ tree + spool ──▶ disk
//! blobs     one image  digests    whiteouts  names, contents  ext4
//! ```
//!
//! No file of the image is ever created as a file on the host: contents are collected in one nameless file, names and
//! owners in memory, and the ext4 is written from both. The size and digest of every blob are checked as it is read.
//! | in the layers | in the root |
//! |---|---|
//! | files, directories, symbolic and hard links, FIFOs | as they are: owner, mode with set-id bits, mtime |
//! | `security.capability`, `user.*` | kept; other extended attributes are left out and counted |
//! | devices | left out and counted, because the guest has its own |
//! | whiteouts, opaque directories | hide files of the layers below; a duplicate, or one of a whiteout, is an error |
//! | an entry below a symbolic link | is placed where the link leads inside the root, as container runtimes do |
//! | a name twice in one layer | an error, unless both entries are directories; then the last counts |
//! | absolute names, `..` | an error |
//!
//! A directory that no layer declares belongs to root, has mode 0755 and a fixed time. The guest's mount points and the
//! image's working directory are created if they are missing.

mod apply;
mod decompress;
mod disk;
mod documents;
mod error;
mod execution;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzz;
mod hashing;
mod layers;
mod pax;
mod select;
mod spool;
mod store;
mod tar;
mod tools;
mod tree;

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{Error, input::MIB, stop::Stop};
use crate::digest::Digest;
use apply::Applier;
use disk::Disk;
pub use error::{ContainerError, LayerError};
use execution::Root;
use spool::Spool;
use store::Store;
use tree::Tree;

/// The default of [`ContainerSource::content_limit`], in bytes: 16 GiB.
pub const DEFAULT_CONTENT_LIMIT: u64 = 16 * 1024 * MIB;

/// The guest's mount points, with the modes for those that are created.
const MOUNT_POINTS: [(&str, u16); 4] = [
    ("dev", 0o755),
    ("proc", 0o755),
    ("sys", 0o755),
    ("tmp", 0o1777),
];

/// A [container image](super#container-images) as the content of a root disk. It must be for `linux/amd64`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ContainerSource {
    /// The path of an OCI layout (a directory, or an uncompressed tar of one) or of a `docker save` archive. A symbolic
    /// link is refused with [`ContainerError::NotLayout`].
    pub path: PathBuf,
    /// Which image to take: its tag, its full name with the tag, or its digest (`sha256:` and 64 hexadecimal digits),
    /// which is that of its descriptor in `index.json`, or of its configuration in a `docker save` archive.
    ///
    /// With `None` the layout must hold one image, or be an OCI layout with exactly one for `linux/amd64`. Otherwise
    /// the error is [`ContainerError::SeveralImages`] or [`ContainerError::Platform`].
    pub image: Option<String>,
    /// The most bytes that all its layers together may have once they are decompressed: the bytes of the tar archives,
    /// headers included. With more the error is a [`LayerError::Limit`].
    pub content_limit: u64,
    /// Offers the image's entry point as a tool; `None` for no such tool.
    pub entrypoint_tool: Option<EntrypointTool>,
}

impl ContainerSource {
    /// The only image at `path`, with [`DEFAULT_CONTENT_LIMIT`] and without a tool for its entry point.
    pub fn new(path: impl Into<PathBuf>) -> ContainerSource {
        ContainerSource {
            path: path.into(),
            image: None,
            content_limit: DEFAULT_CONTENT_LIMIT,
            entrypoint_tool: None,
        }
    }
}

/// How an image's entry point (`Entrypoint` of its configuration, or `Cmd` if it has none) is offered as a tool.
#[derive(Clone, Debug)]
pub struct EntrypointTool {
    /// The tool's name: 1 to 64 of `a-z`, `0-9`, `_` and `-`, and not that of a built-in tool, otherwise
    /// [`Error::Tools`]. A name that the tools file has is a [`ContainerError::Entrypoint`].
    pub name: String,
    /// The names of the tool's parameters, of the same characters. Each value becomes one argument after the entry
    /// point, in this order. If there are any, they replace the image's own arguments (`Cmd` beside an `Entrypoint`).
    pub arguments: Vec<String>,
}

/// The record of the container image that a root disk was made from, in the [`Manifest`](super::Manifest) of the packed
/// image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ContainerRecord {
    /// The digest of the container image's manifest; absent (`None`) for a `docker save` archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Digest>,
    /// The digest of the container image's configuration, which has the digests of its decompressed layers.
    pub config: Digest,
    /// The first name that the layout gives the container image: a tag, or a full name with its tag; absent (`None`)
    /// for an image without a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// How many [layers](super#container-images) the container image has.
    pub layers: u64,
    /// How many regular files in the root have the set-user-id or the set-group-id bit.
    pub set_id_files: u64,
    /// How many devices were left out, summed over all layers.
    pub skipped_devices: u64,
    /// How many extended attributes were left out, summed over all entries of all layers.
    pub skipped_attributes: u64,
}

impl ContainerRecord {
    /// The digest that identifies the container image: that of its manifest, or that of its configuration if there is
    /// no manifest.
    pub fn digest(&self) -> Digest {
        self.manifest.unwrap_or(self.config)
    }
}

/// An image whose layers were read and applied.
pub(super) struct Assembled {
    tree: Tree,
    spool: File,
    /// The tools file, with the image's additions.
    pub(super) tools: Option<Vec<u8>>,
    pub(super) record: ContainerRecord,
}

impl Assembled {
    /// Reads the image. The contents of its files are kept in `scratch`. `tools` is a valid tools file.
    pub(super) fn read(
        source: &ContainerSource,
        tools: Option<&[u8]>,
        scratch: &Path,
        stop: Stop<'_>,
    ) -> Result<Assembled, Error> {
        let store = Store::open(&source.path, stop)?;
        let selected = select::select(&store, source.image.as_deref(), |problem| {
            ContainerError::NotLayout {
                path: source.path.clone(),
                problem,
            }
        })?;
        let mut spool = Spool::new(scratch)?;
        let mut applier = Applier::new(&mut spool, stop);
        layers::apply(&store, &selected.layers, source.content_limit, &mut applier)?;
        let Applier {
            mut tree, counts, ..
        } = applier;
        let spool = spool.finish();
        let spool = spool.map_err(Error::io("write a file in", scratch))?;

        let mut root = Root {
            tree: &mut tree,
            spool: &spool,
        };
        for (name, mode) in MOUNT_POINTS {
            root.mount_point(name, mode)?;
        }
        let execution = selected.config.config.unwrap_or_default();
        let entrypoint = source.entrypoint_tool.as_ref();
        let tools = tools::file(tools, &execution, entrypoint, &mut root)?;
        let record = ContainerRecord {
            manifest: selected.manifest,
            config: selected.config_digest,
            reference: selected.reference,
            layers: selected.layers.len() as u64,
            set_id_files: tree.set_id_files(),
            skipped_devices: counts.devices,
            skipped_attributes: counts.attributes,
        };
        Ok(Assembled {
            tree,
            spool,
            tools,
            record,
        })
    }

    /// Writes the root disk to `file`, which lies at `path`.
    pub(super) fn write(
        &mut self,
        file: &File,
        path: &Path,
        size_mib: Option<u64>,
        stop: Stop<'_>,
    ) -> Result<(), Error> {
        let disk = Disk {
            file,
            path,
            size_mib,
            stop,
        };
        disk.write(&self.tree, &mut self.spool)
    }
}
