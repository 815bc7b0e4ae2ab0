//! Reads facts about processes from `/proc`.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The environment variable that marks the processes of a run directory. Its value is the directory's name. A process
/// can set it only for processes that it starts.
pub(super) const MARK: &str = "CHV_SANDBOX_RUN_DIR";

/// The most that is read of a process's environment, in bytes. The kernel limits it to a quarter of the stack's limit,
/// which is less.
const MAX_ENVIRONMENT: u64 = 8 << 20;

/// Identifies a process. An id is used again, but not for two processes that started in the same clock tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ProcessStamp {
    pub(super) pid: u32,
    /// The time of the start, in clock ticks since the boot.
    pub(super) start_time: u64,
}

impl ProcessStamp {
    /// Reads fields 1 and 22 of the content of `/proc/<pid>/stat`.
    pub(super) fn parse(stat: &[u8]) -> Option<ProcessStamp> {
        // Field 2 is the name in parentheses. It can contain any character, parentheses too, so the last `)` ends it.
        let name_start = stat.iter().position(|&byte| byte == b'(')?;
        let name_end = stat.iter().rposition(|&byte| byte == b')')?;
        let pid = std::str::from_utf8(&stat[..name_start]).ok()?;
        let fields = std::str::from_utf8(stat.get(name_end + 1..)?).ok()?;
        Some(ProcessStamp {
            pid: pid.trim().parse().ok()?,
            start_time: fields.split_ascii_whitespace().nth(22 - 3)?.parse().ok()?,
        })
    }
}

/// The directory of a process below `/proc`.
pub(super) fn directory(pid: u32) -> PathBuf {
    Path::new("/proc").join(pid.to_string())
}

/// Returns the id of the host's present boot. Process ids and inodes of sockets are valid for one boot only.
pub(super) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?
        .trim()
        .to_owned())
}

/// Returns the stamp of the process that has this id now. The error has the kind `NotFound` if there is none.
pub(super) fn stamp(pid: u32) -> io::Result<ProcessStamp> {
    let stat = fs::read(directory(pid).join("stat")).map_err(gone_is_not_found)?;
    ProcessStamp::parse(&stat).ok_or(io::ErrorKind::InvalidData.into())
}

