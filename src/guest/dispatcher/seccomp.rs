//! The seccomp filters of tools, which refuse system calls that no tool needs.
//!
//! The filters list the refused calls and not the allowed ones, since a tool can be any program of the image. They
//! protect the dispatcher from its tools, and with it the answers that the host gets. The host itself is protected by
//! the VMM.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

/// Calls that are refused with EPERM for all arguments.
const REFUSED: &[i64] = &[
    // Mounts and roots.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_quotactl,
    // Namespaces.
    libc::SYS_unshare,
    libc::SYS_setns,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    // The kernel itself.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_syslog,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_acct,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    // Parts of the kernel that are large and rarely needed.
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_fanotify_init,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
];

/// Socket families that are refused. With vsock a tool could connect to the host as if it were the dispatcher. No tool
/// needs kernel cryptography or raw packets.
const REFUSED_FAMILIES: &[i32] = &[libc::AF_VSOCK, libc::AF_ALG, libc::AF_PACKET];

/// Refused flags of `clone`: those that make a namespace, and `CLONE_PARENT`, with which the new process would be a
/// sibling of its creator and so not a descendant of the tool.
const REFUSED_CLONE_FLAGS: &[i32] = &[
    libc::CLONE_PARENT,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
];

/// The filters, which must be applied in this order.
///
/// `clone3` has its flags in memory, where a filter can't read them. It is refused with ENOSYS, upon which the C
/// libraries fall back to `clone`. A filter of `seccompiler` has only one error number, so ENOSYS needs a second
/// filter.
pub(super) fn filters() -> Result<Vec<BpfProgram>, BackendError> {
    let mut refused: BTreeMap<i64, Vec<SeccompRule>> =
        REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    let families = REFUSED_FAMILIES
        .iter()
        .map(|family| rule(SeccompCmpOp::Eq, *family));
    refused.insert(libc::SYS_socket, families.collect::<Result<_, _>>()?);
    let flags = REFUSED_CLONE_FLAGS
        .iter()
        .map(|flag| rule(SeccompCmpOp::MaskedEq(*flag as u64), *flag));
    refused.insert(libc::SYS_clone, flags.collect::<Result<_, _>>()?);
    // A tool must not give up adopting its orphaned descendants.
    let adoption = rule(SeccompCmpOp::Eq, libc::PR_SET_CHILD_SUBREAPER)?;
    refused.insert(libc::SYS_prctl, vec![adoption]);
    let unknown = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let mut refused = program(refused, libc::EPERM)?;
    #[cfg(target_arch = "x86_64")]
    refused.splice(0..0, x32::refused());
    Ok(vec![refused, program(unknown, libc::ENOSYS)?])
}

#[cfg(target_arch = "x86_64")]
mod x32 {
    //! Refuses the x32 ABI, in which every system call has a second number that the rules of the filters don't list.

    use seccompiler::sock_filter;

    /// The bit that is set in the numbers of x32 and in no other (`__X32_SYSCALL_BIT`).
    pub(super) const BIT: u32 = 0x4000_0000;

    /// Instructions that refuse x32 calls with EPERM. For any other call the filter goes on after them.
    pub(super) fn refused() -> [sock_filter; 3] {
        let instruction = |code: u32, jf, k| sock_filter {
            code: code as u16,
            jt: 0,
            jf,
            k,
        };
        [
            // Loads the call's number, the first field of `seccomp_data`.
            instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
            instruction(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 1, BIT),
            instruction(
                libc::BPF_RET | libc::BPF_K,
                0,
                libc::SECCOMP_RET_ERRNO | libc::EPERM as u32,
            ),
        ]
    }
}

/// A condition on the low 32 bits of the first argument. The kernel ignores the other bits of a socket family, of
/// clone's flags and of prctl's option.
fn rule(operator: SeccompCmpOp, value: i32) -> Result<SeccompRule, BackendError> {
    let condition = SeccompCondition::new(0, SeccompCmpArgLen::Dword, operator, value as u64)?;
    SeccompRule::new(vec![condition])
}

