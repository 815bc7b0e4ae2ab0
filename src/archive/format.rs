//! Writes and reads the headers of an archive: ustar headers, and pax records for values that don't fit them.

use std::io::{Read, Write};

use tar::{EntryType, Header};

use super::entry::{Entry, kept_mode};
use super::path::normalized;
use super::stream::{Sink, Source};
use super::symlink_target;
use super::{ArchiveError, EntryKind};

/// The size of an archive's blocks, in bytes.
pub(super) const BLOCK: usize = 512;

/// The most bytes of pax records before one entry. A name, a target and the numbers fit.
const MAX_PAX: u64 = 16 << 10;

/// The longest name or target that fits a header, in bytes.
const NAME_FIELD: usize = 100;

/// The smallest number that doesn't fit a header's field of eleven octal digits.
const NUMBER_FIELD: u64 = 1 << 33;

/// The name of the block that holds pax records.
const PAX_NAME: &[u8] = b"PaxHeader";

/// The name of an archive's first entry, if that is a file.
const FILE_NAME: &[u8] = b"file";

/// Writes an entry's headers. For a file the caller then writes the bytes and [pads](pad) them.
pub(super) fn write(sink: &mut Sink<impl Write>, entry: &Entry) -> Result<(), ArchiveError> {
    let mut name = match (entry.path.is_empty(), entry.kind) {
        (true, EntryKind::Directory) => b".".to_vec(),
        (true, _) => FILE_NAME.to_vec(),
        (false, _) => entry.path.clone(),
    };
    if entry.kind == EntryKind::Directory {
        name.push(b'/');
    }
    let mut records = Vec::new();
    if name.len() > NAME_FIELD {
        record(&mut records, "path", &name);
    }
    if entry.target.len() > NAME_FIELD {
        record(&mut records, "linkpath", &entry.target);
    }
    let has_room = entry.size < NUMBER_FIELD;
    if !has_room {
        record(&mut records, "size", entry.size.to_string().as_bytes());
    }
    if !records.is_empty() {
        let size = records.len() as u64;
        sink.put(header(PAX_NAME, EntryType::XHeader, 0o600, size, 0, b"").as_bytes())?;
        sink.put(&records)?;
        pad(sink, size)?;
    }
    let kind = match entry.kind {
        EntryKind::File => EntryType::Regular,
        EntryKind::Directory => EntryType::Directory,
        EntryKind::Symlink => EntryType::Symlink,
    };
    let size = if has_room { entry.size } else { 0 };
    let mtime = entry.mtime.min(NUMBER_FIELD - 1);
    let header = header(&name, kind, entry.mode, size, mtime, &entry.target);
    sink.put(header.as_bytes())
}

/// Writes the end of the archive: two blocks of zeros.
pub(super) fn end(sink: &mut Sink<impl Write>) -> Result<(), ArchiveError> {
    sink.put(&[0; 2 * BLOCK])
}

/// Fills the last block of a file of `size` bytes with zeros.
pub(super) fn pad(sink: &mut Sink<impl Write>, size: u64) -> Result<(), ArchiveError> {
    sink.put(&[0; BLOCK][..padding(size)])
}

fn padding(size: u64) -> usize {
    (BLOCK - (size % BLOCK as u64) as usize) % BLOCK
}

fn header(name: &[u8], kind: EntryType, mode: u32, size: u64, mtime: u64, target: &[u8]) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    header.set_mtime(mtime);
    let fields = header.as_old_mut();
    fill(&mut fields.name, name);
    fill(&mut fields.linkname, target);
    header.set_cksum();
    header
}

fn fill(field: &mut [u8], bytes: &[u8]) {
    let length = bytes.len().min(field.len());
    field[..length].copy_from_slice(&bytes[..length]);
}

/// Appends one pax record: its length in decimal digits, a keyword and a value. The length counts the whole record,
/// including its own digits.
fn record(records: &mut Vec<u8>, keyword: &str, value: &[u8]) {
    let rest = " =\n".len() + keyword.len() + value.len();
    let mut length = rest;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend(format!("{length} {keyword}=").as_bytes());
    records.extend(value);
    records.push(b'\n');
}

/// Reads the headers of the next entry; `None` at the archive's end.
pub(super) fn read(source: &mut Source<impl Read>) -> Result<Option<Entry>, ArchiveError> {
    let mut header = Header::new_old();
    let mut pax = None;
    loop {
        source.exactly(header.as_mut_bytes())?;
        if header.as_bytes() == &[0; BLOCK] {
            if pax.is_some() {
                return Err(ArchiveError::damaged("pax records belong to no entry"));
            }
            source.exactly(header.as_mut_bytes())?;
            return match header.as_bytes() == &[0; BLOCK] {
                true => Ok(None),
                false => Err(ArchiveError::damaged("one block of its end is missing")),
            };
        }
        check_sum(&header)?;
        if header.entry_type() != EntryType::XHeader {
            return entry(&header, pax.unwrap_or_default()).map(Some);
        }
        if pax.is_some() {
            return Err(ArchiveError::damaged("pax records follow pax records"));
        }
        pax = Some(read_pax(source, &header)?);
    }
}

/// Skips the zeros that fill the last block of a file of `size` bytes. Anything but zeros is an error.
pub(super) fn skip_padding(source: &mut Source<impl Read>, size: u64) -> Result<(), ArchiveError> {
    let mut filling = [0; BLOCK];
    let filling = &mut filling[..padding(size)];
    source.exactly(filling)?;
    match filling.iter().all(|&byte| byte == 0) {
        true => Ok(()),
        false => Err(ArchiveError::damaged("a file's last block has more in it")),
    }
}

