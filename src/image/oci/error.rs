//! The errors about container images: [`ContainerError`] and [`LayerError`].

use std::{io, path::PathBuf};

/// Why no root disk could be made from a [container image](crate::image#container-images). No file of the packed image
/// is left behind.
///
/// A *layout* is the directory or archive that holds the container image. A field named `problem` or `what` is an
/// English phrase for the message only. A field named `document` is one of `index`, `manifest`, `configuration` and
/// `tools file`; [`Value`](ContainerError::Value) has more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContainerError {
    /// The path is neither an OCI layout, nor a tar of one, nor a `docker save` archive.
    #[error("{} is neither an OCI layout (a directory or a tar) nor a `docker save` archive: {problem}", path.display())]
    NotLayout {
        /// [`ContainerSource::path`](super::ContainerSource::path).
        path: PathBuf,
        /// Which part is missing or wrong, for the message only.
        problem: &'static str,
    },
    /// A file of the layout lies behind a symbolic link, or is not a regular file.
    #[error("{name} of the layout is a symbolic link, or neither a regular file nor a directory")]
    NotInside {
        /// The file's path in the layout, such as `blobs/sha256/` and 64 hexadecimal digits.
        name: String,
    },
    /// A file of the layout cannot be read.
    #[error("{name} of the layout cannot be read")]
    Unreadable {
        /// The file's path in the layout, or the digest of a document; or `/etc/passwd` or `/etc/group` of the root.
        name: String,
        /// The system's error.
        source: io::Error,
    },
    /// The tar that holds the layout is damaged, or has an entry that no layout has.
    #[error("the archive {} cannot be read", path.display())]
    Archive {
        /// [`ContainerSource::path`](super::ContainerSource::path).
        path: PathBuf,
        /// What is wrong with the archive.
        source: LayerError,
    },
    /// A document of the image is not JSON, lacks a field, or has a value of another type. Unknown fields are ignored.
    #[error("the image's {document} is not of the expected shape")]
    Document {
        /// Which document; see [above](ContainerError).
        document: &'static str,
        /// What differs, with line and column.
        source: serde_json::Error,
    },
    /// A document of the image has the expected fields, but an invalid or unsupported value. Or a limit is exceeded: 4
    /// MiB for a document, `/etc/passwd` and `/etc/group`, 1000 layers, and four indexes in one another.
    #[error("the image's {document} cannot be used: {problem}")]
    Value {
        /// Which document; see [above](ContainerError). `layout` for a document that is too large, `root` for a list of
        /// users or groups.
        document: &'static str,
        /// Which value can't be used and why, for the message only.
        problem: String,
    },
    /// A descriptor has a media type that is not supported in its document.
    #[error(
        "a descriptor of the image's {document} has the media type {found:?}, which is not supported there"
    )]
    MediaType {
        /// The document that has the descriptor; see [above](ContainerError).
        document: &'static str,
        /// The media type as the descriptor has it.
        found: String,
    },
    /// The layout holds no image of this name.
    #[error("the layout holds no image {wanted:?}; it holds {}", list(held))]
    NoSuchImage {
        /// [`ContainerSource::image`](super::ContainerSource::image).
        wanted: String,
        /// A name of each image in an OCI layout, or the digest of one without a name; all tags in a `docker save`
        /// archive. The message has at most ten of them.
        held: Vec<String>,
    },
    /// The layout holds several images that can be meant: none was named, or the name is that of several.
    #[error("the layout holds several images; name one of {}", list(held))]
    SeveralImages {
        /// The images in the layout, as in [`NoSuchImage`](ContainerError::NoSuchImage).
        held: Vec<String>,
    },
    /// The image is not for the guest's platform, `linux/amd64`.
    #[error("the image is for {}, and the guest runs linux/amd64", list(found))]
    Platform {
        /// The platforms that the image is for, each as `os/architecture`, such as `linux/arm64`.
        found: Vec<String>,
    },
    /// The layout lacks a blob.
    #[error("the layout lacks the blob {blob}")]
    BlobMissing {
        /// The blob's digest, or its path in a `docker save` archive.
        blob: String,
    },
    /// A blob has another size than its descriptor says.
    #[error("the blob {blob} has {found} bytes, and its descriptor says {expected}")]
    BlobSize {
        /// The blob's digest.
        blob: String,
        /// The size of the blob's file in bytes, before decompression.
        found: u64,
        /// The size in its descriptor, in bytes.
        expected: u64,
    },
    /// A blob's bytes don't have the digest by which the blob is named.
    #[error("the blob {expected} has the digest {found}")]
    BlobDigest {
        /// The digest by which the blob is named: `sha256:` and 64 hexadecimal digits.
        expected: String,
        /// The digest of the blob's bytes, before decompression, in the same form.
        found: String,
    },
    /// A layer of the container image cannot be applied.
    #[error("the layer {layer} cannot be applied")]
    Layer {
        /// The layer's digest (of its compressed bytes), or its path in a `docker save` archive.
        layer: String,
        /// Why the layer can't be applied.
        source: LayerError,
    },
    /// The image has a file that is not a directory at a mount point of the guest.
    #[error("the image's /{name} is not a directory, and the guest mounts a file system there")]
    MountPoint {
        /// The mount point: `dev`, `proc`, `sys` or `tmp`.
        name: &'static str,
    },
    /// Tools can't be started in the image's working directory: it isn't an absolute path without `..`, leads to a
    /// file, or can't be entered by the tools' user.
    #[error(
        "the image's working directory {directory} {problem}; name another as \"cwd\" of the tools file's \"defaults\""
    )]
    WorkingDirectory {
        /// The directory as the image's configuration or the tools file names it.
        directory: String,
        /// Why tools can't be started there, for the message only.
        problem: &'static str,
    },
    /// The image's `/etc/passwd` or `/etc/group` has no such user or group.
    #[error("the image's user {user:?} cannot be used: {problem}")]
    User {
        /// The user as the configuration names it: `USER` or `USER:GROUP`, each a name or a number.
        user: String,
        /// Why the user can't be used, for the message only.
        problem: &'static str,
    },
    /// The image's entry point cannot become a tool: there is none, its program isn't in the image or not executable,
    /// an argument has a brace, or the tools file has a tool of this name.
    #[error("the image's entry point cannot be a tool: {problem}")]
    Entrypoint {
        /// Which of these reasons it is, for the message only.
        problem: &'static str,
    },
    /// The root exceeds a limit of the ext4 that is written.
    #[error("{what} of the image are more than {limit}, the most that a root disk takes")]
    Filesystem {
        /// Which things are too many, for the message only, such as `the names of a file`.
        what: &'static str,
        /// The most of them, such as 65,000 names of a file.
        limit: u64,
    },
    /// A file's extended attributes fit neither into its inode nor into one block of 4 KiB.
    #[error(
        "{name:?} of the image has {bytes} bytes of extended attributes, and ext4 takes about 4 KiB"
    )]
    Attributes {
        /// The last component of the file's path; `/` for the root.
        name: String,
        /// How many bytes the attributes would take in the ext4.
        bytes: usize,
    },
    /// The image does not fit into a root disk of the given size.
    #[error(
        "the image does not fit into a root disk of {size_mib} MiB; it needs {needed_mib} MiB, which is the default if no size is given"
    )]
    DoesNotFit {
        /// [`ImageSpec::root_mib`](crate::image::ImageSpec::root_mib), in MiB.
        size_mib: u64,
        /// The size that the image needs, in MiB.
        needed_mib: u64,
    },
}