fn program(calls: BTreeMap<i64, Vec<SeccompRule>>, errno: i32) -> Result<BpfProgram, BackendError> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(
        calls,
        SeccompAction::Allow,
        SeccompAction::Errno(errno as u32),
        architecture,
    )?
    .try_into()
}

#[cfg(test)]
mod tests {
    use rustix::mount::MountPropagationFlags;

    use super::*;

    #[test]
    fn filters_compile_within_the_kernel_limit() {
        let filters = filters().unwrap();
        assert_eq!(filters.len(), 2);
        for filter in filters {
            assert!((1..=4096).contains(&filter.len()), "{}", filter.len());
        }
    }

    /// Calls `call` in a thread of its own, to which the filters apply, and returns its result.
    fn filtered<T: Send + 'static>(call: fn() -> T) -> T {
        let thread = std::thread::spawn(move || {
            for filter in filters().unwrap() {
                seccompiler::apply_filter(&filter).unwrap();
            }
            call()
        });
        thread.join().unwrap()
    }

    #[test]
    fn calls_that_no_tool_needs_are_refused_even_to_root() {
        use rustix::io::Errno;
        use rustix::net::{AddressFamily, SocketType, socket};

        let vsock = || socket(AddressFamily::VSOCK, SocketType::STREAM, None).map(drop);
        assert_eq!(filtered(vsock), Err(Errno::PERM));
        let unix = || socket(AddressFamily::UNIX, SocketType::STREAM, None).map(drop);
        assert_eq!(filtered(unix), Ok(()));
        // Without the filter root gets ENOENT.
        let mount = || rustix::mount::mount_change(c"/nonexistent", MountPropagationFlags::PRIVATE);
        assert_eq!(filtered(mount), Err(Errno::PERM));
    }

    #[test]
    fn a_process_of_a_tool_can_not_leave_its_descendants() {
        use rustix::io::Errno;

        let adopt = || rustix::process::set_child_subreaper(None);
        assert_eq!(filtered(adopt), Err(Errno::PERM));
        let sister = || {
            let flags = libc::CLONE_PARENT | libc::SIGCHLD;
            // SAFETY: the filter refuses the call. A child that it made in spite of that would only exit.
            let made = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
            if made == 0 {
                // SAFETY: `_exit` runs no code of this process.
                unsafe { libc::_exit(0) };
            }
            (made, std::io::Error::last_os_error().raw_os_error())
        };
        assert_eq!(filtered(sister), (-1, Some(libc::EPERM)));
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn a_call_of_the_x32_abi_is_refused() {
        let call = |number: i64| {
            // SAFETY: neither call takes a pointer or changes anything.
            let returned = unsafe { libc::syscall(number) };
            match returned {
                -1 => std::io::Error::last_os_error().raw_os_error().unwrap(),
                _ => 0,
            }
        };
        let x32 = i64::from(x32::BIT);
        // Without the filter the call fails with ENOSYS, or works.
        assert_ne!(call(x32 + libc::SYS_getpid), libc::EPERM);
        let check = |number| {
            let thread = std::thread::spawn(move || {
                for filter in filters().unwrap() {
                    seccompiler::apply_filter(&filter).unwrap();
                }
                call(number)
            });
            thread.join().unwrap()
        };
        assert_eq!(check(libc::SYS_getpid), 0);
        for number in [libc::SYS_getpid, libc::SYS_ptrace, 0, 512, 547] {
            assert_eq!(check(x32 + number), libc::EPERM, "{number}");
        }
    }

    #[test]
    fn threads_and_programs_still_start() {
        let thread = || std::thread::spawn(|| 5).join().unwrap();
        assert_eq!(filtered(thread), 5);
        let program = || {
            std::process::Command::new("/bin/sh")
                .args(["-c", "true"])
                .status()
        };
        assert!(filtered(program).unwrap().success());
    }
}
