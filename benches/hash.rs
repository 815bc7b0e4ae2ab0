//! Measures the speed of digests, compared with `openssl dgst -sha256` and with one stream of the sha2 crate in this
//! process.
//!
//! `cargo bench --bench hash` creates its files in `HASH_BENCH_DIR`, or below `target/`: 1 GiB of noise, and a file of
//! 16 GiB with 64 MiB of data. All candidates take turns in one run. Each figure is the median of `HASH_BENCH_ROUNDS`
//! (default: 5) rounds, with the fastest and the slowest round beside it; ratios are ratios of medians. The figures are
//! meaningful only on an idle machine, so the bench prints the machine and its load.
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

/// The work that is measured on a file.
type Work = Box<dyn Fn(&Path) -> Outcome<()>>;

/// One way to digest a file.
struct Candidate {
    name: &'static str,
    /// The factor by which it must be faster than openssl.
    goal: Option<f64>,
    work: Work,
}

impl Candidate {
    fn new(
        name: &'static str,
        goal: Option<f64>,
        work: impl Fn(&Path) -> Outcome<()> + 'static,
    ) -> Candidate {
        let work = Box::new(work);
        Candidate { name, goal, work }
    }
}

fn main() -> Outcome<()> {
    let directory = std::env::var_os("HASH_BENCH_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let directory = tempfile::tempdir_in(directory)?;
    let rounds = match std::env::var("HASH_BENCH_ROUNDS") {
        Ok(rounds) => rounds.parse()?,
        Err(_) => 5,
    };
    describe_machine();
    let openssl = dense(&directory.path().join("dense"), rounds)?;
    sparse(&directory.path().join("sparse"), openssl)?;
    println!("\nload after {}", load());
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
        "{}, {} cores, sha extension: {}, Linux {}",
        field("model name"),
        Threads::default().get(),
        if extension { "yes" } else { "no" },
        rustix::system::uname().release().to_string_lossy(),
    );
    println!("load before {}", load());
}

/// The load averages, or why they can't be read.
fn load() -> String {
    fs::read_to_string("/proc/loadavg")
        .map_or_else(|error| error.to_string(), |text| text.trim().into())
}

const DENSE: u64 = 1 << 30;

/// All candidates on a file of 1 GiB that is in the page cache. Returns the median time of openssl.
fn dense(path: &Path, rounds: usize) -> Outcome<Duration> {
    let mut file = File::create(path)?;
    let noise = noise(1 << 20);
    (0..DENSE >> 20).try_for_each(|_| file.write_all(&noise))?;
    file.sync_all()?;
    drop(file);

    let verity = |threads, policy| {
        move |path: &Path| -> Outcome<()> {
            overlay::fsverity(path, policy, threads)?;
            Ok(())
        }
    };
    let (mapped, read) = (AccessPolicy::PreferMapped, AccessPolicy::ReadOnly);
    let two = Threads::new(2.try_into()?);
    let candidates = [
        Candidate::new("openssl dgst -sha256", None, openssl),
        Candidate::new("sha2, read, in process", None, sha2_stream),
        Candidate::new("sha256, mapped", Some(1.12), move |path: &Path| {
            overlay::sha256(path, mapped)?;
            Ok(())
        }),
        Candidate::new("sha256, read", None, move |path: &Path| {
            overlay::sha256(path, read)?;
            Ok(())
        }),
        Candidate::new(
            "fs-verity, 1 thread, mapped",
            Some(1.8),
            verity(Threads::ONE, mapped),
        ),
        Candidate::new(
            "fs-verity, 1 thread, read",
            None,
            verity(Threads::ONE, read),
        ),
        Candidate::new(
            "fs-verity, 2 threads, mapped",
            Some(3.0),
            verity(two, mapped),
        ),
        Candidate::new("fs-verity, 2 threads, read", None, verity(two, read)),
        Candidate::new("both in one pass, mapped", None, move |path: &Path| {
            overlay::record(path, mapped)?;
            Ok(())
        }),
    ];
    let mut times = vec![Vec::new(); candidates.len()];
    for round in 0..=rounds {
        for (candidate, times) in candidates.iter().zip(&mut times) {
            let took = time(|| (candidate.work)(path))?;
            // The first round only warms up.
            if round > 0 {
                times.push(took);
            }
        }
    }
    fs::remove_file(path)?;
    let medians: Vec<Duration> = times.iter_mut().map(|times| median(times)).collect();
    println!("\n1 GiB, dense, hot: median of {rounds}, fastest and slowest");
    for ((candidate, median), times) in candidates.iter().zip(&medians).zip(&times) {
        let ms = |time: &Duration| time.as_secs_f64() * 1e3;
        let (fastest, slowest) = (times.iter().min(), times.iter().max());
        println!(
            "{:30}{:7.1} ms ({:5.1} to {:5.1}) {:6.2} GB/s {}",
            candidate.name,
            ms(median),
            fastest.map_or(0.0, ms),
            slowest.map_or(0.0, ms),
            DENSE as f64 / median.as_secs_f64() / 1e9,
            ratio(medians[0], *median, candidate.goal),
        );
    }
    Ok(medians[0])
}

