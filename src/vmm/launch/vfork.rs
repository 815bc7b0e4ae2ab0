//! [`vfork`] runs a function in a child process that shares this process's memory until it executes a program.
//!
//! A fork copies the page tables, and makes every later write of this process fault: for an agent with a gigabyte of
//! memory that takes longer than everything else in the start of a VMM. A child that shares the memory costs the same
//! whatever the agent has. The calling thread waits in the kernel until the child has executed its program or ended,
//! so the two never run on the same data. Other threads run on.

use std::ffi::{c_int, c_void};
use std::io;
use std::ptr;

use memmap2::MmapMut;
use rustix::process::Pid;

use super::signals::SignalsBlocked;

/// The size of the child's stack in bytes. Unoptimised code uses less than a tenth.
const STACK_SIZE: usize = 256 << 10;

/// The size of the area at the stack's lower end that can't be accessed, so that an overflow ends the child instead of
/// overwriting memory. It is a multiple of the page size on every architecture.
const GUARD_SIZE: usize = 64 << 10;

/// A child's stack, which can be used for one child after the other.
pub(super) struct ChildStack(MmapMut);

impl ChildStack {
    pub(super) fn new() -> io::Result<Self> {
        let mut memory = MmapMut::map_anon(GUARD_SIZE + STACK_SIZE)?;
        // SAFETY: the area is at the start of a mapping of this value's own, which nothing refers to.
        let guarded =
            unsafe { libc::mprotect(memory.as_mut_ptr().cast(), GUARD_SIZE, libc::PROT_NONE) };
        match guarded {
            0 => Ok(ChildStack(memory)),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// The address after the stack's last byte. Stacks grow downwards.
    fn top(&mut self) -> *mut c_void {
        self.0.as_mut_ptr_range().end.cast()
    }
}

/// Starts a child that calls `run` and exits with what it returns, unless `run` executes a program. `namespaces` are
/// flags of `clone`. Returns when the child has executed a program or has ended.
///
/// # Safety
///
/// `run` changes no data that another thread may use and takes no lock, which includes the allocator's: it makes system
/// calls only. It does not panic.
pub(super) unsafe fn vfork<F: Fn() -> c_int>(
    namespaces: c_int,
    stack: &mut ChildStack,
    run: &F,
) -> io::Result<Pid> {
    extern "C" fn enter<F: Fn() -> c_int>(run: *mut c_void) -> c_int {
        // SAFETY: `vfork` passes a reference to a function of this type, and waits while the child uses it.
        let run = unsafe { &*run.cast_const().cast::<F>() };
        run()
    }

    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD | namespaces;
    // A signal handler of this process would otherwise run in the child too, on the memory of both.
    let _signals = SignalsBlocked::new();
    // SAFETY: with CLONE_VFORK the call returns only when the child uses neither the stack nor `run` any more. The
    // caller guarantees that sharing all other memory is sound.
    let id = unsafe {
        let run = ptr::from_ref(run).cast_mut().cast();
        libc::clone(enter::<F>, stack.top(), flags, run)
    };
    Pid::from_raw(id.max(0)).ok_or_else(io::Error::last_os_error)
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;

    use rustix::process::{WaitOptions, waitpid};

    use super::*;

    /// Starts a child that runs `run`, and returns its exit code or the signal that ended it.
    fn end_of(run: impl Fn() -> c_int) -> (Option<i32>, Option<i32>) {
        let mut stack = ChildStack::new().unwrap();
        // SAFETY: the functions of these tests use their own stack and numbers only.
        let child = unsafe { vfork(0, &mut stack, &run) }.unwrap();
        let (_, status) = waitpid(Some(child), WaitOptions::empty()).unwrap().unwrap();
        (status.exit_status(), status.terminating_signal())
    }

    #[test]
    fn a_child_exits_with_what_its_function_returns() {
        let code = black_box(41);
        assert_eq!(end_of(|| code + 1), (Some(42), None));
    }

    #[test]
    fn an_overflow_of_the_stack_ends_the_child() {
        fn deeper(than: u64) -> u64 {
            let used = black_box([than; 128]);
            match than {
                u64::MAX => 0,
                _ => deeper(than + 1).wrapping_add(black_box(used)[0]),
            }
        }

        let run = || {
            black_box(deeper(0));
            0
        };
        assert_eq!(end_of(run), (None, Some(libc::SIGSEGV)));
    }

    #[test]
    fn signals_are_blocked_in_the_child_and_as_before_in_the_parent() {
        let blocked = || {
            // SAFETY: the sets have numbers only, and the calls write and read the one that they are given.
            unsafe {
                let mut mask: libc::sigset_t = std::mem::zeroed();
                libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), &raw mut mask);
                libc::sigismember(&raw const mask, libc::SIGUSR1)
            }
        };
        assert_eq!(end_of(blocked), (Some(1), None));
        assert_eq!(blocked(), 0);
    }

    #[test]
    fn a_flag_that_the_kernel_refuses_is_an_error() {
        let mut stack = ChildStack::new().unwrap();
        // SAFETY: as above. The kernel refuses a thread without shared signal handlers.
        let refused = unsafe { vfork(libc::CLONE_THREAD, &mut stack, &|| 0) };
        assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::EINVAL));
    }
}