fn check_sum(header: &Header) -> Result<(), ArchiveError> {
    if header.as_ustar().is_none() {
        return Err(ArchiveError::damaged("a block is no ustar header"));
    }
    let bytes = header.as_bytes();
    // The checksum counts its own field as eight spaces.
    let spaces = 8 * u32::from(b' ');
    let counted = bytes[..148].iter().chain(&bytes[156..]);
    let sum = spaces + counted.map(|&byte| u32::from(byte)).sum::<u32>();
    match header.cksum() {
        Ok(said) if said == sum => Ok(()),
        _ => Err(ArchiveError::damaged("a header's checksum is wrong")),
    }
}

/// The values of pax records for the next entry.
#[derive(Default)]
struct Pax {
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    size: Option<u64>,
}

fn read_pax(source: &mut Source<impl Read>, header: &Header) -> Result<Pax, ArchiveError> {
    let size = number(header.entry_size())?;
    if size > MAX_PAX {
        return Err(ArchiveError::Limit {
            what: "bytes of pax records for one entry",
            limit: MAX_PAX,
            name: "the next entry".to_owned(),
        });
    }
    let mut records = vec![0; size as usize];
    source.exactly(&mut records)?;
    skip_padding(source, size)?;
    let mut pax = Pax::default();
    let mut rest = records.as_slice();
    while !rest.is_empty() {
        let (keyword, value, after) =
            next_record(rest).ok_or(ArchiveError::damaged("a pax record is malformed"))?;
        rest = after;
        let is_new = match keyword {
            b"path" => pax.path.replace(value.to_vec()).is_none(),
            b"linkpath" => pax.target.replace(value.to_vec()).is_none(),
            b"size" => pax.size.replace(decimal(value)?).is_none(),
            // Owners aren't kept, and of the times only the header's whole seconds are.
            b"mtime" | b"atime" | b"ctime" | b"uid" | b"gid" | b"uname" | b"gname" | b"comment" => {
                true
            }
            _ => {
                return Err(ArchiveError::kind(
                    keyword,
                    "a pax keyword that is not taken",
                ));
            }
        };
        if !is_new {
            return Err(ArchiveError::damaged("a pax keyword comes twice"));
        }
    }
    Ok(pax)
}

/// The first record's keyword and value, and the bytes after it. The value may contain any bytes, including line feeds.
fn next_record(records: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = records.iter().take(6).position(|&byte| byte == b' ')?;
    let length = usize::try_from(decimal(&records[..space]).ok()?).ok()?;
    let (record, after) = records.split_at_checked(length)?;
    let record = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|&byte| byte == b'=')?;
    Some((&record[..equals], &record[equals + 1..], after))
}

fn decimal(digits: &[u8]) -> Result<u64, ArchiveError> {
    let number = std::str::from_utf8(digits).ok();
    number
        .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_digit()))
        .and_then(|digits| digits.parse().ok())
        .ok_or(ArchiveError::damaged("a number of a pax record is none"))
}

fn number<T>(field: std::io::Result<T>) -> Result<T, ArchiveError> {
    field.map_err(|_| ArchiveError::damaged("a number of a header is none"))
}

fn entry(header: &Header, pax: Pax) -> Result<Entry, ArchiveError> {
    let name = match pax.path {
        Some(name) => name,
        None => header.path_bytes().into_owned(),
    };
    let kind = match header.entry_type() {
        EntryType::Regular => EntryKind::File,
        EntryType::Directory => EntryKind::Directory,
        EntryType::Symlink => EntryKind::Symlink,
        other => return Err(ArchiveError::kind(&name, name_of(other))),
    };
    if kind != EntryKind::Directory && name.ends_with(b"/") {
        let fault = "ends in a slash and is no directory";
        return Err(ArchiveError::name(&name, fault));
    }
    let path = normalized(&name)?.to_vec();
    let mode = number(header.mode())?;
    if mode & 0o7000 != 0 {
        let found = "set-user-id, set-group-id or sticky";
        return Err(ArchiveError::kind(&path, found));
    }
    let target = match (kind, pax.target) {
        (EntryKind::Symlink, Some(target)) => target,
        (EntryKind::Symlink, None) => {
            let target = header.link_name_bytes();
            target.map_or_else(Vec::new, |target| target.into_owned())
        }
        _ => Vec::new(),
    };
    if kind == EntryKind::Symlink {
        symlink_target::check_target(&path, &target)?;
    }
    let size = match pax.size {
        Some(size) => size,
        None => number(header.entry_size())?,
    };
    if kind != EntryKind::File && size != 0 {
        let reason = "a directory or symbolic link has bytes";
        return Err(ArchiveError::damaged(reason));
    }
    Ok(Entry {
        path,
        kind,
        mode: kept_mode(kind, mode),
        size,
        mtime: number(header.mtime())?.min(NUMBER_FIELD - 1),
        target,
    })
}

fn name_of(kind: EntryType) -> &'static str {
    match kind {
        EntryType::Link => "a hard link",
        EntryType::Char => "a character device",
        EntryType::Block => "a block device",
        EntryType::Fifo => "a fifo",
        EntryType::GNUSparse => "a sparse file in GNU's format",
        EntryType::GNULongName | EntryType::GNULongLink => "a long name in GNU's format",
        EntryType::XGlobalHeader => "a global pax header",
        _ => "of an unknown type",
    }
}
