//! Measures a reset in place of an idle VM for several sizes of memory, mapped and copied.

use std::path::Path;
use std::time::{Duration, Instant};

use chv_sandbox::machine::{Machine, RevertOptions, Steps};

use super::idle_snapshot::{IdleSnapshot, vmm_below};
use super::measure::{Row, print};
use super::{Outcome, resets};

/// The size of the memory and of the data in it, in MiB.
const SIZES: [(u64, u64); 5] = [(128, 0), (1024, 0), (1024, 200), (4096, 0), (4096, 200)];

pub(crate) async fn run(binary: &Path) -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let vmm = vmm_below(folder.path(), binary).await;
    println!("\na reset in place to VM state running, with a VM that only idles, by memory");
    let mut whole = Vec::new();
    for (memory_mib, data_mib) in SIZES {
        let folder = folder.path().join(format!("{memory_mib}-{data_mib}"));
        let snapshot = IdleSnapshot::take(&vmm, &folder, memory_mib, data_mib).await?;
        let mut sides = [
            Side::new("copied", snapshot.machine(snapshot.copied()).await?),
            Side::new("mapped", snapshot.machine(snapshot.mapped()).await?),
        ];
        for round in 0..=resets()? {
            for side in &mut sides {
                side.reset(round > 0).await?;
            }
        }
        println!("{memory_mib} MiB, {data_mib} MiB of data");
        let [copied, mapped] = sides;
        print(&[copied.restore, mapped.restore.clone()]);
        print(&[copied.whole, mapped.whole.clone()]);
        whole.push(((memory_mib, data_mib), mapped.whole.median()));
        copied.machine.shutdown().await;
        mapped.machine.shutdown().await;
        std::fs::remove_dir_all(folder)?;
    }
    let of = |size| {
        whole
            .iter()
            .find(|(at, _)| *at == size)
            .map(|(_, time)| *time)
    };
    if let (Some(small), Some(large)) = (of(SIZES[0]), of(SIZES[3])) {
        let ratio = large.as_secs_f64() / small.as_secs_f64();
        println!("mapped, in place, 4 GiB / 128 MiB: {ratio:.2} (goal: at most 1.5)");
    }
    Ok(())
}

struct Side {
    machine: Machine,
    options: RevertOptions,
    restore: Row,
    whole: Row,
}

impl Side {
    fn new(name: &str, (machine, options): (Machine, RevertOptions)) -> Side {
        Side {
            machine,
            options,
            restore: Row::new(format!("{name}: vm.restore")),
            whole: Row::new(format!("{name}: in place, to running")),
        }
    }

    async fn reset(&mut self, counts: bool) -> Outcome<()> {
        let began = Instant::now();
        let mut steps = Steps::start();
        self.machine.stage(&self.options, &mut steps).await?;
        self.machine.client().vm_resume().await?;
        self.machine.client().vm_info().await?;
        if counts {
            self.whole.add(began.elapsed());
            let restore = steps.so_far().iter().find(|step| step.name == "restore");
            let restore = restore.ok_or("a VM was restored")?;
            self.restore.add(Duration::from_micros(restore.micros));
        }
        Ok(())
    }
}
