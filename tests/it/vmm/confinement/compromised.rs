//! A VMM that its guest has taken over, played by this test binary: it tries one attack before it serves, and writes
//! the outcome to its log.

use std::env;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::fs::chown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::io::FdFlags;
use rustix::process::{Pid, Resource, getrlimit, test_kill_process};

use crate::vmm::fake;

/// The beginning of the log line with the outcome of the attack.
pub(super) const TRIED: &str = "the compromised VMM tried: ";

/// The variable that names the attack of a compromised VMM, followed by a space and its argument.
pub(super) const TRY: &str = "FAKE_VMM_TRY";

#[test]
#[ignore = "plays a VMM for other tests"]
#[expect(clippy::print_stdout, reason = "it says that it was skipped")]
fn play() {
    let Ok(what) = env::var(TRY) else {
        println!("skipped: only of use to other tests");
        return;
    };
    let (what, argument) = what.split_once(' ').unwrap_or((&what, ""));
    let outcome = match attempt(what, argument) {
        Ok(()) => "done".to_owned(),
        Err(error) => format!("refused, {error}"),
    };
    // The line is written at once, since other processes write to the same log.
    let said = format!("{TRIED}{outcome}.\n");
    io::stderr().write_all(said.as_bytes()).unwrap();
    fake::serve();
}

fn attempt(what: &str, argument: &str) -> io::Result<()> {
    let path = Path::new(argument);
    match what {
        "environment" => match env::var_os(argument) {
            Some(_) => Ok(()),
            None => Err(io::ErrorKind::NotFound.into()),
        },
        "descriptor" => {
            let number: RawFd = argument.parse().map_err(io::Error::other)?;
            // SAFETY: the number is only asked whether it is of something that is open.
            let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
            rustix::fs::fstat(descriptor).map(drop)?;
            Ok(())
        }
        "read" => File::open(path)?.read_exact(&mut [0]),
        "write" => File::options().write(true).open(path)?.write_all(b"x"),
        "signal" => {
            let pid = argument.parse().ok().and_then(Pid::from_raw);
            Ok(test_kill_process(pid.ok_or(io::ErrorKind::InvalidInput)?)?)
        }
        "memory" => {
            let memory = File::open(Path::new("/proc").join(argument).join("mem"))?;
            drop(memory);
            fs::read_dir(Path::new("/proc").join(argument).join("fd")).map(drop)
        }
        "connect" => UnixStream::connect(path).map(drop),
        "tcp" => {
            let port = argument.parse().map_err(io::Error::other)?;
            TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).map(drop)
        }
        "chown" => {
            let own = own_folder()?.join("file");
            fs::write(&own, "")?;
            chown(&own, Some(1), Some(1))
        }
        "privileges" => match rustix::thread::no_new_privs()? {
            true => Err(io::ErrorKind::PermissionDenied.into()),
            false => Ok(()),
        },
        "core" => match getrlimit(Resource::Core).maximum {
            Some(0) => Err(io::ErrorKind::PermissionDenied.into()),
            _ => Ok(()),
        },
        "grow" => {
            let length = argument.parse().map_err(io::Error::other)?;
            File::create(own_folder()?.join("large"))?.set_len(length)
        }
        "folder" => fs::create_dir(own_folder()?.join("folder")),
        "fork" => fork(path),
        other => panic!("{other} is nothing to try"),
    }
}

/// The folder that the compromised VMM may write to: the one of its own api-socket.
fn own_folder() -> io::Result<PathBuf> {
    let args = env::var("FAKE_VMM_ARGS").unwrap();
    let number = args.split(' ').find_map(|arg| arg.strip_prefix("fd="));
    let number: RawFd = number.unwrap().parse().unwrap();
    // SAFETY: the listener is open under this number, and stays so.
    let listener = unsafe { BorrowedFd::borrow_raw(number) };
    let listener = UnixListener::from(listener.try_clone_to_owned()?);
    let address = listener.local_addr()?;
    Ok(address.as_pathname().unwrap().with_file_name("rw"))
}

/// Leaves a process behind whose parent has ended and which leads a session of its own. The process holds a connection
/// to `socket`.
fn fork(socket: &Path) -> io::Result<()> {
    let connection = UnixStream::connect(socket)?;
    rustix::io::fcntl_setfd(&connection, FdFlags::empty())?;
    let mut parent = Command::new("/bin/sh")
        .args(["-c", "setsid sh -c 'echo; exec sleep 1000'; :"])
        .stdout(Stdio::piped())
        .spawn()?;
    // The byte shows that the process runs.
    parent.stdout.take().unwrap().read_exact(&mut [0])?;
    parent.kill()?;
    parent.wait().map(drop)
}
