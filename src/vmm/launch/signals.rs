//! Signals around the start of a child: blocked in the parent's thread meanwhile ([`SignalsBlocked`]), and set back in
//! the child ([`reset_signals`]).

use std::ptr;

/// Sets every signal to its default action and unblocks all signals. With `ignore_file_size`, SIGXFSZ is ignored, so
/// that a write beyond the limit on a file's length fails instead of killing the process.
pub(super) fn reset_signals(ignore_file_size: bool) {
    for signal in 1..=64 {
        let meaning = match signal {
            libc::SIGXFSZ if ignore_file_size => libc::SIG_IGN,
            _ => libc::SIG_DFL,
        };
        // The kernel's `struct sigaction` begins with the handler; the rest stays zero. The C library's function would
        // take a lock for SIGABRT, which a child that is killed would never release.
        let action = [meaning, 0, 0, 0];
        let (none, mask_size) = (ptr::null_mut::<usize>(), size_of::<u64>());
        // SAFETY: the kernel reads the struct and sets no handler. For SIGKILL and SIGSTOP it fails, as it should.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                action.as_ptr(),
                none,
                mask_size,
            )
        };
    }
    set_mask(|mask| {
        // SAFETY: the call writes the set that it is given.
        unsafe { libc::sigemptyset(mask) };
    });
}

/// Blocks the signals of the set that `fill` writes in this thread, and returns the set that was blocked before.
fn set_mask(fill: impl FnOnce(*mut libc::sigset_t)) -> libc::sigset_t {
    // SAFETY: the sets have numbers only. `fill` writes the one and the call below writes the other.
    let (mut mask, mut before): (libc::sigset_t, libc::sigset_t) = unsafe { std::mem::zeroed() };
    fill(&raw mut mask);
    // SAFETY: the call reads the one set and writes the other. It can't fail with this first argument.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const mask, &raw mut before) };
    before
}

/// Blocks all signals of this thread until it is dropped. Otherwise a signal handler of this process could run in the
/// child, where it would write to pipes that both processes have open.
pub(super) struct SignalsBlocked(libc::sigset_t);

impl SignalsBlocked {
    pub(super) fn new() -> Self {
        SignalsBlocked(set_mask(|mask| {
            // SAFETY: the call writes the set that it is given.
            unsafe { libc::sigfillset(mask) };
        }))
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        let before = self.0;
        // SAFETY: this copies a set onto one of the same type.
        set_mask(|mask| unsafe { *mask = before });
    }
}
