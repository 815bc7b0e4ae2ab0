//! Measures how much memory a hostile guest or VMM can make the agent's process hold.
//!
//! Each attack runs in a process of its own, in which nothing else allocates: this test binary again, whose test
//! [`attack`] plays it. That process measures by how much the peak of its resident memory grew, without the pages that
//! are mapped from files, which are its own code.

#![expect(clippy::print_stdout, reason = "a measured process prints its figure")]

mod api;
mod channel;

use std::env;
use std::fs;
use std::process::Command;

/// The most by which one sandbox may make this process grow, in bytes, whatever its guest and its VMM send.
const BOUND: u64 = 64 << 20;

/// The variable that names the attack to play.
const ATTACK: &str = "CHV_SANDBOX_TEST_ATTACK";

/// Every attack by its name.
const ATTACKS: &[(&str, fn())] = &[
    ("host-only frame", channel::host_only_frame),
    (
        "host-only frame, type last",
        channel::host_only_frame_type_last,
    ),
    ("unasked reset acks", channel::unasked_reset_acks),
    ("late results", channel::late_results),
    ("late chunks", channel::late_chunks),
    ("kept chunks", channel::kept_chunks),
    ("error events", channel::error_events),
    ("too long an answer", api::too_long),
    ("unknown fields", api::unknown_fields),
    ("unknown tree", api::unknown_tree),
    ("known lists", api::known_lists),
    ("chunks of one byte", api::chunks_of_one_byte),
    ("raw answer", api::raw_answer),
    ("error chain", api::error_chain),
];

#[test]
#[ignore = "plays an attack for the other test"]
fn attack() {
    let Ok(name) = env::var(ATTACK) else {
        println!("skipped: only of use to another test");
        return;
    };
    let (_, play) = ATTACKS.iter().find(|(known, _)| *known == name).unwrap();
    let (before, code) = (resident("VmRSS"), resident("RssFile"));
    play();
    let code = resident("RssFile").saturating_sub(code);
    let grew = resident("VmHWM").saturating_sub(before + code);
    println!("grew by {grew} bytes");
}

#[test]
fn no_attack_costs_more_than_the_bound() {
    let mut over = Vec::new();
    for (name, _) in ATTACKS {
        let played = Command::new(env::current_exe().unwrap())
            .args([
                "--exact",
                "sandbox::agent_memory::attack",
                "--ignored",
                "--nocapture",
            ])
            .env(ATTACK, name)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&played.stdout);
        assert!(
            played.status.success(),
            "{name}: {said}{}",
            String::from_utf8_lossy(&played.stderr)
        );
        let grew = said.lines().find_map(|line| line.strip_prefix("grew by "));
        let grew = grew.and_then(|line| line.strip_suffix(" bytes")).unwrap();
        let grew: u64 = grew.parse().unwrap();
        println!("{:>6.1} MiB  {name}", grew as f64 / f64::from(1 << 20));
        if grew > BOUND {
            over.push((name, grew));
        }
    }
    assert!(over.is_empty(), "{over:?}");
}

/// A field of `/proc/self/status`, in bytes.
fn resident(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|line| line.strip_prefix(':')?.trim().strip_suffix(" kB"));
    kib.unwrap().trim().parse::<u64>().unwrap() * 1024
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}