/// Returns the numbers of the descriptors that a process has open.
///
/// The error has the kind `NotFound` if the process has ended or is ending: its first thread may end before the others,
/// which still have the shared descriptors open. It has the kind `PermissionDenied` if the process has privileges that
/// this process lacks.
pub(super) fn descriptors(pid: u32) -> io::Result<Vec<u32>> {
    let mut descriptors = Vec::new();
    for entry in fs::read_dir(directory(pid).join("fd")).map_err(gone_is_not_found)? {
        let name = entry.map_err(gone_is_not_found)?.file_name();
        descriptors.extend(name.to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    // The C library turns the kernel's ENOENT into an empty directory.
    if descriptors.is_empty() {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(descriptors)
}

/// The most descriptors of a process that are examined. A VMM with many queues has some hundreds.
pub(super) const MOST_DESCRIPTORS: usize = 4096;

/// Calls `look` with each descriptor of a process, those in `first` before all others, until `look` breaks. Returns
/// whether it did.
///
/// A descriptor that is closed during the call is skipped. The errors are those of [`descriptors`], and one for a
/// process with more than [`MOST_DESCRIPTORS`].
pub(super) fn look_at_descriptors(
    pid: u32,
    first: &[u32],
    mut look: impl FnMut(u32) -> io::Result<ControlFlow<()>>,
) -> io::Result<bool> {
    let mut is_enough = |fd: u32| match look(fd) {
        Ok(flow) => Ok(flow.is_break()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(gone_is_not_found(error)),
    };
    for &fd in first {
        if is_enough(fd)? {
            return Ok(true);
        }
    }
    let others = descriptors(pid)?;
    if others.len() > MOST_DESCRIPTORS {
        let reason = format!("it has more than {MOST_DESCRIPTORS} descriptors open");
        return Err(io::Error::other(reason));
    }
    for fd in others.into_iter().filter(|fd| !first.contains(fd)) {
        if is_enough(fd)? {
            return Ok(true);
        }
    }
    // Descriptors may have been missing because the process has ended, which this call finds out.
    descriptors(pid).map(|_| false)
}

/// Returns the descriptor of the process that is the socket with this inode, if there is one. The descriptor `likely`
/// is examined first. The errors are those of [`look_at_descriptors`].
pub(super) fn descriptor_of_socket(
    pid: u32,
    inode: u64,
    likely: Option<u32>,
) -> io::Result<Option<u32>> {
    let expected = format!("socket:[{inode}]");
    let directory = directory(pid).join("fd");
    let mut found = None;
    look_at_descriptors(pid, likely.as_slice(), |fd| {
        let target = match fs::read_link(directory.join(fd.to_string())) {
            // The path of an open file can be too long for a link. The target of a socket is always short.
            Err(error) if error.kind() == io::ErrorKind::InvalidFilename => {
                return Ok(ControlFlow::Continue(()));
            }
            target => target?,
        };
        if target.as_os_str() != expected.as_str() {
            return Ok(ControlFlow::Continue(()));
        }
        found = Some(fd);
        Ok(ControlFlow::Break(()))
    })?;
    Ok(found)
}

/// Fails if `/proc` doesn't show this process itself. A container may mask parts of `/proc`, and then nothing can be
/// proved.
pub(super) fn check() -> io::Result<()> {
    for file in ["stat", "fd", "fdinfo", "maps", "environ", "status"] {
        let path = Path::new("/proc/self").join(file);
        fs::metadata(&path).map_err(|error| {
            let reason = format!("{} can't be read: {error}", path.display());
            io::Error::new(error.kind(), reason)
        })?;
    }
    // If `/proc` was mounted for another process namespace, it shows another id for this process.
    let own = ProcessStamp::parse(&fs::read("/proc/self/stat")?);
    match own.is_some_and(|own| own.pid == std::process::id()) {
        true => Ok(()),
        false => Err(io::Error::other(
            "/proc was mounted for another process namespace",
        )),
    }
}

/// Returns the id that a process has in its own process namespace: the last one of `NSpid`.
pub(super) fn inner_pid(pid: u32) -> io::Result<u32> {
    let status = fs::read_to_string(directory(pid).join("status")).map_err(gone_is_not_found)?;
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    let last = line.and_then(|ids| ids.split_ascii_whitespace().last()?.parse().ok());
    last.ok_or(io::ErrorKind::InvalidData.into())
}

/// Returns the ids of this user's processes, without those that can't be examined.
fn own_processes() -> Vec<u32> {
    let user = rustix::process::geteuid().as_raw();
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let entries = entries.filter_map(Result::ok);
    let own = entries.filter(|entry| entry.metadata().is_ok_and(|entry| entry.uid() == user));
    own.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// Returns the processes of this user that have one of these [marks](MARK) in their environment, each with its mark. A
/// fork inherits the mark.
pub(super) fn marked(marks: &HashSet<OsString>) -> Vec<(u32, OsString)> {
    let marked = own_processes().into_iter().filter_map(|pid| {
        let mark = mark(pid)?;
        marks.contains(&mark).then_some((pid, mark))
    });
    marked.collect()
}

/// Whether the process has this mark in its environment.
pub(super) fn is_marked(pid: u32, expected: &OsStr) -> bool {
    mark(pid).is_some_and(|mark| mark == expected)
}

fn mark(pid: u32) -> Option<OsString> {
    let mut environment = Vec::new();
    let file = File::open(directory(pid).join("environ")).ok()?;
    let read = file.take(MAX_ENVIRONMENT).read_to_end(&mut environment);
    read.ok()?;
    environment.split(|byte| *byte == 0).find_map(|variable| {
        let value = variable.strip_prefix(MARK.as_bytes())?;
        value
            .strip_prefix(b"=")
            .map(|mark| OsStr::from_bytes(mark).to_owned())
    })
}

/// Whether the process has no environment any more, as is the case while it is dying and its memory is gone. The file is
/// empty then; newer kernels say that there is no such process.
pub(super) fn has_lost_its_environment(pid: u32) -> bool {
    let mut first = [0];
    let file = File::open(directory(pid).join("environ"));
    match file.and_then(|mut file| file.read(&mut first)) {
        Ok(length) => length == 0,
        Err(error) => gone_is_not_found(error).kind() == io::ErrorKind::NotFound,
    }
}

/// Returns the user of a process.
pub(super) fn owner(pid: u32) -> io::Result<u32> {
    let metadata = fs::metadata(directory(pid)).map_err(gone_is_not_found)?;
    Ok(metadata.uid())
}

/// Returns the processes of this user that have the socket with this inode open.
pub(super) fn holders_of_socket(inode: u64) -> Vec<u32> {
    let mut holders = own_processes();
    holders.retain(|&pid| matches!(descriptor_of_socket(pid, inode, None), Ok(Some(_))));
    holders
}

/// Returns the running descendants of a process. A descendant is not found if a process between them has ended.
pub(super) fn descendants(ancestor: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = own_processes()
        .into_iter()
        .filter_map(|pid| Some((pid, parent(pid)?)))
        .collect();
    let mut found = vec![ancestor];
    let mut next = 0;
    while let Some(&of) = found.get(next) {
        let children = parents
            .iter()
            .filter(|(pid, parent)| *parent == of && !found.contains(pid));
        let children: Vec<u32> = children.map(|(pid, _)| *pid).collect();
        found.extend(children);
        next += 1;
    }
    found.split_off(1)
}

/// Returns the parent of a running process; `None` for a process that has ended.
fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read(directory(pid).join("stat")).ok()?;
    let name_end = stat.iter().rposition(|&byte| byte == b')')?;
    let fields = std::str::from_utf8(stat.get(name_end + 1..)?).ok()?;
    let mut fields = fields.split_ascii_whitespace();
    match fields.next()? {
        // A zombie has ended and was not reaped.
        "Z" => None,
        _ => fields.next()?.parse().ok(),
    }
}

/// Returns the inode of an open socket, as `/proc/<pid>/fd` shows it.
pub(super) fn socket_inode(socket: impl std::os::fd::AsFd) -> io::Result<u64> {
    Ok(rustix::fs::fstat(socket)?.st_ino)
}

/// Turns ESRCH, the error for a process that ends while its file is read, into `NotFound`, the error for a process
/// whose directory is missing.
pub(super) fn gone_is_not_found(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::ESRCH) => io::ErrorKind::NotFound.into(),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixListener;

    use rustix::fs::{Mode, OFlags};

    use super::*;

    #[test]
    fn this_process_has_its_socket() {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("socket")).unwrap();
        let inode = socket_inode(&listener).unwrap();
        let me = stamp(std::process::id()).unwrap();

        let fd = listener.as_raw_fd() as u32;
        // A `likely` descriptor that is another file, or is closed, does not change the result.
        for likely in [None, Some(fd), Some(0), Some(1 << 20)] {
            let found = descriptor_of_socket(me.pid, inode, likely).unwrap();
            assert_eq!(found, Some(fd), "{likely:?}");
        }
        drop(listener);
        // The search meets this directory, whose path is too long for a link.
        let mut deep = File::open(dir.path()).unwrap();
        for _ in 0..25 {
            let name = "d".repeat(200);
            rustix::fs::mkdirat(&deep, &name, Mode::RWXU).unwrap();
            let inner = rustix::fs::openat(&deep, &name, OFlags::DIRECTORY, Mode::empty());
            deep = File::from(inner.unwrap());
        }
        let link = fs::read_link(format!("/proc/self/fd/{}", deep.as_raw_fd()));
        assert_eq!(link.unwrap_err().kind(), io::ErrorKind::InvalidFilename);
        for likely in [None, Some(fd)] {
            let found = descriptor_of_socket(me.pid, inode, likely).unwrap();
            assert_eq!(found, None, "{likely:?}");
        }
    }

    #[test]
    fn proc_shows_this_process() {
        check().unwrap();
        let own = std::process::id();
        assert_eq!(inner_pid(own).unwrap(), own);
        let parent = parent(own).unwrap();
        assert_eq!(
            parent,
            rustix::process::getppid().unwrap().as_raw_nonzero().get() as u32
        );
        assert!(own_processes().contains(&own));
    }

    #[test]
    fn children_and_their_children_are_found_by_descent_and_by_mark() {
        use std::process::{Command, Stdio};

        let mark = OsString::from("vmm-of-this-test");
        let mut shell = Command::new("sh")
            .args(["-c", "setsid sleep 1000 & echo; read line"])
            .env(MARK, &mark)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // The shell writes a line once it has forked the other process.
        shell.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
        let descendants = descendants(shell.id());
        assert_eq!(descendants.len(), 1, "{descendants:?}");
        assert!(super::descendants(std::process::id()).contains(&descendants[0]));
        let mut marked: Vec<u32> = marked(&HashSet::from([mark]))
            .into_iter()
            .map(|(pid, _)| pid)
            .collect();
        marked.sort_unstable();
        let mut expected = [shell.id(), descendants[0]];
        expected.sort_unstable();
        assert_eq!(marked, expected);
        let sleeper = rustix::process::Pid::from_raw(descendants[0] as i32).unwrap();
        rustix::process::kill_process(sleeper, rustix::process::Signal::KILL).unwrap();
        shell.kill().unwrap();
        shell.wait().unwrap();
    }

    #[test]
    fn an_unused_process_id_is_not_found() {
        // This is above the largest process id of Linux (2^22).
        let unused = 1 << 30;
        assert_eq!(stamp(unused).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(
            descriptor_of_socket(unused, 1, Some(3)).unwrap_err().kind(),
            ErrorKind::NotFound
        );
    }

    #[test]
    fn a_stamp_is_fields_1_and_22_whatever_the_name() {
        fn check(stat: &str, expected: Option<(u32, u64)>) {
            let expected = expected.map(|(pid, start_time)| ProcessStamp { pid, start_time });
            assert_eq!(ProcessStamp::parse(stat.as_bytes()), expected, "{stat}");
        }

        let rest = "S 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 2222 23 24\n";
        for name in ["(vmm)", "(a) b (c d)", "()", "(9 (8"] {
            let stat = format!("7 {name}) {rest}");
            check(&stat, Some((7, 2222)));
        }
        check(&format!("7 vmm {rest}"), None);
        check(&format!("seven (vmm) {rest}"), None);
        check("7 )vmm(", None);
        check("7 (short) S 1 2", None);
        check("", None);
    }

    #[test]
    fn a_process_loses_its_environment_when_it_ends() {
        use rustix::process::{WaitId, WaitIdOptions, waitid};

        let mut child = std::process::Command::new("/bin/cat")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .env("NAME", "value")
            .spawn()
            .unwrap();
        // Its answer shows that it has executed its program: it has no environment for a moment before.
        io::Write::write_all(child.stdin.as_mut().unwrap(), b"x").unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        assert!(!has_lost_its_environment(child.id()));
        drop(child.stdin.take());
        // The child stays a zombie.
        let pid = rustix::process::Pid::from_child(&child);
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(pid), options).unwrap();
        assert!(has_lost_its_environment(child.id()));
        child.wait().unwrap();
    }
}
