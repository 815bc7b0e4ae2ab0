//! [`System`]: the readings that a dispatcher takes of the system that it runs on, and the settings that it changes
//! there.

use std::fs::{self, File};
use std::io;
use std::num::NonZeroU32;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, Timespec};

use super::{descriptor_count, processes};
use crate::guest::protocol::{GuestProcess, MAX_PROCESSES, MemUsage};
use crate::mutex::lock;

/// The most characters of a process's name that are reported.
const MAX_NAME: usize = 64;

/// The system that a dispatcher runs on. In a guest this is [`LinuxSystem`]; a stand-in for a guest implements it with
/// invented readings.
pub trait System: Send + Sync {
    /// The number of open descriptors of all processes together, without sockets. Sockets don't count, since a restore
    /// ends vsock connections and the host opens new ones.
    ///
    /// # Errors
    ///
    /// If the descriptors can't be counted. The host gets `GUEST_QUERY_FAILED`.
    fn open_fd_count(&self) -> io::Result<u64>;

    /// The memory in use, in bytes.
    ///
    /// # Errors
    ///
    /// If the memory usage can't be read. The host gets `GUEST_QUERY_FAILED`.
    fn mem_usage(&self) -> io::Result<MemUsage>;

    /// The running processes sorted by pid, at most [`MAX_PROCESSES`].
    ///
    /// # Errors
    ///
    /// If the processes can't be listed. The host gets `GUEST_QUERY_FAILED`.
    fn process_list(&self) -> io::Result<Vec<GuestProcess>>;

    /// Adds `seed` to the kernel's random pool and reseeds the random number generator from the pool.
    ///
    /// # Errors
    ///
    /// The kernel's error; only root may do this. The error is logged, and the host gets `reseeded: false`.
    fn reseed(&self, seed: &[u8; 32]) -> io::Result<()>;

    /// Sets the clock to `now`, the time since 1970-01-01 UTC.
    ///
    /// # Errors
    ///
    /// The kernel's error; only root may do this. The error is logged, and the host gets `clock_set: false`.
    fn set_clock(&self, now: Duration) -> io::Result<()>;

    /// The clock's time since 1970-01-01 UTC.
    fn clock(&self) -> Duration {
        // A time before 1970 counts as 1970. Such a clock is wrong by decades anyway.
        SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
    }
}

/// The Linux system that this process runs on.
#[derive(Debug, Default)]
pub struct LinuxSystem {
    /// Held while descriptors are counted. Otherwise two counts at the same time would count each other's descriptors.
    counting: Mutex<()>,
}

impl LinuxSystem {
    /// The Linux system that this process runs on.
    pub fn new() -> LinuxSystem {
        LinuxSystem::default()
    }
}

impl System for LinuxSystem {
    /// Counts the entries of every `/proc/<pid>/fd`, except those that counting itself opens.
    fn open_fd_count(&self) -> io::Result<u64> {
        let _counting = lock(&self.counting);
        descriptor_count::count_all()
    }

    /// From `/proc/meminfo`: `MemTotal`, and `MemTotal` minus `MemAvailable`.
    fn mem_usage(&self) -> io::Result<MemUsage> {
        parse_meminfo(&fs::read_to_string("/proc/meminfo")?)
            .ok_or_else(|| io::Error::other("/proc/meminfo has no MemTotal and MemAvailable in kB"))
    }

    /// Every process except kernel threads, which are many and the same after every reset.
    fn process_list(&self) -> io::Result<Vec<GuestProcess>> {
        let processes = processes::all()?.into_iter();
        Ok(processes
            .filter(|process| !process.is_kernel_thread)
            .filter_map(|process| {
                Some(GuestProcess {
                    name: process.name.chars().take(MAX_NAME).collect(),
                    pid: NonZeroU32::new(process.pid)?,
                })
            })
            .take(MAX_PROCESSES)
            .collect())
    }

    fn reseed(&self, seed: &[u8; 32]) -> io::Result<()> {
        random::reseed(seed)
    }

