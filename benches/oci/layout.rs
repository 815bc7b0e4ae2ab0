//! Makes a container image of the size of a language's base image: ten layers with 150 MiB in 5,000 files, of which
//! half is as compressible as text.

use std::fs;
use std::path::{Path, PathBuf};

use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, Header};

use super::Outcome;

const LAYERS: usize = 10;
const FILES: usize = 500;
const FILE: usize = 30 << 10;

/// Writes the layout to `dir`.
pub(crate) fn write(dir: &Path) -> Outcome<PathBuf> {
    fs::create_dir_all(dir.join("blobs/sha256"))?;
    let mut random = fastrand::Rng::with_seed(7);
    let mut diff_ids = Vec::new();
    let mut layers = Vec::new();
    for layer in 0..LAYERS {
        let mut tar = Builder::new(Vec::new());
        for file in 0..FILES {
            let mut content = vec![0; FILE];
            random.fill(&mut content[..FILE / 2]);
            for byte in &mut content[FILE / 2..] {
                *byte = b"etaoin shrdlu"[random.usize(..13)];
            }
            let mut header = Header::new_ustar();
            header.set_size(FILE as u64);
            header.set_mode(0o644);
            header.set_mtime(1_000_000_000);
            let name = format!("usr/lib/{layer}/{}/{file}", file % 20);
            tar.append_data(&mut header, name, &content[..])?;
        }
        let tar = tar.into_inner()?;
        diff_ids.push(digest(&tar));
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        std::io::Write::write_all(&mut encoder, &tar)?;
        let blob = encoder.finish()?;
        layers.push(put(
            dir,
            "application/vnd.oci.image.layer.v1.tar+gzip",
            &blob,
        )?);
    }
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = put(
        dir,
        "application/vnd.oci.image.config.v1+json",
        config.to_string().as_bytes(),
    )?;
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": layers});
    let manifest = put(
        dir,
        "application/vnd.oci.image.manifest.v1+json",
        manifest.to_string().as_bytes(),
    )?;
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    fs::write(dir.join("index.json"), index.to_string())?;
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    Ok(dir.to_owned())
}

/// Adds a blob, and returns its descriptor.
fn put(dir: &Path, media_type: &str, blob: &[u8]) -> Outcome<Value> {
    let digest = digest(blob);
    fs::write(dir.join("blobs").join(digest.replace(':', "/")), blob)?;
    Ok(json!({"mediaType": media_type, "digest": digest, "size": blob.len()}))
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{hex}")
}
