//! Finds, signals and kills processes of the guest by means of `/proc`.

use std::fs;
use std::io;
use std::path::Path;

use rustix::process::{Pid, Signal};

/// The flag of a kernel thread in the `flags` field of `/proc/<pid>/stat` (`include/linux/sched.h`).
const PF_KTHREAD: u32 = 0x0020_0000;

/// How many times the descendants of a killed tool are searched for. This is more than the default limit on processes
/// of the tools' user. A killed process counts towards that limit as a zombie until the rounds are over, so each round
/// that finds a new process leaves the tool fewer to start. The rounds outlast every fork bomb, unless an image raises
/// the limit.
const ROUNDS: usize = 100;

/// One process, as `/proc/<pid>/stat` describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) name: String,
    pub(super) parent: u32,
    pub(super) is_kernel_thread: bool,
}

/// Every process, sorted by pid. A process that ends during the call may be missing.
pub(super) fn all() -> io::Result<Vec<Process>> {
    let mut processes: Vec<Process> = pids()?
        .into_iter()
        .filter_map(|pid| parse(&fs::read(format!("/proc/{pid}/stat")).ok()?))
        .collect();
    processes.sort_by_key(|process| process.pid);
    Ok(processes)
}

/// The pids of all processes, unsorted. `/proc` is closed again when this returns, which [`super::descriptor_count`] relies
/// on.
pub(super) fn pids() -> io::Result<Vec<u32>> {
    let entries = fs::read_dir("/proc")?;
    Ok(entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect())
}

/// Kills a tool and every process that descends from it, in any session or process group.
///
/// A tool adopts its orphaned descendants and can't give that up ([`Confinement`](super::Confinement)). So all of them
/// are below the tool while it lives. The tool is therefore stopped first, so that it can't end, and killed last. If
/// the tool ends just before it is stopped, its descendants run on, like those of a tool that ends in time.
pub(super) fn kill_all_of(leader: Pid) {
    signal(leader, Signal::STOP);
    let mut killed = Vec::new();
    for _ in 0..ROUNDS {
        let found = descendants_of(leader, &killed);
        if found.is_empty() {
            break;
        }
        found.iter().for_each(|pid| signal(*pid, Signal::KILL));
        killed.extend(found);
    }
    // Members of the tool's process group that were started after the last round.
    let _ = rustix::process::kill_process_group(leader, Signal::KILL);
    signal(leader, Signal::KILL);
}

/// Sends a signal to a tool and to every process that descends from it.
///
/// The tool gets it first: a shell whose command is killed before it would exit with that command's status, as if the
/// signal had never been sent to the shell.
pub(super) fn signal_all_of(leader: Pid, number: Signal) {
    let descendants = descendants_of(leader, &[]);
    signal(leader, number);
    descendants.iter().for_each(|pid| signal(*pid, number));
}

/// Sends SIGKILL to every process whose root directory is `root`. A process that has ended, reaped or not, has no root.
pub(super) fn kill_rooted_at(root: &Path) -> io::Result<()> {
    for pid in pids()? {
        let is_rooted = fs::read_link(format!("/proc/{pid}/root")).is_ok_and(|it| it == root);
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        if let (true, Some(pid)) = (is_rooted, pid) {
            signal(pid, Signal::KILL);
        }
    }
    Ok(())
}

/// Sends a signal. An error is ignored: the process has ended.
fn signal(pid: Pid, signal: Signal) {
    let _ = rustix::process::kill_process(pid, signal);
}

/// The descendants of `leader` that aren't in `known`.
fn descendants_of(leader: Pid, known: &[Pid]) -> Vec<Pid> {
    let processes = all().unwrap_or_default();
    let mut family = vec![raw(leader)];
    let mut next = 0;
    while next < family.len() {
        let parent = family[next];
        next += 1;
        for process in &processes {
            // The list wasn't read at one moment, so a reused pid may even form a cycle.
            if process.parent == parent && !family.contains(&process.pid) {
                family.push(process.pid);
            }
        }
    }
    let descendants = family[1..].iter();
    descendants
        .filter_map(|pid| Pid::from_raw(i32::try_from(*pid).ok()?))
        .filter(|pid| !known.contains(pid))
        .collect()
}

fn raw(pid: Pid) -> u32 {
    pid.as_raw_nonzero().get().unsigned_abs()
}

/// Parses a `stat` line. The name stands in parentheses and may itself contain any byte, including parentheses.
fn parse(stat: &[u8]) -> Option<Process> {
    let open = stat.iter().position(|byte| *byte == b'(')?;
    let close = stat.iter().rposition(|byte| *byte == b')')?;
    let pid = std::str::from_utf8(&stat[..open]).ok()?.trim();
    let name = String::from_utf8_lossy(stat.get(open + 1..close)?).into_owned();
    let rest = std::str::from_utf8(&stat[close + 1..]).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().take(7).collect();
    let [_state, parent, _group, _session, _tty, _foreground, flags] = fields[..] else {
        return None;
    };
    Some(Process {
        pid: pid.parse().ok()?,
        name,
        parent: parent.parse().ok()?,
        is_kernel_thread: flags.parse::<u32>().ok()? & PF_KTHREAD != 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_lines_are_read() {
        #[track_caller]
        fn check(stat: &str, expected: Option<(u32, &str, u32, bool)>) {
            let expected = expected.map(|(pid, name, parent, is_kernel_thread)| Process {
                pid,
                name: name.to_owned(),
                parent,
                is_kernel_thread,
            });
            assert_eq!(parse(stat.as_bytes()), expected, "{stat}");
        }
        check(
            "7 (sh) S 1 7 6 0 -1 4194304 99 0\n",
            Some((7, "sh", 1, false)),
        );
        check(
            "2 (kthreadd) S 0 0 0 0 -1 2129984 0",
            Some((2, "kthreadd", 0, true)),
        );
        check(
            "9 (a) (b 1 2) R 8 9 9 0 -1 0 0",
            Some((9, "a) (b 1 2", 8, false)),
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
