//! [`Elf`]: parses the parts of an ELF file that packing needs, which are the machine, the interpreter and the notes.

use std::path::Path;

use super::{
    Error,
    input::{u16_at, u32_at, u64_at},
};

pub(super) const MAGIC: &[u8] = b"\x7fELF";

const CLASS_64_LITTLE_ENDIAN: &[u8] = &[2, 1];
const MACHINE_X86_64: u16 = 62;
const PT_INTERP: u32 = 3;
const PT_NOTE: u32 = 4;
const PROGRAM_HEADER_LEN: usize = 56;

/// A 64-bit x86 ELF file whose segments all lie inside the file.
pub(super) struct Elf<'a> {
    segments: Vec<Segment<'a>>,
}

struct Segment<'a> {
    kind: u32,
    data: &'a [u8],
}

impl<'a> Elf<'a> {
    /// Parses `bytes`, which came from `path`.
    pub(super) fn parse(bytes: &'a [u8], path: &Path) -> Result<Elf<'a>, Error> {
        let problem = |problem| Error::NotElf {
            path: path.into(),
            problem,
        };
        if !bytes.starts_with(MAGIC) {
            return Err(problem("it does not begin with the ELF magic"));
        }
        if bytes.get(4..6) != Some(CLASS_64_LITTLE_ENDIAN) {
            return Err(problem("it is not a 64-bit little-endian file"));
        }
        let cut = || problem("it is cut off");
        let machine = u16_at(bytes, 18).ok_or_else(cut)?;
        if machine != MACHINE_X86_64 {
            return Err(Error::WrongMachine {
                path: path.into(),
                machine,
            });
        }
        let table = u64_at(bytes, 32).ok_or_else(cut)?;
        let entry_len = u16_at(bytes, 54).ok_or_else(cut)?;
        let count = u16_at(bytes, 56).ok_or_else(cut)?;
        if count > 0 && usize::from(entry_len) != PROGRAM_HEADER_LEN {
            return Err(problem("its program headers have an unknown size"));
        }
        let table = usize::try_from(table).map_err(|_| cut())?;
        let segments = (0..usize::from(count))
            .map(|index| {
                let header = table.checked_add(index * PROGRAM_HEADER_LEN)?;
                let kind = u32_at(bytes, header)?;
                let offset = usize::try_from(u64_at(bytes, header.checked_add(8)?)?).ok()?;
                let len = usize::try_from(u64_at(bytes, header.checked_add(32)?)?).ok()?;
                let data = bytes.get(offset..offset.checked_add(len)?)?;
                Some(Segment { kind, data })
            })
            .collect::<Option<_>>()
            .ok_or_else(cut)?;
        Ok(Elf { segments })
    }

    /// The dynamic loader that the program names; `None` for a static program.
    pub(super) fn interpreter(&self) -> Option<String> {
        let segment = self.segments.iter().find(|s| s.kind == PT_INTERP)?;
        let path = segment.data.split(|&b| b == 0).next().unwrap_or_default();
        Some(String::from_utf8_lossy(&path[..path.len().min(256)]).into_owned())
    }

    /// Whether a note of this owner (with its final NUL) and type exists.
    pub(super) fn has_note(&self, owner: &[u8], kind: u32) -> bool {
        self.segments
            .iter()
            .filter(|s| s.kind == PT_NOTE)
            .any(|s| notes(s.data).any(|note| note == (owner, kind)))
    }
}

/// The owner and type of each note of a segment, up to the first damaged note.
fn notes(mut data: &[u8]) -> impl Iterator<Item = (&[u8], u32)> {
    std::iter::from_fn(move || {
        let owner_len = u32_at(data, 0)? as usize;
        let value_len = u32_at(data, 4)? as usize;
        let kind = u32_at(data, 8)?;
        let owner = data.get(12..12usize.checked_add(owner_len)?)?;
        let next =
            12 + owner_len.checked_next_multiple_of(4)? + value_len.checked_next_multiple_of(4)?;
        data = data.get(next..).unwrap_or_default();
        Some((owner, kind))
    })
}
