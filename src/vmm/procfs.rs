//! What `/proc` knows of a process.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The variable by which a process below a run directory is known: its value is the directory's name. A process can't give
/// it to another that it didn't start.
pub(super) const MARK: &str = "CHV_SANDBOX_RUN_DIR";

/// No environment that a process is started with is longer than this, in bytes: a quarter of the largest stack.
const MAX_ENVIRONMENT: u64 = 8 << 20;

/// A process: ids are used again, but not by two processes that started in the same clock tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) pid: u32,
    /// Clock ticks since the boot.
    pub(super) start_time: u64,
}

impl Stamp {
    /// Reads fields 1 and 22 of what `/proc/<pid>/stat` says.
    pub(super) fn parse(stat: &[u8]) -> Option<Stamp> {
        // Field 2 is the name in parentheses. It can hold anything, parentheses too: the last one ends it.
        let name_start = stat.iter().position(|&byte| byte == b'(')?;
        let name_end = stat.iter().rposition(|&byte| byte == b')')?;
        let pid = std::str::from_utf8(&stat[..name_start]).ok()?;
        let fields = std::str::from_utf8(stat.get(name_end + 1..)?).ok()?;
        Some(Stamp {
            pid: pid.trim().parse().ok()?,
            start_time: fields.split_ascii_whitespace().nth(22 - 3)?.parse().ok()?,
        })
    }
}

/// The directory of a process below `/proc`.
pub(super) fn directory(pid: u32) -> PathBuf {
    Path::new("/proc").join(pid.to_string())
}

/// Identifies this boot of the machine: process ids and inodes of sockets mean nothing in another.
pub(super) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?
        .trim()
        .to_owned())
}

/// Who has this process id now. An error of kind `NotFound`: nobody.
pub(super) fn stamp(pid: u32) -> io::Result<Stamp> {
    let stat = fs::read(directory(pid).join("stat")).map_err(gone_is_not_found)?;
    Stamp::parse(&stat).ok_or(io::ErrorKind::InvalidData.into())
}

