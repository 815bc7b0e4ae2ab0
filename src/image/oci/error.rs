//! The errors about container images: [`ContainerError`] and [`LayerError`].

use std::{io, path::PathBuf};

/// Why no root disk could be made from a container image. No file of the image is left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContainerError {
    /// The path is neither an OCI layout, nor a tar of one, nor a `docker save` archive.
    #[error("{} is neither an OCI layout (a directory or a tar) nor a `docker save` archive: {problem}", path.display())]
    NotLayout {
        /// The path.
        path: PathBuf,
        /// The missing or wrong part.
        problem: &'static str,
    },
    /// A file of the layout lies behind a symbolic link, or is not a regular file.
    #[error("{name} of the layout is a symbolic link, or neither a regular file nor a directory")]
    NotInside {
        /// The file, below the layout's directory.
        name: String,
    },
    /// A file of the layout cannot be read.
    #[error("{name} of the layout cannot be read")]
    Unreadable {
        /// The file, below the layout's directory.
        name: String,
        /// The system's error.
        source: io::Error,
    },
    /// The tar that holds the layout is damaged, or has an entry that no layout has.
    #[error("the archive {} cannot be read", path.display())]
    Archive {
        /// The archive.
        path: PathBuf,
        /// The problem.
        source: LayerError,
    },
    /// A document of the image is not JSON of the expected shape.
    #[error("the image's {document} is not of the expected shape")]
    Document {
        /// Which document.
        document: &'static str,
        /// Where the JSON differs.
        source: serde_json::Error,
    },
    /// A document of the image has the expected shape, but an invalid or unsupported value.
    #[error("the image's {document} cannot be used: {problem}")]
    Value {
        /// Which document.
        document: &'static str,
        /// The problem.
        problem: String,
    },
    /// A descriptor has a media type that is not supported in its document.
    #[error(
        "a descriptor of the image's {document} has the media type {found:?}, which is not supported there"
    )]
    MediaType {
        /// The document that has the descriptor.
        document: &'static str,
        /// The type.
        found: String,
    },
    /// The layout holds no image of this name.
    #[error("the layout holds no image {wanted:?}; it holds {}", list(held))]
    NoSuchImage {
        /// The name that was requested.
        wanted: String,
        /// The names of the images in the layout.
        held: Vec<String>,
    },
    /// The layout holds several images, and none was named.
    #[error("the layout holds several images; name one of {}", list(held))]
    SeveralImages {
        /// The names of the images in the layout.
        held: Vec<String>,
    },
    /// The image is not for the guest's platform.
    #[error("the image is for {}, and the guest runs linux/amd64", list(found))]
    Platform {
        /// The platforms that it is for.
        found: Vec<String>,
    },
    /// The layout lacks a blob.
    #[error("the layout lacks the blob {blob}")]
    BlobMissing {
        /// Its digest, or its name in a `docker save` archive.
        blob: String,
    },
    /// A blob has another size than its descriptor says.
    #[error("the blob {blob} has {found} bytes, and its descriptor says {expected}")]
    BlobSize {
        /// Its digest.
        blob: String,
        /// How many bytes it has.
        found: u64,
        /// How many it should have.
        expected: u64,
    },
    /// A blob's bytes don't have the digest by which the blob is named.
    #[error("the blob {expected} has the digest {found}")]
    BlobDigest {
        /// The digest by which it is named.
        expected: String,
        /// The digest of its bytes.
        found: String,
    },
    /// A layer cannot be applied.
    #[error("the layer {layer} cannot be applied")]
    Layer {
        /// Its digest, or its name in a `docker save` archive.
        layer: String,
        /// The problem.
        source: LayerError,
    },
    /// The image has a file that is not a directory at a mount point of the guest.
    #[error("the image's /{name} is not a directory, and the guest mounts a file system there")]
    MountPoint {
        /// Its name in the root.
        name: &'static str,
    },
    /// Tools can't be started in the image's working directory.
    #[error(
        "the image's working directory {directory} {problem}; name another as \"cwd\" of the tools file's \"defaults\""
    )]
    WorkingDirectory {
        /// The directory.
        directory: String,
        /// The reason.
        problem: &'static str,
    },
    /// The image's user cannot be found.
    #[error("the image's user {user:?} cannot be used: {problem}")]
    User {
        /// The user as the configuration names it.
        user: String,
        /// The problem.
        problem: &'static str,
    },
    /// The image's entry point cannot become a tool.
    #[error("the image's entry point cannot be a tool: {problem}")]
    Entrypoint {
        /// The reason.
        problem: &'static str,
    },
    /// The root exceeds a limit of the ext4 that is written.
    #[error("{what} of the image are more than {limit}, the most that a root disk takes")]
    Filesystem {
        /// Which things are too many.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// A file's extended attributes fit neither into its inode nor into one block.
    #[error(
        "{name:?} of the image has {bytes} bytes of extended attributes, and ext4 takes about 4 KiB"
    )]
    Attributes {
        /// The file's name.
        name: String,
        /// How many bytes they would take.
        bytes: usize,
    },
    /// The image does not fit into a root disk of the given size.
    #[error(
        "the image does not fit into a root disk of {size_mib} MiB; it needs {needed_mib} MiB, which is the default if no size is given"
    )]
    DoesNotFit {
        /// The given size, in MiB.
        size_mib: u64,
        /// The size that it needs, in MiB.
        needed_mib: u64,
    },
}

