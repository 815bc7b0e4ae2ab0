//! Shows how the client drives a VMM that this crate didn't start: it waits until the VMM answers, creates a VM, reads
//! it back, boots it where a kernel is named, prints the VMM's events as they come, and shuts the VMM down.
//!
//! ```text
//! CLOUD_HYPERVISOR=path/to/cloud-hypervisor cargo run --example client -- [path/to/vmlinux]
//! ```
//!
//! It needs KVM. Where `CLOUD_HYPERVISOR` names no VMM, it says so and does nothing.

#![expect(clippy::print_stdout, reason = "it is a program")]

use std::env;
use std::error::Error;
use std::ffi::OsStr;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use chv_sandbox::api::types::{
    ConsoleConfig, ConsoleMode, CpusConfig, MemoryConfig, PayloadConfig, VmConfig,
};
use chv_sandbox::client::{Client, ErrorKind, EventMonitor};
use futures_util::StreamExt;

/// Drives the VMM through the life of a VM. The states in which the VM was.
pub async fn drive(client: &Client, kernel: Option<&str>) -> Result<Vec<String>, Box<dyn Error>> {
    client.wait_until_ready(Duration::from_secs(10)).await?;
    let ping = client.vmm_ping().await?;
    println!("the VMM has version {}", ping.version);

    let mut config = VmConfig::default()
        .with_cpus(CpusConfig::new(1, 1))
        .with_memory(MemoryConfig::new(128 << 20))
        .with_console(ConsoleConfig::new(ConsoleMode::Off));
    if let Some(kernel) = kernel {
        config = config.with_payload(PayloadConfig::default().with_kernel(kernel));
    }
    client.vm_create(&config).await?;
    let mut states = vec![client.vm_info().await?.state.to_string()];
    if kernel.is_some() {
        client.vm_boot().await?;
        states.push(client.vm_info().await?.state.to_string());
    }
    println!("the VM was {}", states.join(", then "));
    client.vm_delete().await?;

    match client.vmm_shutdown().await {
        // The VMM may exit before its answer is out.
        Err(error) if *error.kind() != ErrorKind::VmmGone => Err(error.into()),
        _ => Ok(states),
    }
}

/// Prints each event, until the VMM has ended. The events' names.
pub async fn watch(mut events: EventMonitor) -> Vec<String> {
    let mut names = Vec::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                println!("{:>9.3?} {} {}", event.timestamp, event.source, event.event);
                names.push(event.event);
            }
            // The VMM tears an event that its pipe doesn't take. The next one is read.
            Err(error) => println!("{error}"),
        }
    }
    names
}

/// Starts a VMM and drives it. The states of its VM, and the names of its events.
pub async fn run(
    vmm: &OsStr,
    kernel: Option<&str>,
) -> Result<(Vec<String>, Vec<String>), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let (socket, monitor) = (folder.path().join("api.sock"), folder.path().join("events"));
    make_fifo(&monitor)?;
    // Before the VMM is started: it waits for a reader when it opens a FIFO.
    let events = EventMonitor::open(&monitor)?;
    let vmm = Command::new(vmm)
        .arg("--api-socket")
        .arg(&socket)
        .arg("--event-monitor")
        .arg(format!("path={}", monitor.display()))
        .spawn()?;
    let mut vmm = KilledOnDrop(vmm);
    let client = Client::new(socket)?;
    let watching = tokio::spawn(watch(events));
    let states = drive(&client, kernel).await?;
    let names = watching.await?;
    println!("the VMM ended: {}", vmm.0.wait()?);
    Ok((states, names))
}

fn make_fifo(path: &Path) -> Result<(), Box<dyn Error>> {
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    Ok(rustix::fs::mkfifoat(rustix::fs::CWD, path, mode)?)
}

struct KilledOnDrop(Child);

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        // It fails for a process that has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let Some(vmm) = env::var_os("CLOUD_HYPERVISOR") else {
        println!("skipped: CLOUD_HYPERVISOR names no VMM");
        return Ok(());
    };
    run(&vmm, env::args().nth(1).as_deref()).await?;
    Ok(())
}
