//! [`select`]: finds one image in a layout by its name, its digest or its platform.

use super::{
    documents::{Compression, Configuration, Descriptor, Index, Manifest, MediaType, Saved},
    documents::{media_type, parse},
    error::ContainerError,
    store::{Blob, Store},
};
use crate::digest::Digest;

/// How deep indexes may be nested.
const NESTING_LIMIT: usize = 4;
/// The most layers of one image. Container tools stop at 127.
const LAYER_LIMIT: usize = 1000;

const INDEX: &str = "index";
const MANIFEST: &str = "manifest";
const CONFIGURATION: &str = "configuration";

/// An image that was found. Its layers are not read yet.
pub(super) struct Selected {
    /// The manifest's digest; `None` for a `docker save` archive.
    pub(super) manifest: Option<Digest>,
    pub(super) config_digest: Digest,
    pub(super) config: Configuration,
    /// Its name in the layout.
    pub(super) reference: Option<String>,
    pub(super) layers: Vec<Layer>,
}

/// One layer that is not read yet.
pub(super) struct Layer {
    /// Its digest, or its name in a `docker save` archive.
    pub(super) name: String,
    pub(super) source: LayerSource,
    /// The compression that its media type names; `None` in a `docker save` archive, which doesn't state it.
    pub(super) compression: Option<Compression>,
    /// The digest of its decompressed bytes.
    pub(super) diff_id: Digest,
}

#[derive(Clone)]
pub(super) enum LayerSource {
    Blob(Digest, u64),
    Member(String),
}

impl LayerSource {
    /// Opens the layer. Returns the digest that its bytes must have, if one is known.
    pub(super) fn open(&self, store: &Store) -> Result<(Blob, Option<Digest>), ContainerError> {
        match self {
            LayerSource::Blob(digest, size) => Ok((store.blob(digest, *size)?, Some(*digest))),
            LayerSource::Member(name) => Ok((store.member(name)?, None)),
        }
    }
}

