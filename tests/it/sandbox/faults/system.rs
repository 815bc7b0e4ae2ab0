//! System calls that fail: a full disk, files that may not be made, memory that isn't there.
//!
//! A seccomp filter makes them fail in a whole process: this test binary again, which plays one cell. The filter needs
//! no privilege, and root is not exempt from it.

use std::collections::BTreeMap;
use std::process::Command;

use rustix::io::Errno;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use super::*;

/// The variable that names the cell to play.
const CELL: &str = "CHV_SANDBOX_TEST_FAULT";

/// The system calls that fail, and their error.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Fault {
    name: &'static str,
    calls: &'static [libc::c_long],
    /// If set, a call fails only where this argument (by number) has this bit.
    only: Option<(u8, u64)>,
    errno: Errno,
}

const FAULTS: [Fault; 7] = [
    Fault {
        name: "the disk is full",
        calls: &[
            libc::SYS_pwrite64,
            libc::SYS_fallocate,
            libc::SYS_ftruncate,
            libc::SYS_copy_file_range,
            libc::SYS_sendfile,
        ],
        only: None,
        errno: Errno::NOSPC,
    },
    Fault {
        name: "no file may be made",
        calls: &[libc::SYS_openat],
        only: Some((2, libc::O_CREAT as u64)),
        errno: Errno::ACCESS,
    },
    Fault {
        name: "no directory may be made",
        calls: &[libc::SYS_mkdir, libc::SYS_mkdirat],
        only: None,
        errno: Errno::ACCESS,
    },
    Fault {
        name: "no memory for a file of memory",
        calls: &[libc::SYS_memfd_create],
        only: None,
        errno: Errno::NOMEM,
    },
    Fault {
        name: "nothing may be sealed",
        calls: &[libc::SYS_fcntl],
        only: Some((1, libc::F_ADD_SEALS as u64)),
        errno: Errno::PERM,
    },
    Fault {
        name: "no process and no thread may be started",
        calls: &[
            libc::SYS_fork,
            libc::SYS_vfork,
            libc::SYS_clone,
            libc::SYS_clone3,
        ],
        only: None,
        errno: Errno::AGAIN,
    },
    Fault {
        name: "nothing is brought to the disk",
        calls: &[libc::SYS_fsync, libc::SYS_fdatasync, libc::SYS_syncfs],
        only: None,
        errno: Errno::IO,
    },
];

impl Fault {
    /// Installs the filter in this thread. The threads that it starts later inherit the filter.
    fn begin(self) {
        let rules = match self.only {
            None => Vec::new(),
            Some((argument, bits)) => {
                let set = SeccompCmpOp::MaskedEq(bits);
                let set = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, set, bits);
                vec![SeccompRule::new(vec![set.unwrap()]).unwrap()]
            }
        };
        let calls = self.calls.iter().map(|call| (*call, rules.clone()));
        let filter = SeccompFilter::new(
            calls.collect::<BTreeMap<_, _>>(),
            SeccompAction::Allow,
            SeccompAction::Errno(self.errno.raw_os_error().cast_unsigned()),
            TargetArch::x86_64,
        );
        let filter: BpfProgram = filter.unwrap().try_into().unwrap();
        seccompiler::apply_filter(&filter).unwrap();
    }
}

/// The call of the sandbox before which the filter is installed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Before {
    Mint,
    Boot,
    Reset,
}

const BEFORE: [Before; 3] = [Before::Mint, Before::Boot, Before::Reset];

fn cells() -> Vec<(Vmms, (Before, Fault))> {
    let cells = BEFORE
        .iter()
        .flat_map(|before| FAULTS.map(|fault| (*before, fault)));
    with_vmms(cells.collect())
}

/// Plays a cell on a runtime of its own, all of whose threads start after the filter. The threads that the library
/// starts itself were started by earlier calls.
async fn play(cell: (Vmms, (Before, Fault))) {
    let (vmms, (before, fault)) = cell;
    match before {
        Before::Mint => {
            let scene = Scene::new();
            fault.begin();
            let minted = in_time(&cell, scene.mint()).await;
            assert_eq!(minted.is_ok(), scene.path("golden").exists(), "{cell:?}");
        }
        Before::Boot => {
            let stand = Stand::new(vmms, false).await;
            fault.begin();
            let said = in_time(&cell, stand.sandbox.boot()).await;
            stand.stands(&cell, said).await;
        }
        Before::Reset => {
            let stand = Stand::booted(vmms, false).await;
            fault.begin();
            let said = in_time(&cell, stand.sandbox.reset()).await;
            assert_no_soft_pass(&cell, &said);
            stand.stands(&cell, said).await;
        }
    }
}

#[test]
#[ignore = "plays a cell for the other test"]
#[expect(clippy::print_stdout, reason = "it says that it was skipped")]
fn cell() {
    let Some(at) = env::var(CELL).ok().and_then(|at| at.parse::<usize>().ok()) else {
        println!("skipped: only of use to another test");
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(play(cells()[at]));
}

#[test]
fn at_each_step() {
    try_all((0..cells().len()).collect(), async |at| {
        let play = tokio::task::spawn_blocking(move || {
            Command::new(env::current_exe().unwrap())
                .args(["--exact", "sandbox::faults::system::cell", "--ignored"])
                .env(CELL, at.to_string())
                .output()
                .unwrap()
        });
        let played = play.await.unwrap();
        let said = String::from_utf8_lossy(&played.stdout);
        assert!(played.status.success(), "{:?}: {said}", cells()[at]);
        assert!(said.contains("1 passed"), "{:?}: {said}", cells()[at]);
    });
}
