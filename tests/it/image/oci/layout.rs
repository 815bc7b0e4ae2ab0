//! Builds container images: layers, layouts as directories and tars, `docker save` archives.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use super::super::{gzip, zstd};

pub(super) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(super) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

pub(super) fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{hex}")
}

/// A layer, built entry by entry.
pub(super) struct Layer(Builder<Vec<u8>>);

impl Layer {
    pub(super) fn new() -> Layer {
        Layer(Builder::new(Vec::new()))
    }

    /// Adds an entry of any kind. The name is written unchanged, even if it is invalid.
    pub(super) fn entry(
        mut self,
        kind: EntryType,
        name: &str,
        target: &str,
        content: &[u8],
        change: impl FnOnce(&mut Header),
    ) -> Layer {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        let fields = header.as_old_mut();
        fields.name[..name.len()].copy_from_slice(name.as_bytes());
        fields.linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_size(content.len() as u64);
        header.set_mode(if kind == EntryType::Directory {
            0o755
        } else {
            0o644
        });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        change(&mut header);
        header.set_cksum();
        self.0.append(&header, content).expect("in memory");
        self
    }

    pub(super) fn file(self, name: &str, content: &[u8]) -> Layer {
        self.entry(EntryType::Regular, name, "", content, |_| {})
    }

    pub(super) fn mode(self, name: &str, mode: u32, owner: u64, content: &[u8]) -> Layer {
        self.entry(EntryType::Regular, name, "", content, |header| {
            header.set_mode(mode);
            header.set_uid(owner);
            header.set_gid(owner);
        })
    }

    pub(super) fn directory(self, name: &str) -> Layer {
        self.entry(EntryType::Directory, name, "", b"", |_| {})
    }

    pub(super) fn symlink(self, name: &str, target: &str) -> Layer {
        self.entry(EntryType::Symlink, name, target, b"", |_| {})
    }

    pub(super) fn hard_link(self, name: &str, target: &str) -> Layer {
        self.entry(EntryType::Link, name, target, b"", |_| {})
    }

    pub(super) fn device(self, name: &str) -> Layer {
        self.entry(EntryType::Char, name, "", b"", |header| {
            header.set_device_major(1).expect("ustar");
            header.set_device_minor(3).expect("ustar");
        })
    }

    /// Adds pax records for the next entry.
    pub(super) fn pax<'a>(mut self, records: &[(&'a str, &'a [u8])]) -> Layer {
        let records = records.iter().copied();
        self.0.append_pax_extensions(records).expect("in memory");
        self
    }

    pub(super) fn whiteout(self, name: &str) -> Layer {
        self.file(name, b"")
    }

    pub(super) fn bytes(self) -> Vec<u8> {
        self.0.into_inner().expect("in memory")
    }
}

/// The family of media types, and how layers are compressed in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Oci,
    OciZstd,
    OciPlain,
    Docker,
}

impl Family {
    fn types(self) -> [&'static str; 3] {
        const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
        match self {
            Family::Oci => [
                OCI_MANIFEST,
                CONFIG,
                "application/vnd.oci.image.layer.v1.tar+gzip",
            ],
            Family::OciZstd => [
                OCI_MANIFEST,
                CONFIG,
                "application/vnd.oci.image.layer.v1.tar+zstd",
            ],
            Family::OciPlain => [
                OCI_MANIFEST,
                CONFIG,
                "application/vnd.oci.image.layer.v1.tar",
            ],
            Family::Docker => [
                "application/vnd.docker.distribution.manifest.v2+json",
                "application/vnd.docker.container.image.v1+json",
                "application/vnd.docker.image.rootfs.diff.tar.gzip",
            ],
        }
    }

    fn compress(self, tar: &[u8]) -> Vec<u8> {
        match self {
            Family::Oci | Family::Docker => gzip(tar),
            Family::OciZstd => zstd(tar),
            Family::OciPlain => tar.to_vec(),
        }
    }
}

/// An image in parts, so that a test can change each of them.
pub(super) struct Parts {
    pub(super) tars: Vec<Vec<u8>>,
    pub(super) blobs: Vec<Vec<u8>>,
    pub(super) config: Value,
    pub(super) manifest: Value,
    pub(super) index: Value,
}