/// Finds the image that `wanted` names, or the only one.
pub(super) fn select(
    store: &Store,
    wanted: Option<&str>,
    not_layout: impl FnOnce(&'static str) -> ContainerError,
) -> Result<Selected, ContainerError> {
    if let Some(index) = store.document("index.json")? {
        return from_index(store, &index, wanted);
    }
    match store.document("manifest.json")? {
        Some(list) => from_saved(store, &list, wanted),
        None => Err(not_layout("it has neither index.json nor manifest.json")),
    }
}

fn from_index(
    store: &Store,
    index: &[u8],
    wanted: Option<&str>,
) -> Result<Selected, ContainerError> {
    let index = read_index(index)?;
    let named: Vec<&Descriptor> = match wanted {
        None => index.manifests.iter().collect(),
        Some(wanted) => {
            let is_wanted = |descriptor: &&Descriptor| is_named(descriptor, wanted);
            index.manifests.iter().filter(is_wanted).collect()
        }
    };
    if let (Some(wanted), true) = (wanted, named.is_empty()) {
        return Err(ContainerError::NoSuchImage {
            wanted: wanted.to_owned(),
            held: names(&index.manifests),
        });
    }
    let mut chosen = match named[..] {
        [] => return Err(value(INDEX, "it holds no image")),
        [only] => only.clone(),
        // Several images with the same name, or without one, count as one image for several platforms, if exactly one
        // fits.
        _ => {
            let fitting: Vec<_> = named.iter().filter(|one| fits(one)).collect();
            match fitting[..] {
                [only] => (*only).clone(),
                _ if named.iter().all(|one| one.platform.is_some()) && fitting.is_empty() => {
                    return Err(ContainerError::Platform {
                        found: platforms(&index.manifests),
                    });
                }
                _ => {
                    return Err(ContainerError::SeveralImages {
                        held: names(&index.manifests),
                    });
                }
            }
        }
    };
    let reference = chosen.names().next().map(str::to_owned);
    for _ in 0..NESTING_LIMIT {
        match chosen.media_type(INDEX)? {
            MediaType::Manifest => return from_manifest(store, &chosen, reference),
            MediaType::Index => {
                let bytes = store.checked_document(&chosen.digest(INDEX)?, chosen.size)?;
                chosen = for_our_platform(read_index(&bytes)?)?;
            }
            MediaType::Config | MediaType::Layer(_) => {
                return Err(value(INDEX, "it leads to neither an index nor a manifest"));
            }
        }
    }
    Err(value(INDEX, "more than four indexes lie in one another"))
}

fn read_index(bytes: &[u8]) -> Result<Index, ContainerError> {
    let index: Index = parse(bytes, INDEX)?;
    check_header(
        index.schema_version,
        index.media_type.as_deref(),
        MediaType::Index,
        INDEX,
    )?;
    Ok(index)
}

/// Checks the version and the media type that an index or a manifest states.
fn check_header(
    version: u32,
    said: Option<&str>,
    expected: MediaType,
    document: &'static str,
) -> Result<(), ContainerError> {
    if version != 2 {
        return Err(value(document, "its schemaVersion is not 2"));
    }
    match said {
        Some(said) if media_type(said, document)? != expected => Err(value(
            document,
            "it states another media type than its descriptor",
        )),
        _ => Ok(()),
    }
}

/// Whether `wanted` is the descriptor's digest, one of its names, or the tag of one of its names.
fn is_named(descriptor: &Descriptor, wanted: &str) -> bool {
    let is_digest = descriptor
        .digest(INDEX)
        .is_ok_and(|digest| digest.to_string() == wanted);
    is_digest || descriptor.names().any(|name| is_name(name, wanted))
}

fn is_name(name: &str, wanted: &str) -> bool {
    name == wanted || name.rsplit_once(':').is_some_and(|(_, tag)| tag == wanted)
}

fn fits(descriptor: &Descriptor) -> bool {
    let platform = descriptor.platform.as_ref();
    platform.is_some_and(|platform| platform.os == "linux" && platform.architecture == "amd64")
}

/// The image in an index that the guest can run. An image for the plain architecture is preferred to one for a variant.
fn for_our_platform(index: Index) -> Result<Descriptor, ContainerError> {
    let has_variant = |one: &&Descriptor| {
        let platform = one.platform.as_ref();
        platform.is_some_and(|platform| platform.variant.is_some())
    };
    let fitting = index.manifests.iter().filter(|one| fits(one));
    if let Some(chosen) = fitting.min_by_key(has_variant) {
        return Ok(chosen.clone());
    }
    match &index.manifests[..] {
        // The configuration names its platform.
        [only] if only.platform.is_none() => Ok(only.clone()),
        all => Err(ContainerError::Platform {
            found: platforms(all),
        }),
    }
}

fn platforms(descriptors: &[Descriptor]) -> Vec<String> {
    let platforms = descriptors.iter().filter_map(|one| one.platform.as_ref());
    platforms
        .map(|platform| format!("{}/{}", platform.os, platform.architecture))
        .collect()
}

fn names(descriptors: &[Descriptor]) -> Vec<String> {
    let name = |one: &Descriptor| match one.names().next() {
        Some(name) => Some(name.to_owned()),
        None => one.digest(INDEX).ok().map(|digest| digest.to_string()),
    };
    descriptors.iter().filter_map(name).collect()
}

fn from_manifest(
    store: &Store,
    descriptor: &Descriptor,
    reference: Option<String>,
) -> Result<Selected, ContainerError> {
    let digest = descriptor.digest(INDEX)?;
    let bytes = store.checked_document(&digest, descriptor.size)?;
    let manifest: Manifest = parse(&bytes, MANIFEST)?;
    check_header(
        manifest.schema_version,
        manifest.media_type.as_deref(),
        MediaType::Manifest,
        MANIFEST,
    )?;
    if manifest.config.media_type(MANIFEST)? != MediaType::Config {
        return Err(value(MANIFEST, "its config is no configuration"));
    }
    let config_digest = manifest.config.digest(MANIFEST)?;
    let config = store.checked_document(&config_digest, manifest.config.size)?;
    let (config, diff_ids) = configuration(&config, manifest.layers.len())?;
    let layers = manifest.layers.iter().zip(diff_ids);
    let layers = layers.map(|(descriptor, diff_id)| {
        let MediaType::Layer(compression) = descriptor.media_type(MANIFEST)? else {
            return Err(value(MANIFEST, "one of its layers is none"));
        };
        let digest = descriptor.digest(MANIFEST)?;
        Ok(Layer {
            name: digest.to_string(),
            source: LayerSource::Blob(digest, descriptor.size),
            compression: Some(compression),
            diff_id,
        })
    });
    Ok(Selected {
        manifest: Some(digest),
        config_digest,
        config,
        reference,
        layers: layers.collect::<Result<_, _>>()?,
    })
}

fn from_saved(
    store: &Store,
    list: &[u8],
    wanted: Option<&str>,
) -> Result<Selected, ContainerError> {
    let images: Vec<Saved> = parse(list, MANIFEST)?;
    let tags = |image: &Saved| image.repo_tags.clone().unwrap_or_default();
    let held = || images.iter().flat_map(tags).collect();
    let is_wanted = |image: &&Saved| {
        wanted.is_none_or(|wanted| {
            let digest = config_name(&image.config).map(|digest| digest.to_string());
            digest.as_deref() == Some(wanted) || tags(image).iter().any(|tag| is_name(tag, wanted))
        })
    };
    let found: Vec<_> = images.iter().filter(is_wanted).collect();
    let image = match (&found[..], wanted) {
        ([image], _) => *image,
        ([], Some(wanted)) => {
            return Err(ContainerError::NoSuchImage {
                wanted: wanted.to_owned(),
                held: held(),
            });
        }
        _ => return Err(ContainerError::SeveralImages { held: held() }),
    };
    let name = &image.config;
    let expected = config_name(name)
        .ok_or_else(|| value(MANIFEST, "its configuration is not named by a digest"))?;
    let config = store.member_document(name)?;
    let config_digest = Digest::of(&config);
    if config_digest != expected {
        return Err(ContainerError::BlobDigest {
            expected: expected.to_string(),
            found: config_digest.to_string(),
        });
    }
    let (config, diff_ids) = configuration(&config, image.layers.len())?;
    let layers = image.layers.iter().zip(diff_ids);
    let layers = layers.map(|(name, diff_id)| Layer {
        name: super::error::shown(name.as_bytes()),
        source: LayerSource::Member(name.clone()),
        compression: None,
        diff_id,
    });
    Ok(Selected {
        manifest: None,
        config_digest,
        config,
        reference: tags(image).into_iter().next(),
        layers: layers.collect(),
    })
}

/// The digest in the name of a configuration: `HEX.json`, or `blobs/sha256/HEX`.
fn config_name(name: &str) -> Option<Digest> {
    let hex = name
        .strip_suffix(".json")
        .or_else(|| name.strip_prefix("blobs/sha256/"))?;
    format!("sha256:{hex}").parse().ok()
}

/// Parses a configuration, which must be for the guest's platform, and the digests of its `layers` layers.
fn configuration(
    bytes: &[u8],
    layers: usize,
) -> Result<(Configuration, Vec<Digest>), ContainerError> {
    let config: Configuration = parse(bytes, CONFIGURATION)?;
    if config.os != "linux" || config.architecture != "amd64" {
        return Err(ContainerError::Platform {
            found: vec![format!("{}/{}", config.os, config.architecture)],
        });
    }
    if config.rootfs.kind != "layers" {
        return Err(value(CONFIGURATION, "its rootfs has no layers"));
    }
    let diff_ids = &config.rootfs.diff_ids;
    if diff_ids.len() != layers {
        return Err(ContainerError::Value {
            document: CONFIGURATION,
            problem: format!(
                "it has the digests of {} layers, and there are {layers}",
                diff_ids.len()
            ),
        });
    }
    if layers > LAYER_LIMIT {
        return Err(value(MANIFEST, "it has more than 1000 layers"));
    }
    let diff_ids = diff_ids
        .iter()
        .map(|text| text.parse().ok())
        .collect::<Option<_>>()
        .ok_or_else(|| value(CONFIGURATION, "a layer's digest is no sha256 digest"))?;
    Ok((config, diff_ids))
}

fn value(document: &'static str, problem: &str) -> ContainerError {
    ContainerError::Value {
        document,
        problem: problem.to_owned(),
    }
}
