//! The JSON documents of an image: index, manifest and configuration, with the media types of OCI and of Docker.
//!
//! Unknown fields are ignored, as both specifications require. The other fields are checked where they are used.

use serde::{Deserialize, de::DeserializeOwned};

use super::error::ContainerError;
use crate::digest::Digest;

/// The kind of blob that a descriptor refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MediaType {
    Index,
    Manifest,
    Config,
    /// A layer, with the compression that its type names.
    Layer(Compression),
}

/// How a layer is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    Plain,
    Gzip,
    Zstd,
}

impl Compression {
    pub(super) fn name(self) -> &'static str {
        match self {
            Compression::Plain => "a plain tar",
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
        }
    }
}

const MEDIA_TYPES: [(&str, MediaType); 12] = [
    ("application/vnd.oci.image.index.v1+json", MediaType::Index),
    (
        "application/vnd.docker.distribution.manifest.list.v2+json",
        MediaType::Index,
    ),
    (
        "application/vnd.oci.image.manifest.v1+json",
        MediaType::Manifest,
    ),
    (
        "application/vnd.docker.distribution.manifest.v2+json",
        MediaType::Manifest,
    ),
    (
        "application/vnd.oci.image.config.v1+json",
        MediaType::Config,
    ),
    (
        "application/vnd.docker.container.image.v1+json",
        MediaType::Config,
    ),
    (
        "application/vnd.oci.image.layer.v1.tar",
        MediaType::Layer(Compression::Plain),
    ),
    (
        "application/vnd.oci.image.layer.v1.tar+gzip",
        MediaType::Layer(Compression::Gzip),
    ),
    (
        "application/vnd.oci.image.layer.v1.tar+zstd",
        MediaType::Layer(Compression::Zstd),
    ),
    (
        "application/vnd.docker.image.rootfs.diff.tar",
        MediaType::Layer(Compression::Plain),
    ),
    (
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        MediaType::Layer(Compression::Gzip),
    ),
    (
        "application/vnd.docker.image.rootfs.diff.tar.zstd",
        MediaType::Layer(Compression::Zstd),
    ),
];

/// A reference to a blob.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    media_type: String,
    digest: String,
    pub(super) size: u64,
    #[serde(default)]
    pub(super) platform: Option<Platform>,
    #[serde(default)]
    annotations: Option<Annotations>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Platform {
    pub(super) os: String,
    pub(super) architecture: String,
    #[serde(default)]
    pub(super) variant: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct Annotations {
    #[serde(rename = "org.opencontainers.image.ref.name", default)]
    reference: Option<String>,
    /// The full name, which containerd and newer versions of Docker add.
    #[serde(rename = "io.containerd.image.name", default)]
    full_name: Option<String>,
}

impl Descriptor {
    /// The descriptor's media type, which `document` has.
    pub(super) fn media_type(&self, document: &'static str) -> Result<MediaType, ContainerError> {
        media_type(&self.media_type, document)
    }

    pub(super) fn digest(&self, document: &'static str) -> Result<Digest, ContainerError> {
        self.digest.parse().map_err(|_| ContainerError::Value {
            document,
            problem: format!("{:?} is no sha256 digest", self.digest),
        })
    }

    /// The names of the blob in the layout.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let annotations = self.annotations.as_ref();
        let names = annotations.map(|known| [&known.reference, &known.full_name]);
        names
            .into_iter()
            .flatten()
            .filter_map(|name| name.as_deref())
    }
}

/// Parses the media type `text`, which occurs in `document`.
pub(super) fn media_type(text: &str, document: &'static str) -> Result<MediaType, ContainerError> {
    MEDIA_TYPES
        .iter()
        .find(|(known, _)| *known == text)
        .map(|&(_, kind)| kind)
        .ok_or_else(|| ContainerError::MediaType {
            document,
            found: text.to_owned(),
        })
}

/// `index.json`, a nested index, or Docker's list of manifests.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Index {
    pub(super) schema_version: u32,
    #[serde(default)]
    pub(super) media_type: Option<String>,
    pub(super) manifests: Vec<Descriptor>,
}

/// The manifest of one image.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Manifest {
    pub(super) schema_version: u32,
    #[serde(default)]
    pub(super) media_type: Option<String>,
    pub(super) config: Descriptor,
    pub(super) layers: Vec<Descriptor>,
}

/// One image of a `docker save` archive's `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Saved {
    pub(super) config: String,
    #[serde(default)]
    pub(super) repo_tags: Option<Vec<String>>,
    pub(super) layers: Vec<String>,
}

/// An image's configuration.
#[derive(Debug, Deserialize)]
pub(super) struct Configuration {
    pub(super) architecture: String,
    pub(super) os: String,
    #[serde(default)]
    pub(super) config: Option<Execution>,
    pub(super) rootfs: RootFs,
}

/// The settings for the image's programs.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Execution {
    pub(super) user: Option<String>,
    pub(super) env: Option<Vec<String>>,
    pub(super) entrypoint: Option<Vec<String>>,
    pub(super) cmd: Option<Vec<String>>,
    pub(super) working_dir: Option<String>,
}

/// The layers of the root, by the digests of their decompressed bytes.
#[derive(Debug, Deserialize)]
pub(super) struct RootFs {
    #[serde(rename = "type")]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) diff_ids: Vec<String>,
}

/// Reads a document.
pub(super) fn parse<T: DeserializeOwned>(
    bytes: &[u8],
    document: &'static str,
) -> Result<T, ContainerError> {
    serde_json::from_slice(bytes).map_err(|source| ContainerError::Document { document, source })
}
