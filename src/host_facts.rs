//! The host as a report describes it: [`HostFacts`] has its kernel, processor, memory and load, and [`RunsOn`] tells
//! whether its guests run on hardware virtualisation or on an emulator.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::thread;

use serde::{Deserialize, Serialize};

use crate::vmm::KVM_DEVICE;

/// The most that is read of a file of `/proc`. These files have a few KiB, except `cpuinfo` on a host with many
/// processors; only its first processor is used.
const MAX_BYTES: u64 = 64 << 10;

/// The platform that guests ran on, with the evidence for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RunsOn {
    /// The platform.
    pub platform: Platform,
    /// The evidence for the platform, or why it is unknown.
    pub reason: String,
}

/// The platform that a VMM's guests run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Platform {
    /// A processor's own virtualisation.
    Hardware,
    /// An emulated processor. Every step takes many times longer than on hardware.
    Emulated,
    /// No virtual machine at all: a VMM's recorded answers are replayed, and a program of this host stands in for the
    /// guest.
    Replay,
    /// The platform can't be determined.
    Unknown,
}

impl Platform {
    /// The platform's name in a report.
    pub fn name(self) -> &'static str {
        match self {
            Platform::Hardware => "hardware",
            Platform::Emulated => "emulated",
            Platform::Replay => "replay",
            Platform::Unknown => "unknown",
        }
    }
}

/// The host that a report comes from. A field that can't be read is `None`, which is `null` in JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HostFacts {
    /// The kernel's name, release and architecture, separated by spaces (`uname -srm`).
    pub kernel: Option<String>,
    /// The processor's model, as `/proc/cpuinfo` names it.
    pub cpu: Option<String>,
    /// How many processors this process may use.
    pub cpus: Option<u64>,
    /// The host's memory, in bytes.
    pub memory_bytes: Option<u64>,
    /// The load averages over 1, 5 and 15 minutes before the work that the report is about.
    pub load_at_start: Option<[f64; 3]>,
    /// The load averages over 1, 5 and 15 minutes after that work.
    pub load_at_end: Option<[f64; 3]>,
}

impl HostFacts {
    /// Reads the facts of this host. The present load averages become `load_at_start`; `load_at_end` is `None`.
    pub(crate) fn of_this_host() -> HostFacts {
        let name = rustix::system::uname();
        let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
        let parts = [
            text(name.sysname()),
            text(name.release()),
            text(name.machine()),
        ];
        let cpuinfo = read("cpuinfo").unwrap_or_default();
        let memory = read("meminfo").ok();
        HostFacts {
            kernel: Some(parts.join(" ")),
            cpu: field(&cpuinfo, "model name").map(str::to_owned),
            cpus: thread::available_parallelism()
                .ok()
                .map(|count| count.get() as u64),
            memory_bytes: memory.and_then(|text| memory_bytes(&text)),
            load_at_start: load(),
            load_at_end: None,
        }
    }
}

/// Returns the present load averages over 1, 5 and 15 minutes; `None` if they can't be read.
pub fn load() -> Option<[f64; 3]> {
    load_averages(&read("loadavg").ok()?)
}

/// Determines the platform that guests of this host run on. Opens `/dev/kvm` and reads `/proc/cpuinfo`.
pub(crate) fn runs_on() -> RunsOn {
    let kvm = File::options().read(true).write(true).open(KVM_DEVICE);
    classify(kvm.map(drop), read("cpuinfo"), cfg!(target_arch = "x86_64"))
}

/// Only an x86 processor without the flag `hypervisor` counts as hardware.
fn classify(kvm: io::Result<()>, cpuinfo: io::Result<String>, is_x86: bool) -> RunsOn {
    let is = |platform, reason: String| RunsOn { platform, reason };
    if let Err(error) = kvm {
        return is(
            Platform::Unknown,
            format!("{KVM_DEVICE} cannot be opened: {error}"),
        );
    }
    let cpuinfo = match cpuinfo {
        Ok(cpuinfo) => cpuinfo,
        Err(error) => {
            let reason =
                format!("the kernel's description of the processor cannot be read: {error}");
            return is(Platform::Unknown, reason);
        }
    };
    let model = field(&cpuinfo, "model name").unwrap_or_default();
    if model.split(' ').any(|word| word == "TCG") {
        let reason = format!("the processor calls itself {model:?}, which is QEMU's emulator");
        return is(Platform::Emulated, reason);
    }
    let flags = field(&cpuinfo, "flags").filter(|_| is_x86);
    let Some(flags) = flags else {
        let reason = "the kernel's description of the processor does not tell whether this host is a virtual machine";
        return is(Platform::Unknown, reason.to_owned());
    };
    match flags
        .split_ascii_whitespace()
        .any(|flag| flag == "hypervisor")
    {
        true => is(
            Platform::Unknown,
            "this host is a virtual machine itself (the processor's flag `hypervisor`): its KVM may be nested on \
             hardware or emulated"
                .to_owned(),
        ),
        false => is(
            Platform::Hardware,
            format!(
                "{KVM_DEVICE} can be opened, and the processor does not have the flag `hypervisor`, which a virtual \
                 machine would have"
            ),
        ),
    }
}

