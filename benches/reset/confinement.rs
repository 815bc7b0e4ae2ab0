//! Measures the cost of a VMM's confinement: a start and a reset in place, with every layer that this host has and with
//! none.

use std::path::Path;
use std::time::{Duration, Instant};

use chv_sandbox::machine::{Machine, RevertOptions, Steps};
use chv_sandbox::vmm::{Confinement, Vmm, VmmConfig};

use super::idle_snapshot::{IdleSnapshot, vmm_below};
use super::measure::{Row, print};
use super::{Outcome, millis};

const MEMORY_MIB: u64 = 128;

pub(crate) async fn run(binary: &Path, resets: usize) -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let vmm = vmm_below(folder.path(), binary).await;
    let off = VmmConfig {
        confinement: Confinement::off(),
        ..vmm.clone()
    };
    let configs = [("without confinement", off), ("with every layer", vmm)];
    starts(&configs, resets).await?;
    in_place(folder.path(), &configs, resets).await
}

async fn starts(configs: &[(&str, VmmConfig); 2], count: usize) -> Outcome<()> {
    println!("\na start of a VMM, to its answer to vmm.ping");
    let mut rows = configs.each_ref().map(|(name, _)| Row::new(*name));
    for round in 0..=count {
        for (row, (_, config)) in rows.iter_mut().zip(configs) {
            let began = Instant::now();
            let vmm = Vmm::spawn(config).await?;
            let took = began.elapsed();
            if round == 0 {
                vmm.layers().iter().for_each(|layer| println!("  {layer}"));
            } else {
                row.add(took);
            }
            vmm.kill().await?;
            vmm.shutdown().await;
        }
    }
    print(&rows);
    let [without, with] = rows.map(|row| row.median());
    let added = millis(with) - millis(without);
    println!("added: {added:.2} ms (goal: at most 3)");
    Ok(())
}

async fn in_place(folder: &Path, configs: &[(&str, VmmConfig); 2], count: usize) -> Outcome<()> {
    println!("\na reset in place of an idle VM of {MEMORY_MIB} MiB, mapped, to VM state running");
    let mut machines = Vec::new();
    for (number, (_, config)) in configs.iter().enumerate() {
        let snapshot =
            IdleSnapshot::take(config, &folder.join(number.to_string()), MEMORY_MIB, 0).await?;
        machines.push(snapshot.machine(snapshot.mapped()).await?);
    }
    let mut rows = configs.each_ref().map(|(name, _)| Row::new(*name));
    for round in 0..=count {
        for (row, (machine, options)) in rows.iter_mut().zip(&mut machines) {
            let took = reset(machine, options).await?;
            // The first reset only warms up.
            if round > 0 {
                row.add(took);
            }
        }
    }
    print(&rows);
    for (machine, _) in machines {
        machine.shutdown().await;
    }
    let [without, with] = rows.map(|row| row.median().as_secs_f64());
    println!("with / without: {:.3} (goal: at most 1.02)", with / without);
    Ok(())
}

async fn reset(machine: &mut Machine, options: &RevertOptions) -> Outcome<Duration> {
    let began = Instant::now();
    machine.stage(options, &mut Steps::start()).await?;
    machine.client().vm_resume().await?;
    machine.client().vm_info().await?;
    Ok(began.elapsed())
}