/// The speed relative to openssl, and whether it reaches the goal.
fn ratio(openssl: Duration, took: Duration, goal: Option<f64>) -> String {
    let ratio = openssl.as_secs_f64() / took.as_secs_f64();
    let goal = goal.map(|goal| match ratio >= goal {
        true => format!(", goal {goal}: reached"),
        false => format!(", goal {goal}: MISSED"),
    });
    format!("{ratio:7.2} x openssl{}", goal.unwrap_or_default())
}

/// A file of 16 GiB with 64 MiB of data. `dense` is openssl's time for one GiB in the page cache.
fn sparse(path: &Path, dense: Duration) -> Outcome<()> {
    const GOAL: Option<f64> = Some(200.0);
    let file = File::create(path)?;
    file.set_len(16 << 30)?;
    let noise = noise(1 << 20);
    for at in 0..64 {
        file.write_all_at(&noise, (3 << 30) + (at << 20))?;
    }
    file.sync_all()?;
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    drop(file);

    println!("\n16 GiB with 64 MiB of data: once cold, then the median of 5 hot; openssl once");
    let verity = || {
        Ok(overlay::fsverity(
            path,
            AccessPolicy::PreferMapped,
            Threads::default(),
        )?)
    };
    let before = resident(path);
    let cold = time(verity)?;
    println!(
        "in the page cache: {before} MiB before, {} MiB after",
        resident(path)
    );
    let hot = (0..5).map(|_| time(verity));
    let hot = median(&mut hot.collect::<Outcome<Vec<_>>>()?);
    let openssl = time(|| openssl(path))?;
    for (name, took, goal) in [
        ("openssl dgst -sha256", openssl, None),
        ("openssl at its dense, hot speed", dense * 16, None),
        ("fs-verity, cold", cold, GOAL),
        ("fs-verity, hot", hot, GOAL),
    ] {
        println!(
            "{name:33}{:9.1} ms {}",
            took.as_secs_f64() * 1e3,
            ratio(openssl, took, goal)
        );
    }
    println!(
        "{:33}{:12} {}",
        "fs-verity, both hot",
        "",
        ratio(dense * 16, hot, GOAL)
    );
    Ok(())
}

/// How many MiB of a file are in the page cache, according to util-linux's `fincore`.
fn resident(path: &Path) -> String {
    let output = Command::new("fincore")
        .args(["--noheadings", "--bytes", "--output", "RES"])
        .arg(path)
        .output();
    let bytes = match output {
        Ok(output) => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        Err(error) => return format!("unknown ({error})"),
    };
    match bytes.parse::<u64>() {
        Ok(bytes) => format!("{:.1}", bytes as f64 / f64::from(1 << 20)),
        Err(_) => "unknown".to_owned(),
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

/// Pseudo-random bytes.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let bytes = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    bytes.take(length).collect()
}
