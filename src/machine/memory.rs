//! A guest's memory: where it comes from at a restore, and the proof that it did.
//!
//! | memory | the VMM | proof |
//! |---|---|---|
//! | [`Mapped`](GuestMemory::Mapped) | maps an inherited immutable file privately, copy on write | `/proc/<pid>/maps`: that file, private, each region at its place |
//! | [`Copied`](GuestMemory::Copied) | reads an inherited file whole before it answers | the file is immutable, or a read lease stood until the answer |
//! | [`ByPath`](GuestMemory::ByPath) | reads the snapshot's own file, by its path | none |
//!
//! The VMM opens what it inherited again, as `/proc/self/fd/<number>`, so it gets the very file that was verified.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use serde::Serialize;

use super::{Error, Machine, MemoryRegion, Snapshot};
use crate::offload::blocking;
use crate::overlay::{Immutable, LeaseTaken, Leased, Protection, VerityDigest};
use crate::vmm::{MappedFile, Mapping, beyond_streams};

/// Where the memory of a restored guest comes from.
#[derive(Clone, Debug)]
pub enum GuestMemory {
    /// An immutable file that the VMM inherits and maps privately. A restore reads nothing of it.
    Mapped(Arc<Immutable>),
    /// A file that the VMM inherits and reads whole at each restore.
    Copied(CopySource),
    /// The snapshot's own `memory-ranges`, by its path: for a machine that has just taken the snapshot, and for a VMM
    /// that another program runs, which can inherit nothing.
    ByPath,
}

/// A file that a VMM reads a guest's memory from.
#[derive(Clone, Debug)]
pub enum CopySource {
    /// It can't change.
    Immutable(Arc<Immutable>),
    /// It could, which a lease would show.
    Leased(Arc<Leased>),
}

impl GuestMemory {
    /// The length of the memory file in bytes, where it is known.
    pub(super) fn length(&self) -> Option<u64> {
        match self {
            GuestMemory::Mapped(file) => Some(file.length()),
            GuestMemory::Copied(file) => Some(file.length()),
            GuestMemory::ByPath => None,
        }
    }

    /// The file that a VMM has to inherit at its start, if there is one.
    pub fn inherited(&self) -> Option<BorrowedFd<'_>> {
        match self {
            GuestMemory::Mapped(file) => Some(file.as_fd()),
            GuestMemory::Copied(file) => Some(file.as_fd()),
            GuestMemory::ByPath => None,
        }
    }
}

impl CopySource {
    /// Its length in bytes.
    pub fn length(&self) -> u64 {
        match self {
            CopySource::Immutable(file) => file.length(),
            CopySource::Leased(file) => file.length(),
        }
    }

    /// The digest of its bytes.
    pub fn digest(&self) -> VerityDigest {
        match self {
            CopySource::Immutable(file) => file.digest(),
            CopySource::Leased(file) => file.digest(),
        }
    }

    /// How many bytes were hashed for that digest: all but the holes, or none under fs-verity.
    pub fn hashed(&self) -> u64 {
        match self {
            CopySource::Immutable(file) => file.hashed(),
            CopySource::Leased(file) => file.hashed(),
        }
    }
}

impl AsFd for CopySource {
    /// Open for reading only.
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            CopySource::Immutable(file) => file.as_fd(),
            CopySource::Leased(file) => file.as_fd(),
        }
    }
}

/// How a restored guest got its memory, as it was found after the restore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemoryReading {
    /// The VMM was to map this much of an immutable file.
    Mapped {
        /// What keeps the file from changing.
        protection: Protection,
        /// The guest's memory in bytes.
        bytes: u64,
        /// Whether it did.
        found: Result<(), NotMapped>,
    },
    /// The VMM has copied it from a file that was what it was until it had.
    Copied {
        /// What keeps the file from changing; `None`: a lease, which stood.
        protection: Option<Protection>,
    },
    /// It was read by a path, and nothing says what was there.
    ByPath,
}

