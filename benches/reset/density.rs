//! Measures the memory of VMs that are restored from one snapshot. The snapshot's own memory, which all of them share,
//! is not included.

use std::fs;
use std::path::Path;

use chv_sandbox::machine::{Machine, Steps};

use super::Outcome;
use super::idle_snapshot::{IdleSnapshot, vmm_below};

const COUNTS: [usize; 3] = [1, 8, 32];
const SIZES: [(u64, u64); 2] = [(128, 64), (1024, 200)];

pub(crate) async fn run(binary: &Path) -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let vmm = vmm_below(folder.path(), binary).await;
    println!(
        "\nmemory of VMs that only idle, restored from one snapshot: private to each VMM's process (MiB)"
    );
    println!(
        "{:<28}{:>6}{:>10}{:>10}{:>10}",
        "", "VMs", "median", "most", "sum"
    );
    for (memory_mib, data_mib) in SIZES {
        let folder = folder.path().join(memory_mib.to_string());
        let snapshot = IdleSnapshot::take(&vmm, &folder, memory_mib, data_mib).await?;
        for (name, memory) in [("mapped", snapshot.mapped()), ("copied", snapshot.copied())] {
            for count in COUNTS {
                if name == "copied" && count > 8 {
                    continue;
                }
                let mut machines = Vec::with_capacity(count);
                for _ in 0..count {
                    let (mut machine, options) = snapshot.machine(memory.clone()).await?;
                    machine.stage(&options, &mut Steps::start()).await?;
                    machine.client().vm_resume().await?;
                    machines.push(machine);
                }
                let mut private = machines
                    .iter()
                    .map(private_mib)
                    .collect::<Outcome<Vec<_>>>()?;
                private.sort_by(f64::total_cmp);
                let sum: f64 = private.iter().sum();
                println!(
                    "{:<28}{count:>6}{:>10.1}{:>10.1}{sum:>10.1}",
                    format!("{name}, {memory_mib} MiB, {data_mib} of data"),
                    private[count / 2],
                    private[count - 1],
                );
                for machine in machines {
                    machine.shutdown().await;
                }
            }
        }
    }
    println!("(goal: at most 12 for a VM with its VMM, mapped, at any size)");
    Ok(())
}

/// The private dirty memory of a VMM's process, its guest's included.
fn private_mib(machine: &Machine) -> Outcome<f64> {
    let process = machine.vmm().process().ok_or("it was spawned")?;
    let maps = fs::read_to_string(format!("/proc/{}/smaps_rollup", process.pid()))?;
    let line = maps
        .lines()
        .find_map(|line| line.strip_prefix("Private_Dirty:"));
    let kib: f64 = line
        .and_then(|text| text.trim().strip_suffix("kB"))
        .ok_or("the kernel counts private pages")?
        .trim()
        .parse()?;
    Ok(kib / 1024.0)
}
