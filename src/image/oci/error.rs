//! Errors about container images.

use std::{io, path::PathBuf};

/// Why a container image could not become a root disk. Nothing of it is left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContainerError {
    /// The path is neither an OCI layout, nor a tar of one, nor a `docker save` archive.
    #[error("{} is neither an OCI layout (a directory or a tar) nor a `docker save` archive: {problem}", path.display())]
    NotLayout {
        /// What was given.
        path: PathBuf,
        /// What is missing or wrong.
        problem: &'static str,
    },
    /// A file of the layout lies elsewhere, behind a symbolic link, or is no regular file.
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
        /// What the system said.
        source: io::Error,
    },
    /// The tar that holds the layout is damaged, or holds what none does.
    #[error("the archive {} cannot be read", path.display())]
    Archive {
        /// The archive.
        path: PathBuf,
        /// What is wrong with it.
        source: LayerError,
    },
    /// A document of the image is not JSON of the expected shape.
    #[error("the image's {document} is not of the expected shape")]
    Document {
        /// Which document.
        document: &'static str,
        /// Where it differs.
        source: serde_json::Error,
    },
    /// A document of the image has the expected shape, and a value that cannot be used.
    #[error("the image's {document} cannot be used: {problem}")]
    Value {
        /// Which document.
        document: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A descriptor has a media type that is not read here.
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
        /// What was asked for.
        wanted: String,
        /// The names of what is there.
        held: Vec<String>,
    },
    /// The layout holds several images, and none was named.
    #[error("the layout holds several images; name one of {}", list(held))]
    SeveralImages {
        /// The names of what is there.
        held: Vec<String>,
    },
    /// The image has no variant that the guest can run.
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
    /// A blob's bytes have another digest than they should.
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
        /// What is wrong with it.
        source: LayerError,
    },
    /// The image puts something else where the guest mounts a file system.
    #[error("the image's /{name} is not a directory, and the guest mounts a file system there")]
    MountPoint {
        /// Its name in the root.
        name: &'static str,
    },
    /// The image's working directory cannot be that of tools.
    #[error(
        "the image's working directory {directory} {problem}; name another as \"cwd\" of the tools file's \"defaults\""
    )]
    WorkingDirectory {
        /// The directory.
        directory: String,
        /// Why not.
        problem: &'static str,
    },
    /// The image's user cannot be found.
    #[error("the image's user {user:?} cannot be used: {problem}")]
    User {
        /// What the configuration says.
        user: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The image's entry point cannot become a tool.
    #[error("the image's entry point cannot be a tool: {problem}")]
    Entrypoint {
        /// Why not.
        problem: &'static str,
    },
    /// The tree cannot be written as an ext4.
    #[error("{what} of the image are more than {limit}, the most that a root disk takes")]
    Filesystem {
        /// What there are too many of.
        what: &'static str,
        /// How many are taken.
        limit: u64,
    },
    /// A file's extended attributes do not fit into an inode or a block.
    #[error(
        "{name:?} of the image has {bytes} bytes of extended attributes, and ext4 takes about 4 KiB"
    )]
    Attributes {
        /// The file's name.
        name: String,
        /// How many bytes they would take.
        bytes: usize,
    },
    /// The root disk has a size that was asked for, and the image does not fit.
    #[error(
        "the image does not fit into a root disk of {size_mib} MiB; it needs {needed_mib} MiB, which is what it gets if no size is asked for"
    )]
    DoesNotFit {
        /// The size that was asked for.
        size_mib: u64,
        /// The size that it needs.
        needed_mib: u64,
    },
}

/// What is wrong with one layer, or with a tar that holds a layout.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    /// An entry has a name that no entry may have.
    #[error("the entry {name:?} {problem}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// An entry is of a kind that is not read.
    #[error("the entry {name:?} is {kind}, which is not supported")]
    Kind {
        /// The entry.
        name: String,
        /// What it is.
        kind: &'static str,
    },
    /// A name comes twice in one layer, and not as a directory both times.
    #[error("the entry {name:?} comes twice")]
    Twice {
        /// The name.
        name: String,
    },
    /// A hard link leads to nothing that it may lead to.
    #[error("the hard link {name:?} to {target:?} {problem}")]
    HardLink {
        /// The link.
        name: String,
        /// Where it leads.
        target: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A whiteout hides nothing that can be there.
    #[error("the whiteout {name:?} {problem}")]
    Whiteout {
        /// Its name.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// It ends before its end.
    #[error("it is cut short")]
    CutShort,
    /// It is no tar, or a damaged one.
    #[error("it is damaged: {problem}")]
    Damaged {
        /// Where.
        problem: &'static str,
    },
    /// It is compressed in another way than its media type says.
    #[error("its media type says {declared}, and its first bytes are {found}")]
    Compression {
        /// What the media type says.
        declared: &'static str,
        /// What the first bytes are.
        found: &'static str,
    },
    /// It cannot be decompressed.
    #[error("it cannot be decompressed")]
    Decompress(#[source] io::Error),
    /// What was decompressed has another digest than the configuration says.
    #[error("decompressed, it has the digest {found}, and the configuration says {expected}")]
    DiffId {
        /// The digest of its bytes.
        found: String,
        /// The digest that it should have.
        expected: String,
    },
    /// It has more of something than is taken.
    #[error("{what} are more than {limit}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much is taken.
        limit: u64,
    },
    /// Its contents cannot be kept until the disk is made.
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

/// A name as an error shows it: bounded, and readable whatever its bytes are.
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