/// Why a layer, or a tar that holds a layout, cannot be read or applied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    /// The name of an entry is invalid.
    #[error("the entry {name:?} {problem}")]
    Name {
        /// The name.
        name: String,
        /// The problem.
        problem: &'static str,
    },
    /// The kind of an entry is not supported.
    #[error("the entry {name:?} is {kind}, which is not supported")]
    Kind {
        /// The entry.
        name: String,
        /// The kind of the entry.
        kind: &'static str,
    },
    /// A name occurs twice in one layer, and not both times as a directory.
    #[error("the entry {name:?} comes twice")]
    Twice {
        /// The name.
        name: String,
    },
    /// The target of a hard link is invalid.
    #[error("the hard link {name:?} to {target:?} {problem}")]
    HardLink {
        /// The link.
        name: String,
        /// The target of the link.
        target: String,
        /// The problem.
        problem: &'static str,
    },
    /// A whiteout names a file that can't exist.
    #[error("the whiteout {name:?} {problem}")]
    Whiteout {
        /// Its name.
        name: String,
        /// The problem.
        problem: &'static str,
    },
    /// The layer or archive ends early.
    #[error("it is cut short")]
    CutShort,
    /// The layer or archive is not a tar, or is damaged.
    #[error("it is damaged: {problem}")]
    Damaged {
        /// The problem.
        problem: &'static str,
    },
    /// The layer's compression differs from that of its media type.
    #[error("its media type says {declared}, and its first bytes are {found}")]
    Compression {
        /// The compression according to the media type.
        declared: &'static str,
        /// The compression according to the first bytes.
        found: &'static str,
    },
    /// The layer cannot be decompressed.
    #[error("it cannot be decompressed")]
    Decompress(#[source] io::Error),
    /// The digest of the decompressed layer differs from the one in the configuration.
    #[error("decompressed, it has the digest {found}, and the configuration says {expected}")]
    DiffId {
        /// The digest of its bytes.
        found: String,
        /// The digest that it should have.
        expected: String,
    },
    /// The layer or archive exceeds a limit.
    #[error("{what} are more than {limit}")]
    Limit {
        /// Which things are too many.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// The layer's contents can't be written to the temporary file.
    #[error("its contents cannot be written")]
    Spool(#[source] io::Error),
    /// Packing was stopped.
    #[error("packing was stopped")]
    Stopped,
}

impl LayerError {
    pub(super) fn name(name: &[u8], problem: &'static str) -> LayerError {
        LayerError::Name {
            name: shown(name),
            problem,
        }
    }

    pub(super) fn damaged(problem: &'static str) -> LayerError {
        LayerError::Damaged { problem }
    }
}

/// A name for an error's text: at most 256 bytes, and with replacement characters for bytes that aren't UTF-8.
pub(super) fn shown(name: &[u8]) -> String {
    const MOST: usize = 256;
    let start = &name[..name.len().min(MOST)];
    String::from_utf8_lossy(start).into_owned()
}

/// At most ten of the names, for an error's text.
fn list(names: &[String]) -> String {
    const MOST: usize = 10;
    if names.is_empty() {
        return "none that has a name".to_owned();
    }
    let mut text = names[..names.len().min(MOST)].join(", ");
    if names.len() > MOST {
        text += &format!(" and {} more", names.len() - MOST);
    }
    text
}
