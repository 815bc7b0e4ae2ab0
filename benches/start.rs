//! Measures the start of a VMM's process by the memory of the agent, against a fork of the same agent.
//!
//! The crate's side is [`available`]: it starts a process with every layer of the confinement, as for a VMM, which exits
//! at once. The other side is the standard library's [`Command`] with a function that runs before the program, for
//! which it forks; its process is not confined. After each start the agent writes to every page of its memory, which
//! faults after a fork.

#![expect(clippy::print_stdout, reason = "a bench prints what it found")]

#[expect(dead_code, reason = "some of it is for benches with a runtime")]
mod measure;

use std::error::Error;
use std::os::unix::process::CommandExt;
use std::process::Command;

use chv_sandbox::vmm::{CgroupConfig, available};
use measure::Row;

const ROUNDS: usize = 30;
const MEMORY_MIB: [usize; 4] = [0, 64, 1024, 4096];
const PAGE: usize = 4096;

fn main() -> Result<(), Box<dyn Error>> {
    measure::print_load();
    for mib in MEMORY_MIB {
        let mut memory = vec![0_u8; mib << 20];
        write(&mut memory);
        let mut rows = [
            Row::new("fork"),
            Row::new("this crate, with the confinement"),
            Row::new("fork: writing to all memory afterwards"),
            Row::new("this crate: the same"),
        ];
        for _ in 0..ROUNDS {
            let [forked, ours, after_fork, after_ours] = &mut rows;
            forked.block(1, || fork().expect("/bin/true can be started"));
            after_fork.block(1, || write(&mut memory));
            ours.block(1, || {
                drop(available(&CgroupConfig::default()).expect("a process starts"))
            });
            after_ours.block(1, || write(&mut memory));
        }
        println!("\nthe start of a process by an agent with {mib} MiB of memory");
        measure::print(&rows[..2]);
        if mib > 0 {
            measure::print(&rows[2..]);
        }
    }
    Ok(())
}

fn write(memory: &mut [u8]) {
    for byte in memory.iter_mut().step_by(PAGE) {
        *byte = byte.wrapping_add(1);
    }
}

fn fork() -> std::io::Result<()> {
    let mut command = Command::new("/bin/true");
    // SAFETY: the function does nothing.
    let command = unsafe { command.pre_exec(|| Ok(())) };
    command.status().map(drop)
}
