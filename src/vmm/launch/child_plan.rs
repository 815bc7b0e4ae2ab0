//! [`ChildPlan`] starts the child process that becomes a VMM, and sets its restrictions between clone and exec.
//!
//! Until it executes the program, the child runs on this process's memory, so it only makes system calls. Everything
//! that it needs is therefore made before the clone, and kept in the [`ChildPlan`].

use std::convert::Infallible;
use std::ffi::{CStr, CString, c_char};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::ptr;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, FdFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Resource, Rlimit, Signal};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::signals::reset_signals;
use super::vfork::{ChildStack, vfork};
use crate::vmm::beyond_streams;
use crate::vmm::confinement::{IdMaps, Layer, NAMESPACES};

/// The program that the child executes, and everything that the child sets up before that.
pub(super) struct ChildPlan {
    /// The executable's path; `None` for a trial process, which exits at once.
    pub(super) program: Option<CString>,
    pub(super) arguments: Vec<CString>,
    pub(super) environment: Vec<CString>,
    /// Standard input, output and error.
    pub(super) stdio: [OwnedFd; 3],
    /// The descriptors that the program inherits, under the same numbers.
    pub(super) inherited: Vec<OwnedFd>,
    /// The file to which the child writes a copy of its `/proc/self/stat`.
    pub(super) record: Option<OwnedFd>,
    pub(super) restrictions: Restrictions,
}

/// The restrictions that the child sets on itself, by layer of the confinement.
#[derive(Default)]
pub(super) struct Restrictions {
    pub(super) namespaces: Option<IdMaps>,
    /// The file `cgroup.procs` of the control group.
    pub(super) cgroup: Option<OwnedFd>,
    pub(super) rlimits: Vec<(Resource, Rlimit)>,
    pub(super) capabilities: bool,
    pub(super) no_new_privs: bool,
    pub(super) descriptors: bool,
    pub(super) landlock: Option<OwnedFd>,
}

impl Restrictions {
    /// Leaves a layer out. Returns whether it was set before.
    pub(super) fn leave_out(&mut self, layer: Layer) -> bool {
        match layer {
            Layer::Environment => false,
            Layer::Descriptors => std::mem::take(&mut self.descriptors),
            Layer::NoNewPrivs => std::mem::take(&mut self.no_new_privs),
            Layer::Rlimits => !std::mem::take(&mut self.rlimits).is_empty(),
            Layer::Capabilities => std::mem::take(&mut self.capabilities),
            Layer::Landlock => self.landlock.take().is_some(),
            Layer::Namespaces => self.namespaces.take().is_some(),
            Layer::Cgroup => self.cgroup.take().is_some(),
        }
    }
}

/// A step of the start. The child reports the step that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Step {
    Clone,
    Namespaces,
    Cgroup,
    Prepare,
    Rlimits,
    Capabilities,
    NoNewPrivs,
    Descriptors,
    Landlock,
    Exec,
}

impl Step {
    const ALL: [Step; 10] = [
        Step::Clone,
        Step::Namespaces,
        Step::Cgroup,
        Step::Prepare,
        Step::Rlimits,
        Step::Capabilities,
        Step::NoNewPrivs,
        Step::Descriptors,
        Step::Landlock,
        Step::Exec,
    ];

    /// The layer that the step sets up; `None` for a step that every start needs.
    pub(super) fn layer(self) -> Option<Layer> {
        match self {
            Step::Clone | Step::Prepare | Step::Exec => None,
            Step::Namespaces => Some(Layer::Namespaces),
            Step::Cgroup => Some(Layer::Cgroup),
            Step::Rlimits => Some(Layer::Rlimits),
            Step::Capabilities => Some(Layer::Capabilities),
            Step::NoNewPrivs => Some(Layer::NoNewPrivs),
            Step::Descriptors => Some(Layer::Descriptors),
            Step::Landlock => Some(Layer::Landlock),
        }
    }
}

/// The step that made a start fail, with its error.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) step: Step,
    pub(super) error: io::Error,
}

type Steps<T> = Result<T, (Step, Errno)>;

/// Returns a function for `map_err` that adds the failed `step`.
fn at(step: Step) -> impl Fn(Errno) -> (Step, Errno) {
    move |error| (step, error)
}

