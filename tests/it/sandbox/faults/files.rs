//! Files that are gone or replaced, before a boot and before a reset.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::*;

/// The fault of a file. None depends on the user: root can't read a directory as a file either.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Gone,
    Directory,
    LinkToItself,
    Pipe,
    Empty,
    Shorter,
    Replaced,
}

use Fault::*;

const FAULTS: [Fault; 7] = [
    Gone,
    Directory,
    LinkToItself,
    Pipe,
    Empty,
    Shorter,
    Replaced,
];

/// The files that a restore needs. It does not read a kernel.
const FILES: [&str; 6] = [
    "golden/manifest.json",
    "golden/overlay.img",
    "golden/snapshot/config.json",
    "golden/snapshot/state.json",
    "golden/snapshot/memory-ranges",
    "root.img",
];

impl Fault {
    fn befall(self, path: &Path) {
        let bytes = fs::read(path).unwrap();
        match self {
            Empty => return fs::write(path, "").unwrap(),
            Shorter => return fs::write(path, &bytes[..bytes.len() / 2]).unwrap(),
            _ => fs::remove_file(path).unwrap(),
        }
        match self {
            Directory => fs::create_dir(path).unwrap(),
            LinkToItself => symlink(path, path).unwrap(),
            Pipe => mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap(),
            Replaced => {
                let mut other = bytes;
                let middle = other.len() / 2;
                other[middle] ^= 1;
                fs::write(path, other).unwrap();
            }
            _ => {}
        }
    }
}

fn cells() -> Vec<(Vmms, (&'static str, Fault))> {
    let cells = FILES
        .iter()
        .flat_map(|file| FAULTS.map(|fault| (*file, fault)));
    with_vmms(cells.collect())
}

/// No sandbox boots from a golden snapshot that is not whole.
#[test]
fn before_a_boot() {
    try_all(cells(), async |cell| {
        let (vmms, (file, fault)) = cell;
        let stand = Stand::new(vmms, false).await;
        fault.befall(&stand.scene.path(file));
        let said = in_time(&cell, stand.sandbox.boot()).await;
        assert!(said.is_err(), "{cell:?}: it boots");
        stand.stands(&cell, said).await;
    });
}

/// The files were loaded and are held, so a reset either doesn't need them or fails. It is never verified with other
/// bytes.
#[test]
fn before_a_reset() {
    try_all(cells(), async |cell| {
        let (vmms, (file, fault)) = cell;
        let stand = Stand::booted(vmms, false).await;
        fault.befall(&stand.scene.path(file));
        let said = in_time(&cell, stand.sandbox.reset()).await;
        assert_no_soft_pass(&cell, &said);
        if said.is_ok() {
            assert_echoed(echo(&stand.sandbox, "after").await, "after");
        }
        stand.stands(&cell, said).await;
    });
}

/// The run directories are removed while a VMM serves.
#[test]
fn without_a_run_directory() {
    try_all(with_vmms(vec![()]), async |cell| {
        let (vmms, ()) = cell;
        let stand = Stand::booted(vmms, false).await;
        let run = stand.stage.place().1.to_owned();
        fs::rename(&run, run.with_extension("moved")).unwrap();
        let said = in_time(&cell, stand.sandbox.reset()).await;
        assert_no_soft_pass(&cell, &said);
        stand.stands(&cell, said).await;
    });
}