    fn set_clock(&self, now: Duration) -> io::Result<()> {
        let now = Timespec::try_from(now).map_err(io::Error::other)?;
        Ok(rustix::time::clock_settime(ClockId::Realtime, now)?)
    }
}

fn parse_meminfo(meminfo: &str) -> Option<MemUsage> {
    let bytes = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line
            .strip_prefix(':')?
            .strip_suffix("kB")?
            .trim()
            .parse()
            .ok()?;
        kib.checked_mul(1024)
    };
    let bytes_total = bytes("MemTotal")?;
    Some(MemUsage {
        bytes_used: bytes_total.saturating_sub(bytes("MemAvailable")?),
        bytes_total,
    })
}

mod random {
    //! The two ioctls of `/dev/urandom` that reseed the kernel's random number generator.

    use super::*;
    use rustix::ioctl::{NoArg, Opcode, Setter, opcode};

    /// `struct rand_pool_info` of `linux/random.h`, with its buffer.
    #[repr(C)]
    struct Entropy {
        /// The entropy of the buffer, in bits.
        entropy_count: i32,
        /// The buffer's size, in bytes.
        buf_size: i32,
        buf: [u8; 32],
    }

    /// `RNDADDENTROPY`, whose number encodes the size of the two `int`s before the buffer.
    const ADD_ENTROPY: Opcode = opcode::write::<[i32; 2]>(b'R', 0x03);
    /// `RNDRESEEDCRNG`.
    const RESEED: Opcode = opcode::none(b'R', 0x07);

    pub(super) fn reseed(seed: &[u8; 32]) -> io::Result<()> {
        let pool = File::options().write(true).open("/dev/urandom")?;
        let entropy = Entropy {
            entropy_count: 8 * 32,
            buf_size: 32,
            buf: *seed,
        };
        // SAFETY: RNDADDENTROPY reads a `struct rand_pool_info`, and after it as many bytes as `buf_size` says.
        // `Entropy` contains both.
        unsafe { rustix::ioctl::ioctl(&pool, Setter::<ADD_ENTROPY, Entropy>::new(entropy)) }?;
        // SAFETY: RNDRESEEDCRNG takes no argument.
        unsafe { rustix::ioctl::ioctl(&pool, NoArg::<RESEED>::new()) }?;
        Ok(())
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn the_numbers_are_those_of_the_header() {
            assert_eq!(ADD_ENTROPY, 0x4008_5203);
            assert_eq!(RESEED, 0x5207);
            assert_eq!(size_of::<Entropy>(), 40);
        }

        #[test]
        fn the_kernel_takes_a_seed_from_root_only() {
            let expected = match rustix::process::geteuid().is_root() {
                true => None,
                false => Some(io::ErrorKind::PermissionDenied),
            };
            assert_eq!(reseed(&[7; 32]).err().map(|error| error.kind()), expected);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_is_read() {
        #[track_caller]
        fn check(meminfo: &str, expected: Option<(u64, u64)>) {
            let expected = expected.map(|(bytes_used, bytes_total)| MemUsage {
                bytes_used,
                bytes_total,
            });
            assert_eq!(parse_meminfo(meminfo), expected, "{meminfo}");
        }
        let good = "MemTotal:  100 kB\nMemFree: 10 kB\nMemAvailable:   40 kB\n";
        check(good, Some((60 * 1024, 100 * 1024)));
        check("MemAvailable: 9 kB\nMemTotal: 5 kB", Some((0, 5 * 1024)));
        check("MemTotal: 5 kB", None);
        check("MemTotal: 5\nMemAvailable: 9", None);
        check("MemTotal: x kB\nMemAvailable: 9 kB", None);
        check(
            "MemTotal: 99999999999999999999 kB\nMemAvailable: 9 kB",
            None,
        );
        let usage = LinuxSystem::new().mem_usage().unwrap();
        assert!(usage.bytes_used <= usage.bytes_total && usage.bytes_total > 0);
    }

    #[test]
    fn this_process_is_listed_and_kernel_threads_are_not() {
        let list = LinuxSystem::new().process_list().unwrap();
        assert!(list.len() <= MAX_PROCESSES);
        assert!(list.iter().all(|process| process.name != "kthreadd"));
    }
}