impl ChildPlan {
    /// Starts the child and waits until it has executed the program or, for a trial, until it has ended.
    ///
    /// The calling thread must live as long as the child should, since the kernel sends the parent-death signal when
    /// that thread ends.
    pub(super) fn start(&self) -> Result<Pid, Failure> {
        let failed = |step| move |error| Failure { step, error };
        let (status, failure_pipe) =
            pipe_with(PipeFlags::CLOEXEC).map_err(|error| failed(Step::Clone)(error.into()))?;
        let failure_pipe = beyond_streams(failure_pipe).map_err(failed(Step::Clone))?;
        let mut stack = ChildStack::new().map_err(failed(Step::Clone))?;
        let arguments = pointers(&self.arguments);
        let environment = pointers(&self.environment);
        let needed = self.needed_descriptors(&failure_pipe);
        let become_program = || {
            // The parent alone keeps the reading end, or the child could not tell that the parent is gone.
            // SAFETY: descriptors are not shared, so this closes the child's own, which nothing uses after this.
            unsafe { rustix::io::close(status.as_raw_fd()) };
            let failed = self.become_program(&failure_pipe, &needed, &arguments, &environment);
            let (step, error) = match failed {
                Ok(never) => match never {},
                Err(failure) => failure,
            };
            let errno = error.raw_os_error().to_ne_bytes();
            let message = [step as u8, errno[0], errno[1], errno[2], errno[3]];
            let _ = rustix::io::write(&failure_pipe, &message);
            127
        };
        let (namespaces, step) = match self.restrictions.namespaces {
            None => (0, Step::Clone),
            Some(_) => (NAMESPACES, Step::Namespaces),
        };
        // SAFETY: `become_program` makes system calls only and does not panic.
        let child = unsafe { vfork(namespaces, &mut stack, &become_program) };
        let child = child.map_err(failed(step))?;
        drop(failure_pipe);
        match read_failure(&status) {
            Ok(None) if self.program.is_some() => Ok(child),
            Ok(failure) => {
                reap(child);
                match failure {
                    None => Ok(child),
                    Some(failure) => Err(failure),
                }
            }
            Err(error) => {
                kill_and_reap(child);
                Err(failed(Step::Clone)(error))
            }
        }
    }

    /// The numbers of the descriptors that the child uses, in ascending order.
    fn needed_descriptors(&self, failure_pipe: &OwnedFd) -> Vec<RawFd> {
        let restrictions = &self.restrictions;
        let files = [&self.record, &restrictions.cgroup, &restrictions.landlock];
        let files = files.into_iter().flatten().chain([failure_pipe]);
        let all = files.chain(&self.stdio).chain(&self.inherited);
        let mut needed: Vec<RawFd> = all.map(AsRawFd::as_raw_fd).collect();
        needed.sort_unstable();
        needed
    }

    /// Sets up the child and executes the program. It only makes system calls: it takes no lock and allocates nothing.
    fn become_program(
        &self,
        failure_pipe: &OwnedFd,
        needed: &[RawFd],
        arguments: &[*const c_char],
        environment: &[*const c_char],
    ) -> Steps<Infallible> {
        let restrictions = &self.restrictions;
        // This comes first: if the agent dies now, the child must not keep the agent's locks.
        if restrictions.descriptors {
            close_all_but(needed).map_err(at(Step::Descriptors))?;
        }
        if let Some(procs) = &restrictions.cgroup {
            // 0 means the process that writes.
            rustix::io::write(procs, b"0").map_err(at(Step::Cgroup))?;
        }
        if let Some(maps) = &restrictions.namespaces {
            // The kernel accepts a `gid_map` from an unprivileged process only after this.
            write_to(c"/proc/self/setgroups", b"deny").map_err(at(Step::Namespaces))?;
            write_to(c"/proc/self/uid_map", maps.user.as_bytes()).map_err(at(Step::Namespaces))?;
            write_to(c"/proc/self/gid_map", maps.group.as_bytes()).map_err(at(Step::Namespaces))?;
        }
        // The child gets its own process group, so that a terminal's signals reach the agent only.
        rustix::process::setpgid(None, None).map_err(at(Step::Prepare))?;
        if let Some(record) = &self.record {
            write_stat(record).map_err(at(Step::Prepare))?;
        }
        for (number, stream) in self.stdio.iter().enumerate() {
            // SAFETY: dup2 on two numbers; the new one is a standard stream of this child alone.
            let copied = unsafe { libc::dup2(stream.as_raw_fd(), number as i32) };
            if copied < 0 {
                return Err((Step::Prepare, last_error()));
            }
        }
        for &(resource, limit) in &restrictions.rlimits {
            rustix::process::setrlimit(resource, limit).map_err(at(Step::Rlimits))?;
        }
        if restrictions.capabilities {
            drop_capabilities().map_err(at(Step::Capabilities))?;
        }
        if restrictions.no_new_privs {
            rustix::thread::set_no_new_privs(true).map_err(at(Step::NoNewPrivs))?;
        }
        // A change of credentials clears this setting, so it comes after all of them.
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
            .map_err(at(Step::Prepare))?;
        if parent_is_gone(failure_pipe).map_err(at(Step::Prepare))? {
            return Err((Step::Prepare, Errno::SRCH));
        }
        for descriptor in &self.inherited {
            rustix::io::fcntl_setfd(descriptor, FdFlags::empty()).map_err(at(Step::Prepare))?;
        }
        if let Some(ruleset) = &restrictions.landlock {
            restrict(ruleset).map_err(at(Step::Landlock))?;
        }
        reset_signals(!restrictions.rlimits.is_empty());
        let Some(program) = &self.program else {
            // SAFETY: `_exit` ends the trial process, as above.
            unsafe { libc::_exit(0) }
        };
        // SAFETY: the path is a C string, both lists are of C strings with a null pointer at the end, and all of them
        // outlive the call, which returns only if it failed.
        unsafe { libc::execve(program.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
        Err((Step::Exec, last_error()))
    }
}

/// Returns pointers to the strings, with a null pointer at the end.
fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    let pointers = strings.iter().map(|string| string.as_ptr());
    pointers.chain([ptr::null()]).collect()
}

fn last_error() -> Errno {
    // `last_os_error` reads the C library's errno and does not allocate.
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::INVAL)
}