/// How the mappings of a VMM differ from the memory that it was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum NotMapped {
    /// Its process maps the file in a way that changes, or shares, more than its own memory.
    Shared,
    /// A region isn't there, or not in one piece at its place in the file.
    Missing(MemoryRegion),
    /// More of the file is mapped than the regions have.
    More {
        /// How many bytes are mapped.
        bytes: u64,
    },
}

impl fmt::Display for NotMapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotMapped::Shared => f.write_str("the VMM shares the mapping of the memory file"),
            NotMapped::Missing(region) => write!(
                f,
                "the VMM does not map bytes {} to {} of the memory file in one piece",
                region.offset,
                region.offset + region.length
            ),
            NotMapped::More { bytes } => {
                write!(f, "the VMM maps {bytes} bytes of the memory file")
            }
        }
    }
}

/// The memory file as a machine's VMM has inherited it.
#[derive(Debug)]
pub(super) struct InheritedMemory {
    /// The VMM's name for it.
    pub(super) path: String,
    /// How the kernel names it in a list of mappings.
    mapped: Option<MappedFile>,
}

impl InheritedMemory {
    /// What a VMM is to inherit of `memory`, and how it will know it.
    pub(super) fn of(memory: &GuestMemory) -> Result<Option<(OwnedFd, InheritedMemory)>, Error> {
        let failed = |action| Error::file(action, "the golden snapshot's memory");
        let Some(file) = memory.inherited() else {
            return Ok(None);
        };
        let file = file
            .try_clone_to_owned()
            .and_then(beyond_streams)
            .map_err(failed("duplicate the descriptor of"))?;
        let mapped = match memory {
            GuestMemory::Mapped(immutable) => {
                Some(MappedFile::of(immutable).map_err(failed("map"))?)
            }
            _ => None,
        };
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        Ok(Some((file, InheritedMemory { path, mapped })))
    }
}

impl GuestMemory {
    /// Makes sure, before a restore, that the memory is what was verified; the lease that says so, where one does.
    pub(crate) async fn ensure(&self) -> Result<Option<LeaseTaken>, Error> {
        match self {
            GuestMemory::Copied(CopySource::Leased(file)) => {
                let file = Arc::clone(file);
                let ensured = blocking(move || file.ensure()).await;
                ensured.map(Some).map_err(Error::Memory)
            }
            _ => Ok(None),
        }
    }
}

impl Machine {
    /// Finds out how the VM that was just restored has got its memory. `lease` is the one that stood before the restore.
    pub(super) async fn read_memory(
        &self,
        snapshot: &Snapshot,
        lease: Option<LeaseTaken>,
    ) -> Result<MemoryReading, Error> {
        Ok(match snapshot.memory() {
            GuestMemory::ByPath => MemoryReading::ByPath,
            GuestMemory::Copied(CopySource::Immutable(file)) => MemoryReading::Copied {
                protection: Some(file.protection()),
            },
            GuestMemory::Copied(CopySource::Leased(file)) => {
                match lease.is_some_and(|lease| file.is_held_since(lease)) {
                    true => MemoryReading::Copied { protection: None },
                    false => return Err(Error::MemoryNotHeld),
                }
            }
            GuestMemory::Mapped(file) => self.read_mappings(snapshot, file).await?,
        })
    }

    /// Looks again at a VM that has waited. What was copied stays as proved as it was when it was copied.
    pub(super) async fn read_memory_again(
        &self,
        snapshot: &Snapshot,
        before: MemoryReading,
    ) -> Result<MemoryReading, Error> {
        match snapshot.memory() {
            GuestMemory::Mapped(file) => self.read_mappings(snapshot, file).await,
            GuestMemory::Copied(_) | GuestMemory::ByPath => Ok(before),
        }
    }