fn read(name: &str) -> io::Result<String> {
    let mut bytes = Vec::new();
    let file = File::open(Path::new("/proc").join(name))?;
    file.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The value of a line `name : value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = lines.find(|(found, _)| found.trim() == name)?;
    Some(value.trim())
}

fn memory_bytes(meminfo: &str) -> Option<u64> {
    let kib = field(meminfo, "MemTotal")?.strip_suffix("kB")?;
    kib.trim().parse::<u64>().ok()?.checked_mul(1024)
}

fn load_averages(loadavg: &str) -> Option<[f64; 3]> {
    let mut averages = loadavg.split_ascii_whitespace().map(str::parse::<f64>);
    let mut next = || averages.next()?.ok().filter(|load| load.is_finite());
    Some([next()?, next()?, next()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_processor_without_a_hypervisor_is_hardware() {
        #[track_caller]
        fn check(cpuinfo: &str, is_x86: bool, expected: Platform) {
            let found = classify(Ok(()), Ok(cpuinfo.to_owned()), is_x86);
            assert_eq!(found.platform, expected, "{}", found.reason);
            assert_ne!(found.reason, "");
        }
        let x86 = |model: &str, flags: &str| format!("model name\t: {model}\nflags\t\t: {flags}\n");
        check(&x86("AMD EPYC 7763", "fpu svm"), true, Platform::Hardware);
        // A longer name that begins with `hypervisor` is another flag.
        check(
            &x86("AMD EPYC 7763", "fpu hypervisor_x"),
            true,
            Platform::Hardware,
        );
        check(
            &x86("AMD EPYC 7763", "fpu svm hypervisor"),
            true,
            Platform::Unknown,
        );
        let tcg = x86("QEMU TCG CPU version 2.5+", "fpu svm");
        check(&tcg, true, Platform::Emulated);
        check("model name : something\n", true, Platform::Unknown);
        check("", true, Platform::Unknown);
        check("Features : fp asimd\n", false, Platform::Unknown);
        // Flags of another architecture prove nothing.
        check(&x86("one", "fpu"), false, Platform::Unknown);
    }

    #[test]
    fn a_host_without_kvm_is_unknown_and_the_reason_is_given() {
        let denied = || Err(io::ErrorKind::PermissionDenied.into());
        let found = classify(denied(), Ok("flags : fpu\n".to_owned()), true);
        assert_eq!(found.platform, Platform::Unknown);
        assert!(found.reason.contains("permission denied"), "{found:?}");
        let unread = Err(io::ErrorKind::NotFound.into());
        let found = classify(Ok(()), unread, true);
        assert_eq!(found.platform, Platform::Unknown);
    }

    #[test]
    fn a_fact_that_cannot_be_parsed_is_none() {
        assert_eq!(
            load_averages("0.50 1.25 2.00 1/100 4\n"),
            Some([0.5, 1.25, 2.0])
        );
        for bad in ["", "0.5 1", "a b c", "inf 1 1", "NaN 1 1"] {
            assert_eq!(load_averages(bad), None, "{bad}");
        }
        assert_eq!(memory_bytes("MemTotal:  2048 kB\n"), Some(2 << 20));
        for bad in [
            "",
            "MemTotal: 5\n",
            "MemTotal: x kB",
            "MemTotal: 18446744073709551615 kB",
        ] {
            assert_eq!(memory_bytes(bad), None, "{bad}");
        }
        let host = HostFacts::of_this_host();
        assert!(host.kernel.unwrap().starts_with("Linux "));
        assert!(host.cpus.unwrap() > 0);
    }
}