/// The numbers of the descriptors that a process has open.
///
/// An error of kind `NotFound`: it is gone, or dying. Its first thread may end before the others, which still have open
/// what they shared. An error of kind `PermissionDenied`: it has privileges that we don't.
pub(super) fn descriptors(pid: u32) -> io::Result<Vec<u32>> {
    let mut descriptors = Vec::new();
    for entry in fs::read_dir(directory(pid).join("fd")).map_err(gone_is_not_found)? {
        let name = entry.map_err(gone_is_not_found)?.file_name();
        descriptors.extend(name.to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    // The C library shows the kernel's ENOENT as an empty directory.
    if descriptors.is_empty() {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(descriptors)
}

/// How many descriptors of a process are looked at. A VMM with many queues has some hundreds.
pub(super) const MOST_DESCRIPTORS: usize = 4096;

/// Looks at the descriptors of a process one by one, at those in `first` before all others, until one is enough. Whether
/// one was.
///
/// A descriptor that is closed meanwhile is passed over. Errors as for [`descriptors`], and one for more than
/// [`MOST_DESCRIPTORS`].
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
    // "Closed meanwhile" may have meant that it died meanwhile.
    descriptors(pid).map(|_| false)
}

/// Which descriptor of the process is the socket with this inode, if one is; the one that is `likely` is looked at first.
/// Errors as for [`look_at_descriptors`].
pub(super) fn descriptor_of_socket(
    pid: u32,
    inode: u64,
    likely: Option<u32>,
) -> io::Result<Option<u32>> {
    let expected = format!("socket:[{inode}]");
    let directory = directory(pid).join("fd");
    let mut found = None;
    look_at_descriptors(pid, likely.as_slice(), |fd| {
        let target = fs::read_link(directory.join(fd.to_string()))?;
        if target.as_os_str() != expected.as_str() {
            return Ok(ControlFlow::Continue(()));
        }
        found = Some(fd);
        Ok(ControlFlow::Break(()))
    })?;
    Ok(found)
}

/// Fails where `/proc` doesn't show this process itself: a container may mask parts of it, and nothing can be proved then.
pub(super) fn check() -> io::Result<()> {
    for file in ["stat", "fd", "fdinfo", "maps", "environ", "status"] {
        let path = Path::new("/proc/self").join(file);
        fs::metadata(&path).map_err(|error| {
            let reason = format!("{} can't be looked at: {error}", path.display());
            io::Error::new(error.kind(), reason)
        })?;
    }
    // The id that `/proc` gives this process is another one where it was mounted for another namespace.
    let own = Stamp::parse(&fs::read("/proc/self/stat")?);
    match own.is_some_and(|own| own.pid == std::process::id()) {
        true => Ok(()),
        false => Err(io::Error::other("/proc is of another process namespace")),
    }
}

/// The process id that a process has in its own namespace: the last of `NSpid`.
pub(super) fn inner_pid(pid: u32) -> io::Result<u32> {
    let status = fs::read_to_string(directory(pid).join("status")).map_err(gone_is_not_found)?;
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    let last = line.and_then(|ids| ids.split_ascii_whitespace().last()?.parse().ok());
    last.ok_or(io::ErrorKind::InvalidData.into())
}

/// The processes of this user. What can't be looked at isn't among them.
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

/// The processes of this user that were started with one of these [marks](MARK), or forked from one that was, each with its
/// mark.
pub(super) fn marked(marks: &HashSet<OsString>) -> Vec<(u32, OsString)> {
    let marked = own_processes().into_iter().filter_map(|pid| {
        let mark = mark(pid)?;
        marks.contains(&mark).then_some((pid, mark))
    });
    marked.collect()
}

/// Whether the process was started with this mark.
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

/// Whether the process has no environment any more, since its memory is gone.
pub(super) fn has_lost_its_environment(pid: u32) -> bool {
    let mut first = [0];
    let file = File::open(directory(pid).join("environ"));
    file.and_then(|mut file| file.read(&mut first))
        .is_ok_and(|length| length == 0)
}

/// Whose a process is.
pub(super) fn owner(pid: u32) -> io::Result<u32> {
    let metadata = fs::metadata(directory(pid)).map_err(gone_is_not_found)?;
    Ok(metadata.uid())
}

/// The processes of this user that have the socket with this inode open.
pub(super) fn holders_of_socket(inode: u64) -> Vec<u32> {
    let mut holders = own_processes();
    holders.retain(|&pid| matches!(descriptor_of_socket(pid, inode, None), Ok(Some(_))));
    holders
}

/// The living processes that descend from this one, as far as their parents still live.
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

/// The parent of a process that runs.
fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read(directory(pid).join("stat")).ok()?;
    let name_end = stat.iter().rposition(|&byte| byte == b')')?;
    let fields = std::str::from_utf8(stat.get(name_end + 1..)?).ok()?;
    let mut fields = fields.split_ascii_whitespace();
    match fields.next()? {
        // A zombie that nothing has reaped.
        "Z" => None,
        _ => fields.next()?.parse().ok(),
    }
}

/// The inode of an open socket, as `/proc/<pid>/fd` shows it.
pub(super) fn socket_inode(socket: impl std::os::fd::AsFd) -> io::Result<u64> {
    Ok(rustix::fs::fstat(socket)?.st_ino)
}

/// Reading of a process that ends meanwhile gives ESRCH, which says the same as that its directory is missing.
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

    use super::*;

    #[test]
    fn this_process_has_its_socket() {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("socket")).unwrap();
        let inode = socket_inode(&listener).unwrap();
        let me = stamp(std::process::id()).unwrap();

        let fd = listener.as_raw_fd() as u32;
        // A number that leads to something else, or to nothing, is no answer.
        for likely in [None, Some(fd), Some(0), Some(1 << 20)] {
            let found = descriptor_of_socket(me.pid, inode, likely).unwrap();
            assert_eq!(found, Some(fd), "{likely:?}");
        }
        drop(listener);
        for likely in [None, Some(fd)] {
            let found = descriptor_of_socket(me.pid, inode, likely).unwrap();
            assert_eq!(found, None, "{likely:?}");
        }
    }

    #[test]
    fn this_process_is_seen_whole() {
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
        // The echo says that the other one was forked.
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
    fn nobody_is_not_found() {
        // Above the largest process id that Linux gives out (2^22).
        let nobody = 1 << 30;
        assert_eq!(stamp(nobody).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(
            descriptor_of_socket(nobody, 1, Some(3)).unwrap_err().kind(),
            ErrorKind::NotFound
        );
    }

    #[test]
    fn a_stamp_is_fields_1_and_22_whatever_the_name() {
        fn check(stat: &str, expected: Option<(u32, u64)>) {
            let expected = expected.map(|(pid, start_time)| Stamp { pid, start_time });
            assert_eq!(Stamp::parse(stat.as_bytes()), expected, "{stat}");
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
}