impl Parts {
    pub(super) fn new(family: Family, layers: Vec<Layer>, execution: Value) -> Parts {
        let tars = layers.into_iter().map(Layer::bytes).collect();
        Parts::of_tars(family, tars, execution)
    }

    pub(super) fn of_tars(family: Family, tars: Vec<Vec<u8>>, execution: Value) -> Parts {
        let [manifest_type, config_type, layer_type] = family.types();
        let blobs: Vec<_> = tars.iter().map(|tar| family.compress(tar)).collect();
        let diff_ids: Vec<_> = tars.iter().map(|tar| digest(tar)).collect();
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": execution,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let layers: Vec<_> = blobs
            .iter()
            .map(|blob| descriptor(layer_type, blob))
            .collect();
        let mut parts = Parts {
            tars,
            blobs,
            manifest: json!({
                "schemaVersion": 2, "mediaType": manifest_type,
                "config": {"mediaType": config_type}, "layers": layers,
            }),
            config,
            index: json!({"schemaVersion": 2, "manifests": [
                {"mediaType": manifest_type, "annotations": {"org.opencontainers.image.ref.name": "one"}}
            ]}),
        };
        parts.seal();
        parts
    }

    /// Updates the digests of the configuration and the manifest.
    pub(super) fn seal(&mut self) {
        refer(&mut self.manifest["config"], &bytes(&self.config));
        let manifest = bytes(&self.manifest);
        refer(&mut self.index["manifests"][0], &manifest);
    }

    /// Every file of the layout.
    pub(super) fn files(&self) -> Vec<(String, Vec<u8>)> {
        let documents = [bytes(&self.config), bytes(&self.manifest)];
        let blobs = self.blobs.iter().cloned().chain(documents);
        let mut files: Vec<_> = blobs
            .map(|blob| (format!("blobs/{}", digest(&blob).replace(':', "/")), blob))
            .collect();
        files.sort();
        files.dedup();
        files.push(("index.json".to_owned(), bytes(&self.index)));
        files.push((
            "oci-layout".to_owned(),
            br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec(),
        ));
        files
    }

    /// The layout as a directory.
    pub(super) fn write(&self, dir: &Path) -> PathBuf {
        for (name, bytes) in self.files() {
            let path = dir.join(name);
            fs::create_dir_all(path.parent().expect("inside")).expect("made");
            fs::write(path, bytes).expect("written");
        }
        dir.to_path_buf()
    }

    /// The layout as a tar.
    pub(super) fn write_tar(&self, path: &Path) -> PathBuf {
        write_tar(path, self.files())
    }

    /// The archive that `docker save` writes for the image.
    pub(super) fn write_docker_save(&self, path: &Path) -> PathBuf {
        let config = bytes(&self.config);
        let config_name = format!("{}.json", &digest(&config)[7..]);
        let names: Vec<_> = (0..self.tars.len())
            .map(|index| format!("layer{index}/layer.tar"))
            .collect();
        let list =
            json!([{"Config": config_name, "RepoTags": ["repository:one"], "Layers": names}]);
        let mut files = vec![
            (config_name.clone(), config),
            ("manifest.json".to_owned(), bytes(&list)),
        ];
        files.extend(names.into_iter().zip(self.tars.iter().cloned()));
        write_tar(path, files)
    }
}

pub(super) fn bytes(document: &Value) -> Vec<u8> {
    document.to_string().into_bytes()
}

fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(blob), "size": blob.len()})
}

/// Sets digest and length of a descriptor to those of `blob`.
pub(super) fn refer(descriptor: &mut Value, blob: &[u8]) {
    descriptor["digest"] = json!(digest(blob));
    descriptor["size"] = json!(blob.len());
}

fn write_tar(path: &Path, files: Vec<(String, Vec<u8>)>) -> PathBuf {
    let layer = files
        .into_iter()
        .fold(Layer::new(), |tar, (name, bytes)| tar.file(&name, &bytes));
    fs::write(path, layer.bytes()).expect("written");
    path.to_path_buf()
}
