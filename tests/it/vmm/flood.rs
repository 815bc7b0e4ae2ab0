//! VMMs and guests that write without end, or write lines that look like others' lines.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use chv_sandbox::vmm::{Error, Exit, Vmm};
use tempfile::tempdir;
use tokio::time::timeout;

use super::{GENEROUS, ended, fake, has_logged, spawn};

/// The path by which this process can open the file that the VMM opens as a VM's console.
fn console(vmm: &Vmm) -> PathBuf {
    let pid = vmm.process().unwrap().pid();
    let name = vmm.console().unwrap().strip_prefix("/proc/self").unwrap();
    Path::new("/proc").join(pid.to_string()).join(name)
}

/// Writes to the console until the VMM has ended, and counts the bytes.
fn flood(vmm: &Vmm) -> Arc<AtomicU64> {
    let mut console = File::create(console(vmm)).unwrap();
    let written = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&written);
    thread::spawn(move || {
        while console.write_all(&[b'x'; 4096]).is_ok() {
            counted.fetch_add(4096, Ordering::Relaxed);
        }
    });
    written
}

#[tokio::test]
async fn a_vmm_that_writes_without_end_fills_no_disk() {
    let (_root, vmm) = spawn("flood").await;
    has_logged(&vmm, "the fake VMM serves").await;
    assert!(vmm.log_tail().contains("the flood ends"));
    let log = fs::read_to_string(vmm.run_dir().unwrap().join("vmm.log")).unwrap();
    assert!((log.len() as u64) < fake::FLOOD / 4, "{}", log.len());
    assert!(log.contains("bytes left out]"));
    vmm.shutdown().await;
}

/// The test writes to the console as the VMM would: it opens the file that the VMM is told to open, each time that
/// there is a new VM.
#[tokio::test]
async fn a_guest_that_writes_to_its_console_without_end_fills_no_disk() {
    let (_root, vmm) = spawn("").await;
    let path = console(&vmm);
    let write = move || {
        for vm in ["the first VM", "the second"] {
            let mut console = File::create(&path).unwrap();
            for _ in 0..1024 {
                console.write_all(&[b'x'; 1024]).unwrap();
            }
            writeln!(console, "\n{vm} ends").unwrap();
        }
    };
    let written = timeout(GENEROUS, tokio::task::spawn_blocking(write)).await;
    written.unwrap().unwrap();
    timeout(GENEROUS, async {
        while !vmm.console_tail().contains("the second ends") {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    let kept = vmm.run_dir().unwrap().join("console.log");
    assert_eq!(fs::metadata(&kept).unwrap().mode() & 0o777, 0o600);
    let log = fs::read_to_string(kept).unwrap();
    assert!(log.len() <= 1024 * 1024, "{}", log.len());
    assert!(log.contains("bytes left out]"));
    assert!(!vmm.log_tail().contains("ends"));
    vmm.shutdown().await;
}

/// While two guests flood their consoles, the logs and last lines of all VMMs are still read.
#[tokio::test]
async fn a_flood_is_slowed_down_and_starves_no_other_log() {
    let began = Instant::now();
    let (_first, flooded) = spawn("").await;
    let (_second, also_flooded) = spawn("").await;
    let written = [flood(&flooded), flood(&also_flooded)];
    // Wait until the burst, which is not throttled, is over.
    timeout(GENEROUS, async {
        while written
            .iter()
            .any(|written| written.load(Ordering::Relaxed) < 2 << 20)
        {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    let (_third, other) = spawn("").await;
    has_logged(&other, "the fake VMM serves").await;
    assert!(flooded.log_tail().contains("the fake VMM serves"));

    let root = tempdir().unwrap();
    let error = Vmm::spawn(&fake::config(root.path(), "die"))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("last words"), "{error}");

    flooded.kill().await.unwrap();
    assert!(
        ended(&flooded)
            .await
            .log_tail
            .contains("the fake VMM serves")
    );
    let steady = 2.0 * 1024.0 * 1024.0 * began.elapsed().as_secs_f64();
    for written in written {
        // The burst, the bytes in the pipe, and the last read of a VMM that has ended.
        let most = steady + f64::from((1 << 20) + (64 << 10) + (1 << 20));
        assert!(written.load(Ordering::Relaxed) as f64 <= most);
    }
    also_flooded.shutdown().await;
    other.shutdown().await;
}

#[tokio::test]
async fn a_log_neither_acts_on_a_terminal_nor_passes_for_a_line_of_ours() {
    let root = tempdir().unwrap();
    let error = Vmm::spawn(&fake::config(root.path(), "forge"))
        .await
        .unwrap_err();
    let Error::DiedAtStart { ended, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(ended.exit, Exit::Code(1));
    let tail = "\\u{1b}[2J\\u{1b}]0;title\\u{7}gone\nERROR \\u{202e}forged\n  because\n";
    assert!(ended.log_tail.ends_with(tail), "{:?}", ended.log_tail);
    let text = error.to_string();
    let quoted = "gone\n  | ERROR \\u{202e}forged\n  |   because";
    assert!(text.ends_with(quoted), "{text}");
    let mut lines = text.lines();
    assert!(lines.next().unwrap().ends_with("its log ends:"));
    assert!(lines.all(|line| line.starts_with("  | ")), "{text}");
}