/// Why a layer of a [container image](crate::image#container-images), or a tar that holds an OCI layout, cannot be read
/// or applied.
///
/// A field named `name` is the path of the entry in the tar as written, at most 256 bytes, with U+FFFD in place of
/// bytes that aren't UTF-8. A field named `problem` is an English phrase for the message only.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    /// The name, the target or the owner of an entry is invalid, or the entry lies below something that is no
    /// directory. A name is a relative path without `..` and NUL, of at most 4095 bytes, with components of at most
    /// 255.
    #[error("the entry {name:?} {problem}")]
    Name {
        /// The entry's path in the tar.
        name: String,
        /// What is wrong with the entry, for the message only.
        problem: &'static str,
    },
    /// The type of an entry is not supported. A layer may have regular files, directories, symbolic and hard links,
    /// FIFOs, and devices, which are left out. A tar that holds a layout may have neither FIFOs nor devices. Sparse
    /// files in GNU's format and all other types are not supported.
    #[error("the entry {name:?} is {kind}, which is not supported")]
    Kind {
        /// The entry's path in the tar.
        name: String,
        /// What the entry is, as an English phrase with its article, such as `a FIFO or a device`; for the message
        /// only.
        kind: &'static str,
    },
    /// A name occurs twice in one layer, and not both times as a directory; or twice in a tar that holds a layout.
    #[error("the entry {name:?} comes twice")]
    Twice {
        /// The path of the second entry in the tar.
        name: String,
    },
    /// A hard link leads out of the root, to nothing, to a directory, or to the root.
    #[error("the hard link {name:?} to {target:?} {problem}")]
    HardLink {
        /// The link's path in the tar.
        name: String,
        /// The link's target as the tar has it, in the same form.
        target: String,
        /// What is wrong with the target, for the message only.
        problem: &'static str,
    },
    /// A whiteout hides an empty name, `.`, `..`, or another whiteout.
    #[error("the whiteout {name:?} {problem}")]
    Whiteout {
        /// The whiteout's path in the tar.
        name: String,
        /// What is wrong with it, for the message only.
        problem: &'static str,
    },
    /// The layer or archive ends early.
    #[error("it is cut short")]
    CutShort,
    /// The layer or archive is not a tar, is damaged, has a sparse file in pax form, or a global pax header that
    /// changes entries.
    #[error("it is damaged: {problem}")]
    Damaged {
        /// What is damaged, for the message only.
        problem: &'static str,
    },
    /// The layer's compression differs from that of its media type.
    #[error("its media type says {declared}, and its first bytes are {found}")]
    Compression {
        /// The compression according to the media type: `a plain tar`, `gzip` or `zstd`.
        declared: &'static str,
        /// The compression according to the first bytes, in the same form.
        found: &'static str,
    },
    /// The layer cannot be decompressed, for example because its zstd needs a window of more than 128 MiB; or the layer
    /// or the archive cannot be read.
    #[error("it cannot be decompressed")]
    Decompress(#[source] io::Error),
    /// The digest of the decompressed layer differs from the one in the configuration.
    #[error("decompressed, it has the digest {found}, and the configuration says {expected}")]
    DiffId {
        /// The digest of the decompressed layer: `sha256:` and 64 hexadecimal digits.
        found: String,
        /// The digest in the configuration (`rootfs.diff_ids`), in the same form.
        expected: String,
    },
    /// The layer or archive exceeds a limit. The limits are inclusive:
    ///
    /// - the decompressed bytes of all layers:
    ///   [`ContainerSource::content_limit`](super::ContainerSource::content_limit)
    /// - the headers of all layers: 1,000,000
    /// - the headers of a tar that holds a layout: 100,000
    /// - the bytes of one entry's pax records or long name: 256 KiB
    /// - the directories in one another: 1024
    #[error("{what} are more than {limit}")]
    Limit {
        /// Which of these is exceeded, as an English phrase for the message only.
        what: &'static str,
        /// The most of them, in bytes if they are bytes.
        limit: u64,
    },
    /// The contents of the layer's files can't be written to the temporary file in the work directory, or no thread
    /// could be started that reads the layer.
    #[error("its contents cannot be written")]
    Spool(#[source] io::Error),
    /// Another thread stopped packing. [`pack_until`](crate::image::pack_until) returns
    /// [`Error::Stopped`](crate::image::Error::Stopped) instead.
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
