//! What `/proc` says of processes.

use std::fs;
use std::io;

use rustix::process::{Pid, Signal};

/// The kernel's flag of its own threads, in the `flags` field of `/proc/<pid>/stat` (`include/linux/sched.h`).
const PF_KTHREAD: u32 = 0x0020_0000;

/// One process, as `/proc/<pid>/stat` describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) name: String,
    pub(super) parent: u32,
    pub(super) session: u32,
    pub(super) is_kernel_thread: bool,
}

/// Every process, by pid. One that ends meanwhile is left out.
pub(super) fn all() -> io::Result<Vec<Process>> {
    let mut processes: Vec<Process> = pids()?
        .into_iter()
        .filter_map(|pid| parse(&fs::read(format!("/proc/{pid}/stat")).ok()?))
        .collect();
    processes.sort_by_key(|process| process.pid);
    Ok(processes)
}

/// The pids of every process, in no order. `/proc` is closed again when this returns.
pub(super) fn pids() -> io::Result<Vec<u32>> {
    let entries = fs::read_dir("/proc")?;
    Ok(entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect())
}

/// Kills what a tool started: its process group, its session, and the descendants that left both.
///
/// Everything is stopped before anything is killed. A process whose parent dies becomes the child of another, and
/// could no longer be told from a stranger's. So what escapes is only a descendant that left the session and whose
/// parent ended before; it stays until the reset that the host owes after a deadline.
pub(super) fn kill_all_of(leader: Pid) {
    let mut family = vec![leader];
    signal(leader, &family, Signal::STOP);
    // A process may fork before it stops, so until nothing new is found; the count bounds what a fork bomb costs.
    for _ in 0..16 {
        let found = relatives_of(&family);
        if found.is_empty() {
            break;
        }
        signal(leader, &found, Signal::STOP);
        family.extend(found);
    }
    signal(leader, &family, Signal::KILL);
}

/// Signals the leader's group, and each of `processes`. One that has ended meanwhile needs no signal any more.
fn signal(leader: Pid, processes: &[Pid], signal: Signal) {
    let _ = rustix::process::kill_process_group(leader, signal);
    for pid in processes {
        let _ = rustix::process::kill_process(*pid, signal);
    }
}

/// The processes that belong to `family`, whose first member leads the session, and aren't in it: those of the
/// session, and all descendants.
fn relatives_of(family: &[Pid]) -> Vec<Pid> {
    let mut known: Vec<u32> = family.iter().map(|pid| raw(*pid)).collect();
    let processes = all().unwrap_or_default();
    let leader = known[0];
    let mut next = 0;
    while next < known.len() {
        let member = known[next];
        next += 1;
        for process in &processes {
            let related = process.parent == member || process.session == leader;
            if related && !known.contains(&process.pid) {
                known.push(process.pid);
            }
        }
    }
    let found = known[family.len()..].iter();
    found
        .filter_map(|pid| Pid::from_raw(i32::try_from(*pid).ok()?))
        .collect()
}

fn raw(pid: Pid) -> u32 {
    pid.as_raw_nonzero().get().unsigned_abs()
}

/// Reads a `stat` line. The name stands in parentheses and may itself contain any byte, parentheses included.
fn parse(stat: &[u8]) -> Option<Process> {
    let open = stat.iter().position(|byte| *byte == b'(')?;
    let close = stat.iter().rposition(|byte| *byte == b')')?;
    let pid = std::str::from_utf8(&stat[..open]).ok()?.trim();
    let name = String::from_utf8_lossy(stat.get(open + 1..close)?).into_owned();
    let rest = std::str::from_utf8(&stat[close + 1..]).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().take(7).collect();
    let [_state, parent, _group, session, _tty, _foreground, flags] = fields[..] else {
        return None;
    };
    Some(Process {
        pid: pid.parse().ok()?,
        name,
        parent: parent.parse().ok()?,
        session: session.parse().ok()?,
        is_kernel_thread: flags.parse::<u32>().ok()? & PF_KTHREAD != 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_lines_are_read() {
        #[track_caller]
        fn check(stat: &str, expected: Option<(u32, &str, u32, u32, bool)>) {
            let expected = expected.map(|(pid, name, parent, session, is_kernel_thread)| Process {
                pid,
                name: name.to_owned(),
                parent,
                session,
                is_kernel_thread,
            });
            assert_eq!(parse(stat.as_bytes()), expected, "{stat}");
        }
        check(
            "7 (sh) S 1 7 6 0 -1 4194304 99 0\n",
            Some((7, "sh", 1, 6, false)),
        );
        check(
            "2 (kthreadd) S 0 0 0 0 -1 2129984 0",
            Some((2, "kthreadd", 0, 0, true)),
        );
        check(
            "9 (a) (b 1 2) R 8 9 9 0 -1 0 0",
            Some((9, "a) (b 1 2", 8, 9, false)),
        );
        for broken in [
            "",
            "7",
            "7 (sh",
            "7 sh) S",
            ")(",
            "x (sh) S 1 7 6 0 -1 0",
            "7 (sh) S 1 7",
        ] {
            check(broken, None);
        }
    }

    #[test]
    fn this_process_is_listed() {
        let own = std::process::id();
        let process = all()
            .unwrap()
            .into_iter()
            .find(|process| process.pid == own);
        assert!(!process.unwrap().is_kernel_thread);
    }
}