fn write_to(path: &CStr, bytes: &[u8]) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty())?;
    rustix::io::write(&file, bytes).map(drop)
}

fn write_stat(record: &OwnedFd) -> Result<(), Errno> {
    let mut stat = [0; 1024];
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let own = rustix::fs::open(c"/proc/self/stat", flags, Mode::empty())?;
    let length = rustix::io::read(&own, &mut stat)?;
    rustix::io::write(record, &stat[..length]).map(drop)
}

/// Drops every capability: those in force, and those that an exec could give back.
fn drop_capabilities() -> Result<(), Errno> {
    // The capabilities are dropped by number, since a kernel may have more than this program knows. The first number
    // that the kernel does not know ends the loop. A process that may not drop capabilities has none, and
    // `no_new_privs` ensures that it gets none.
    for capability in 0..=u64::BITS {
        // SAFETY: the call takes numbers only.
        let dropped = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        if dropped != 0 {
            match last_error() {
                Errno::INVAL | Errno::PERM => break,
                error => return Err(error),
            }
        }
    }
    match rustix::thread::clear_ambient_capability_set() {
        Ok(()) | Err(Errno::INVAL) => {}
        Err(error) => return Err(error),
    }
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, none)
}

/// Whether the parent died before the parent-death signal was requested, in which case the signal never comes.
/// `failure_pipe` is a pipe whose reading end only the parent has open.
fn parent_is_gone(failure_pipe: &OwnedFd) -> Result<bool, Errno> {
    let mut pipe = [PollFd::from_borrowed_fd(
        failure_pipe.as_fd(),
        PollFlags::empty(),
    )];
    poll(&mut pipe, Some(&Timespec::default()))?;
    Ok(pipe[0].revents().contains(PollFlags::ERR))
}

/// Closes every descriptor from 3 on that is not among the `needed` ones, which are in ascending order. Those are closed
/// at exec, unless the program inherits them.
fn close_all_but(needed: &[RawFd]) -> Result<(), Errno> {
    let mut first = 3;
    for &number in needed {
        close_range(first, number - 1)?;
        first = first.max(number + 1);
    }
    close_range(first, RawFd::MAX)
}

/// Closes the descriptors from `first` to `last`, if there are any.
fn close_range(first: RawFd, last: RawFd) -> Result<(), Errno> {
    if first > last {
        return Ok(());
    }
    // SAFETY: descriptors are not shared, so this closes the child's own, which nothing uses after this.
    match unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } {
        0 => Ok(()),
        _ => Err(last_error()),
    }
}

/// Enters the Landlock domain.
fn restrict(ruleset: &OwnedFd) -> Result<(), Errno> {
    // SAFETY: the call takes a descriptor and a number.
    let restricted =
        unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0_u32) };
    match restricted {
        0 => Ok(()),
        _ => Err(last_error()),
    }
}

/// Reads the step that failed from the child; `None` if exec has closed the child's end of the pipe.
fn read_failure(status: &OwnedFd) -> io::Result<Option<Failure>> {
    let mut message = [0; 5];
    let length = loop {
        match rustix::io::read(status, &mut message) {
            Err(Errno::INTR) => {}
            read => break read?,
        }
    };
    if length == 0 {
        return Ok(None);
    }
    let [step, errno @ ..] = message;
    let step = Step::ALL.into_iter().find(|known| *known as u8 == step);
    Ok(Some(Failure {
        step: step.unwrap_or(Step::Clone),
        error: io::Error::from_raw_os_error(i32::from_ne_bytes(errno)),
    }))
}

/// Kills and reaps a child that can't be managed further.
pub(super) fn kill_and_reap(child: Pid) {
    let _ = rustix::process::kill_process(child, Signal::KILL);
    reap(child);
}

/// Waits for the end of a child and takes its status.
fn reap(child: Pid) {
    while let Err(Errno::INTR) =
        rustix::process::waitpid(Some(child), rustix::process::WaitOptions::empty())
    {}
}

#[cfg(test)]
mod tests;