    async fn read_mappings(
        &self,
        snapshot: &Snapshot,
        file: &Immutable,
    ) -> Result<MemoryReading, Error> {
        let inherited = self.memory.as_ref();
        let inherited = inherited.and_then(|memory| memory.mapped.clone());
        let (Some(process), Some(mapped)) = (self.vmm.process().cloned(), inherited) else {
            return Err(Error::NotInherited);
        };
        let mappings = blocking(move || process.mappings(&mapped)).await;
        let mappings = mappings.map_err(Error::OpenFiles)?;
        Ok(MemoryReading::Mapped {
            protection: file.protection(),
            bytes: file.length(),
            found: compare(mappings, snapshot.regions()),
        })
    }
}

/// Compares the mappings of the memory file with the regions: each in one piece at its place, private, and no more.
fn compare(mut mappings: Vec<Mapping>, regions: &[MemoryRegion]) -> Result<(), NotMapped> {
    if mappings.iter().any(|mapping| !mapping.private) {
        return Err(NotMapped::Shared);
    }
    let bytes = mappings.iter().map(|mapping| mapping.end - mapping.start);
    let bytes: u64 = bytes.sum();
    // The kernel splits a mapping where a part is treated otherwise, and joins neighbours.
    mappings.sort_unstable_by_key(|mapping| mapping.start);
    let mut pieces: Vec<Mapping> = Vec::with_capacity(mappings.len());
    for mapping in mappings {
        match pieces.last_mut() {
            Some(last)
                if last.end == mapping.start
                    && last.offset + (last.end - last.start) == mapping.offset =>
            {
                last.end = mapping.end;
            }
            _ => pieces.push(mapping),
        }
    }
    for region in regions {
        let holds = |piece: &Mapping| {
            piece.offset <= region.offset
                && region.offset + region.length <= piece.offset + (piece.end - piece.start)
        };
        if !pieces.iter().any(holds) {
            return Err(NotMapped::Missing(*region));
        }
    }
    match bytes == regions.iter().map(|region| region.length).sum::<u64>() {
        true => Ok(()),
        false => Err(NotMapped::More { bytes }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REGIONS: [MemoryRegion; 2] = [
        MemoryRegion {
            gpa: 0,
            offset: 0,
            length: 0x3000,
        },
        MemoryRegion {
            gpa: 1 << 32,
            offset: 0x3000,
            length: 0x2000,
        },
    ];

    fn mapping(start: u64, length: u64, offset: u64) -> Mapping {
        Mapping {
            start,
            end: start + length,
            offset,
            private: true,
        }
    }

    #[test]
    fn every_region_is_mapped_in_one_piece_at_its_place_and_privately() {
        let check = |mappings: &[Mapping], expected: Result<(), NotMapped>| {
            assert_eq!(
                compare(mappings.to_vec(), &REGIONS),
                expected,
                "{mappings:?}"
            );
        };
        let low = mapping(0x9_0000, 0x3000, 0);
        let high = mapping(0x7_0000, 0x2000, 0x3000);
        check(&[low, high], Ok(()));
        check(&[high, low], Ok(()));
        // One region split in two, and both joined to one.
        check(
            &[
                mapping(0x9_0000, 0x1000, 0),
                high,
                mapping(0x9_1000, 0x2000, 0x1000),
            ],
            Ok(()),
        );
        check(&[mapping(0x9_0000, 0x5000, 0)], Ok(()));

        check(&[], Err(NotMapped::Missing(REGIONS[0])));
        check(&[low], Err(NotMapped::Missing(REGIONS[1])));
        // The upper region shows the lower one's bytes.
        let wrong = mapping(0x7_0000, 0x2000, 0);
        check(&[low, wrong], Err(NotMapped::Missing(REGIONS[1])));
        let apart = [
            mapping(0x9_0000, 0x1000, 0),
            mapping(0xa_0000, 0x2000, 0x1000),
            high,
        ];
        check(&apart, Err(NotMapped::Missing(REGIONS[0])));
        let shared = Mapping {
            private: false,
            ..low
        };
        check(&[shared, high], Err(NotMapped::Shared));
        let more = mapping(0xb_0000, 0x1000, 0);
        check(&[low, high, more], Err(NotMapped::More { bytes: 0x6000 }));
    }
}
