//! Measures how long packing a container image takes, compared with `tar -x` of its layers and `mke2fs -d` of the
//! result, which neither check a digest nor apply a whiteout.
//!
//! `cargo bench --bench oci` makes an image of 150 MiB in ten layers, or takes the layout that `OCI_BENCH_LAYOUT`
//! names. Both sides take turns in one run, `OCI_BENCH_ROUNDS` (default: 5) times; the ratio is that of the medians.
//! Packing includes kernel, initramfs, both disks, their digests, and `e2fsck` if it is installed.
#![expect(clippy::print_stdout, reason = "a bench talks to people")]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use chv_sandbox::compat::probe::idle_kernel;
use chv_sandbox::image::{ContainerSource, ImageSpec, RootSource, pack};
use serde_json::Value;

mod layout;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// The most time that packing may take, as a multiple of the other side's.
const GOAL: f64 = 1.5;

fn main() -> Outcome<()> {
    let rounds = match std::env::var("OCI_BENCH_ROUNDS") {
        Ok(rounds) => rounds.parse()?,
        Err(_) => 5,
    };
    let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let layout = match std::env::var_os("OCI_BENCH_LAYOUT") {
        Some(layout) => PathBuf::from(layout),
        None => layout::write(&scratch.path().join("layout"))?,
    };
    let layers = layers(&layout)?;
    let sizes = layers.iter().map(|layer| Ok(fs::metadata(layer)?.len()));
    let bytes: u64 = sizes.sum::<std::io::Result<u64>>()?;
    println!("{} layers, {} MiB compressed", layers.len(), bytes >> 20);
    idle_kernel::write(&scratch.path().join("vmlinux"))?;
    // The program is never run, so only its ELF headers matter.
    let guest = [&idle_kernel::bytes()[..], b"chv-guest-build-id=0123abcd\0"].concat();
    fs::write(scratch.path().join("chv-guest"), guest)?;

    print_load();
    let (mut unpacking, mut packing) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let place = tempfile::tempdir_in(scratch.path())?;
        let began = Instant::now();
        unpack(&layers, place.path())?;
        unpacking.push(began.elapsed());
        drop(place);

        let place = tempfile::tempdir_in(scratch.path())?;
        let mut spec = ImageSpec::new(
            scratch.path().join("vmlinux"),
            scratch.path().join("chv-guest"),
            RootSource::Container(ContainerSource::new(&layout)),
            place.path().join("image"),
        );
        spec.overlay_mib = 4;
        let began = Instant::now();
        pack(&spec)?;
        packing.push(began.elapsed());
    }
    let (unpacking, packing) = (median(unpacking), median(packing));
    println!("tar -x and mke2fs -d   {unpacking:>8.2?}");
    println!("the whole image        {packing:>8.2?}");
    let ratio = packing.as_secs_f64() / unpacking.as_secs_f64();
    println!("ratio {ratio:.2} (goal: at most {GOAL})");
    print_load();
    Ok(())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn print_load() {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("load {}", load.trim());
}

/// The files of the layers, in their order. The bench doesn't check the layout.
fn layers(layout: &Path) -> Outcome<Vec<PathBuf>> {
    let blob = |descriptor: &Value| -> Outcome<PathBuf> {
        let digest = descriptor["digest"].as_str().ok_or("no digest")?;
        Ok(layout.join("blobs").join(digest.replace(':', "/")))
    };
    let document =
        |path: PathBuf| -> Outcome<Value> { Ok(serde_json::from_slice(&fs::read(path)?)?) };
    let index = document(layout.join("index.json"))?;
    let manifest = document(blob(&index["manifests"][0])?)?;
    let layers = manifest["layers"].as_array().ok_or("no layers")?;
    layers.iter().map(blob).collect()
}

/// The least work of a packer that doesn't write the ext4 itself.
fn unpack(layers: &[PathBuf], place: &Path) -> Outcome<()> {
    let tree = place.join("tree");
    fs::create_dir(&tree)?;
    for layer in layers {
        run(Command::new("tar")
            .arg("-x")
            .arg("-f")
            .arg(layer)
            .arg("-C")
            .arg(&tree))?;
    }
    let disk = place.join("root.img");
    File::create(&disk)?.set_len(512 << 20)?;
    let search = std::env::var("PATH").unwrap_or_default();
    run(Command::new("mke2fs")
        .env("PATH", format!("{search}:/usr/sbin:/sbin"))
        .args(["-q", "-F", "-t", "ext4", "-O", "^has_journal", "-d"])
        .arg(&tree)
        .arg(&disk))
}

fn run(command: &mut Command) -> Outcome<()> {
    let status = command.stdout(Stdio::null()).status()?;
    match status.success() {
        true => Ok(()),
        false => Err(format!("{command:?} ended with {status}").into()),
    }
}
