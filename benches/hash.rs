//! How fast digests are: against `openssl dgst -sha256`, and against one stream of the sha2 crate in this process.
//!
//! `cargo bench --bench hash` makes its files in `HASH_BENCH_DIR`, or below `target/`: 1 GiB of noise, and 16 GiB with
//! 64 MiB of data. All candidates take turns in one run, and each figure is the median of `HASH_BENCH_ROUNDS` (5)
//! rounds; ratios are of those medians. Only a machine with nothing else to do gives figures worth anything, so it says
//! what the machine is and how busy.
#![expect(clippy::print_stdout, reason = "a bench talks to people")]

use std::fs::{self, File};
use std::hint::black_box;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use chv_sandbox::overlay::{self, AccessPolicy, Threads};
use sha2::{Digest as _, Sha256};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// A candidate: its name, and what it does to a file.
type Candidate<'a> = (&'a str, &'a dyn Fn(&Path) -> Outcome<()>);

fn main() -> Outcome<()> {
    let directory = std::env::var_os("HASH_BENCH_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let directory = tempfile::tempdir_in(directory)?;
    let rounds = match std::env::var("HASH_BENCH_ROUNDS") {
        Ok(rounds) => rounds.parse()?,
        Err(_) => 5,
    };
    describe_machine();
    dense(&directory.path().join("dense"), rounds)?;
    sparse(&directory.path().join("sparse"))?;
    println!("load now {}", load());
    Ok(())
}

fn describe_machine() {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = cpu.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(": "))
            .map_or("unknown", |(_, value)| value)
    };
    let extension = field("flags").split(' ').any(|flag| flag == "sha_ni");
    println!(
        "{}, {} cores, sha extension: {}, load before {}",
        field("model name"),
        Threads::default().get(),
        if extension { "yes" } else { "no" },
        load(),
    );
}

/// The load averages, or why there are none.
fn load() -> String {
    fs::read_to_string("/proc/loadavg")
        .map_or_else(|error| error.to_string(), |text| text.trim().into())
}

/// All candidates on a file of 1 GiB that is in the page cache.
fn dense(path: &Path, rounds: usize) -> Outcome<()> {
    const LENGTH: u64 = 1 << 30;
    let mut file = File::create(path)?;
    let noise = noise(1 << 20);
    (0..LENGTH >> 20).try_for_each(|_| file.write_all(&noise))?;
    file.sync_all()?;
    drop(file);

    let verity = |threads, policy| {
        move |path: &Path| -> Outcome<()> {
            overlay::fsverity(path, policy, threads)?;
            Ok(())
        }
    };
    let (mapped, read) = (AccessPolicy::PreferMapped, AccessPolicy::ReadOnly);
    let candidates: [Candidate<'_>; 8] = [
        ("openssl dgst -sha256", &openssl),
        ("sha2, read, in process", &sha2_stream),
        ("sha256, mapped", &|path| {
            overlay::sha256(path, mapped)?;
            Ok(())
        }),
        ("sha256, read", &|path| {
            overlay::sha256(path, read)?;
            Ok(())
        }),
        ("fs-verity, 1 thread, mapped", &verity(Threads::ONE, mapped)),
        (
            "fs-verity, all cores, mapped",
            &verity(Threads::default(), mapped),
        ),
        (
            "fs-verity, all cores, read",
            &verity(Threads::default(), read),
        ),
        ("both in one pass, mapped", &|path| {
            overlay::digests(path, mapped)?;
            Ok(())
        }),
    ];
    println!("\n1 GiB, dense, hot: median of {rounds}");
    let mut times = vec![Vec::new(); candidates.len()];
    for round in 0..=rounds {
        for ((_, candidate), times) in candidates.iter().zip(&mut times) {
            let took = time(|| candidate(path))?;
            // The first round only warms up.
            if round > 0 {
                times.push(took);
            }
        }
    }
    let medians: Vec<Duration> = times.iter_mut().map(|times| median(times)).collect();
    for ((name, _), median) in candidates.iter().zip(&medians) {
        let seconds = median.as_secs_f64();
        println!(
            "{name:30} {:7.1} ms {:6.2} GB/s {:6.2} x openssl",
            seconds * 1e3,
            LENGTH as f64 / seconds / 1e9,
            medians[0].as_secs_f64() / seconds,
        );
    }
    fs::remove_file(path)?;
    Ok(())
}

/// A file of 16 GiB with 64 MiB of data, once: by then neither has much to do with the page cache.
fn sparse(path: &Path) -> Outcome<()> {
    let file = File::create(path)?;
    file.set_len(16 << 30)?;
    let noise = noise(1 << 20);
    for at in 0..64 {
        file.write_all_at(&noise, (3 << 30) + (at << 20))?;
    }
    file.sync_all()?;
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    drop(file);

    println!("\n16 GiB with 64 MiB of data, once cold, then the median of 5 hot; openssl once");
    println!("page cache before {}", resident(path));
    let verity = || {
        Ok(overlay::fsverity(
            path,
            AccessPolicy::PreferMapped,
            Threads::default(),
        )?)
    };
    let cold = time(verity)?;
    println!("page cache after  {}", resident(path));
    let hot = (0..5).map(|_| time(verity));
    let hot = median(&mut hot.collect::<Outcome<Vec<_>>>()?);
    let openssl = time(|| openssl(path))?;
    for (name, took) in [
        ("openssl dgst -sha256", openssl),
        ("fs-verity, cold", cold),
        ("fs-verity, hot", hot),
    ] {
        let seconds = took.as_secs_f64();
        println!(
            "{name:30} {:7.1} ms {:8.1} x openssl",
            seconds * 1e3,
            openssl.as_secs_f64() / seconds
        );
    }
    Ok(())
}

/// How much of a file is in the page cache, as util-linux has it.
fn resident(path: &Path) -> String {
    let output = Command::new("fincore")
        .args(["--noheadings", "--output", "RES"])
        .arg(path)
        .output();
    match output {
        Ok(output) => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        Err(error) => format!("unknown: fincore: {error}"),
    }
}

fn openssl(path: &Path) -> Outcome<()> {
    let mut command = Command::new("openssl");
    command
        .args(["dgst", "-sha256"])
        .arg(path)
        .stdout(Stdio::null());
    match command.status()?.success() {
        true => Ok(()),
        false => Err("openssl failed".into()),
    }
}

fn sha2_stream(path: &Path) -> Outcome<()> {
    let mut file = File::open(path)?;
    let (mut sha256, mut buffer) = (Sha256::new(), vec![0; 256 << 10]);
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => sha256.update(&buffer[..count]),
        }
    }
    black_box(sha256.finalize());
    Ok(())
}

fn time<T>(work: impl FnOnce() -> Outcome<T>) -> Outcome<Duration> {
    let started = Instant::now();
    black_box(work()?);
    Ok(started.elapsed())
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// Bytes that look like nothing in particular.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let bytes = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    bytes.take(length).collect()
}
