//! [`CpuFacts`]: the processor on which a golden snapshot was made. The guest detected its features at boot, and uses
//! them after each restore, so the restoring host must have the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Error, Part};

/// Where the kernel describes the processors.
const CPUINFO: &str = "/proc/cpuinfo";

/// The most that is read of the file. The description of one processor has a few KiB, and only the first one is used.
const MAX_BYTES: u64 = 64 << 10;

/// The host's processor, as the kernel describes it: the first one that `/proc/cpuinfo` lists.
///
/// On aarch64, vendor, family, model and stepping are the kernel's `CPU implementer`, `CPU architecture`, `CPU part`
/// and `CPU revision`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct CpuFacts {
    /// The processor's vendor, such as `GenuineIntel`.
    pub vendor: String,
    /// The processor's family.
    pub family: String,
    /// The processor's model within the family.
    pub model: String,
    /// The processor's stepping. It is recorded but not compared: two steppings of one model run the same guest.
    pub stepping: String,
    /// The processor's features.
    pub flags: CpuFlags,
}

/// A processor's features by the kernel's names for them. In JSON they are one string of the sorted names, separated by
/// spaces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct CpuFlags(BTreeSet<String>);

impl From<String> for CpuFlags {
    fn from(text: String) -> Self {
        CpuFlags(text.split_ascii_whitespace().map(str::to_owned).collect())
    }
}

impl From<CpuFlags> for String {
    fn from(flags: CpuFlags) -> String {
        join(flags.0.iter())
    }
}

fn join<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names.map(String::as_str).collect::<Vec<_>>().join(" ")
}

impl CpuFacts {
    /// Reads the facts of this host's processor.
    ///
    /// # Errors
    ///
    /// [`Error::Host`] if `/proc/cpuinfo` can't be read or lacks one of the fields.
    pub(crate) fn of_this_host() -> Result<CpuFacts, Error> {
        let host = |source| Error::Host {
            what: "the processor's model and features",
            path: CPUINFO.into(),
            source,
        };
        let mut bytes = Vec::new();
        File::open(Path::new(CPUINFO))
            .and_then(|file| file.take(MAX_BYTES).read_to_end(&mut bytes))
            .map_err(host)?;
        let text = String::from_utf8_lossy(&bytes);
        CpuFacts::parse(&text).ok_or_else(|| host(io::ErrorKind::InvalidData.into()))
    }

    fn parse(text: &str) -> Option<CpuFacts> {
        let mut fields = BTreeMap::new();
        for line in text.lines().take_while(|line| !line.trim().is_empty()) {
            let (name, value) = line.split_once(':')?;
            fields.insert(name.trim(), value.trim());
        }
        let field = |x86, arm| Some((*fields.get(x86).or_else(|| fields.get(arm))?).to_owned());
        Some(CpuFacts {
            vendor: field("vendor_id", "CPU implementer")?,
            family: field("cpu family", "CPU architecture")?,
            model: field("model", "CPU part")?,
            stepping: field("stepping", "CPU revision")?,
            flags: field("flags", "Features")?.into(),
        })
    }

    /// Compares the processor on which a guest is about to be restored, `found`, with the one on which it was minted,
    /// `self`.
    ///
    /// # Errors
    ///
    /// [`Error::Mismatch`] with the first field that differs: `cpu.vendor`, `cpu.family`, `cpu.model` or `cpu.flags`.
    pub(crate) fn check(&self, found: &CpuFacts) -> Result<(), Error> {
        let plain = [
            ("cpu.vendor", &self.vendor, &found.vendor),
            ("cpu.family", &self.family, &found.family),
            ("cpu.model", &self.model, &found.model),
        ];
        for (field, expected, found) in plain {
            if expected != found {
                return Err(Error::mismatch(Part::Host, field, expected, found));
            }
        }
        let (expected, found) = (&self.flags.0, &found.flags.0);
        if expected != found {
            // A processor has some hundred flags, so the error names only those that differ.
            let only = |these: &BTreeSet<String>, those| {
                format!("the same but with [{}]", join(these.difference(those)))
            };
            let (expected, found) = (only(expected, found), only(found, expected));
            return Err(Error::mismatch(Part::Host, "cpu.flags", expected, found));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const X86: &str = "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 167\n\
        model name\t: A: B\nstepping\t: 1\nflags\t\t: fpu  vme de\npower management:\n\n\
        processor\t: 1\nvendor_id\t: Another\n";

    #[test]
    fn the_first_processor_is_read() {
        let cpu = CpuFacts::parse(X86).unwrap();
        let parts = [&cpu.vendor, &cpu.family, &cpu.model, &cpu.stepping];
        assert_eq!(parts, ["GenuineIntel", "6", "167", "1"]);
        assert_eq!(String::from(cpu.flags), "de fpu vme");

        let arm = "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\n\
            CPU architecture: 8\nCPU variant\t: 0x3\nCPU part\t: 0xd0c\nCPU revision\t: 1\n";
        let cpu = CpuFacts::parse(arm).unwrap();
        let parts = [&cpu.vendor, &cpu.family, &cpu.model, &cpu.stepping];
        assert_eq!(parts, ["0x41", "8", "0xd0c", "1"]);
        for cut_off in ["", "\n", "vendor_id", "vendor_id\t: GenuineIntel\n"] {
            assert_eq!(CpuFacts::parse(cut_off), None, "{cut_off:?}");
        }
    }

    #[test]
    fn a_difference_is_named() {
        let minted = CpuFacts::parse(X86).unwrap();
        let check = |from: &str, to: &str, expected: Option<(&str, &str)>| {
            let found = CpuFacts::parse(&X86.replace(from, to)).unwrap();
            match (minted.check(&found), expected) {
                (Ok(()), None) => {}
                (Err(Error::Mismatch { field, found, .. }), Some(expected)) => {
                    assert_eq!((&*field, &*found), expected);
                }
                (checked, _) => panic!("{from} to {to}: {checked:?}"),
            }
        };
        check("1\nflags", "2\nflags", None);
        check("fpu  vme", "vme fpu", None);
        let amd = Some(("cpu.vendor", "AuthenticAMD"));
        check("GenuineIntel", "AuthenticAMD", amd);
        check("family\t: 6", "family\t: 7", Some(("cpu.family", "7")));
        check("167", "85", Some(("cpu.model", "85")));
        let flags = Some(("cpu.flags", "the same but with [avx]"));
        check("vme", "avx", flags);
    }

    #[test]
    fn the_processor_of_this_host_can_be_read() {
        let cpu = CpuFacts::of_this_host().unwrap();
        cpu.check(&cpu).unwrap();
        assert!(!cpu.flags.0.is_empty());
    }
}
