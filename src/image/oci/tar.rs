//! [`Reader`]: reads the entries of a tar as container tools write it, with ustar headers, pax records and GNU long
//! names.
//!
//! A header can't cause a large allocation: records and long names are bounded, and a file's bytes are streamed.

use std::io::{self, ErrorKind, Read};

use tar::{EntryType, Header};

use super::{
    error::{LayerError, shown},
    pax::{self, Extended},
};

/// The size of a tar's blocks, in bytes.
const BLOCK: usize = 512;
/// The most bytes of pax records, or of a long name, before one entry. The records include extended attributes.
const EXTENSION_LIMIT: u64 = 256 * 1024;
/// The longest name and the longest target, in bytes.
const PATH_LIMIT: usize = 4095;

/// The source of a tar's bytes.
pub(super) trait Input: Read {
    /// Skips `bytes` bytes. Skipping beyond the end may succeed; the next read then returns 0 bytes.
    fn skip(&mut self, bytes: u64) -> io::Result<()>;
}

/// The kind of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    Symlink,
    HardLink,
    Fifo,
    /// A character or block device.
    Device,
}

/// One entry without its bytes.
#[derive(Debug)]
pub(super) struct Entry {
    /// The name as it is written. Only its length was checked.
    pub(super) name: Vec<u8>,
    pub(super) kind: Kind,
    /// The target of a link.
    pub(super) target: Vec<u8>,
    /// Permissions, set-id bits and the sticky bit.
    pub(super) mode: u16,
    pub(super) user: u32,
    pub(super) group: u32,
    /// Seconds since 1970, and nanoseconds.
    pub(super) modified: (i64, u32),
    pub(super) size: u64,
    /// Extended attributes in the order of the records: names and values.
    pub(super) attributes: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Reads entry after entry.
pub(super) struct Reader<I> {
    input: I,
    position: u64,
    /// The unread bytes of the last entry, and the padding of their last block.
    left: u64,
    padding: u64,
    /// How many headers were read, including those of extensions.
    headers: u64,
}

impl<I: Input> Reader<I> {
    pub(super) fn new(input: I) -> Reader<I> {
        Reader {
            input,
            position: 0,
            left: 0,
            padding: 0,
            headers: 0,
        }
    }

    /// The offset of the last entry's bytes, if none of them was read yet.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// How many headers were read so far.
    pub(super) fn headers(&self) -> u64 {
        self.headers
    }

    /// Skips the unread bytes of the last entry, and reads the next entry; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, LayerError> {
        self.pass(self.left + self.padding)?;
        (self.left, self.padding) = (0, 0);
        let mut extended = Extended::default();
        loop {
            let mut header = Header::new_old();
            self.exactly(header.as_mut_bytes())?;
            if header.as_bytes() == &[0; BLOCK] {
                if extended.is_any {
                    return Err(LayerError::damaged("a pax header belongs to no entry"));
                }
                return self.end().map(|()| None);
            }
            self.headers += 1;
            check_sum(&header)?;
            match header.entry_type() {
                EntryType::XHeader => extended.records(&self.extension(&header)?)?,
                EntryType::XGlobalHeader => pax::check_global(&self.extension(&header)?)?,
                EntryType::GNULongName => {
                    extended.is_any = true;
                    extended.name = Some(until_nul(self.extension(&header)?));
                }
                EntryType::GNULongLink => {
                    extended.is_any = true;
                    extended.target = Some(until_nul(self.extension(&header)?));
                }
                _ => {
                    let entry = entry(&header, extended)?;
                    self.left = entry.size;
                    self.padding = padding(entry.size);
                    return Ok(Some(entry));
                }
            }
        }
    }

    /// Reads some of the entry's bytes; 0 at their end.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, LayerError> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        let most = most.min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let read = self.some(&mut buffer[..most])?;
        if read == 0 {
            return Err(LayerError::CutShort);
        }
        self.left -= read as u64;
        Ok(read)
    }

    /// Reads the content of a header that extends the next one.
    fn extension(&mut self, header: &Header) -> Result<Vec<u8>, LayerError> {
        let size = number(header.entry_size())?;
        if size > EXTENSION_LIMIT {
            return Err(LayerError::Limit {
                what: "the bytes of one entry's pax records or long name",
                limit: EXTENSION_LIMIT,
            });
        }
        let mut bytes = vec![0; size as usize];
        self.exactly(&mut bytes)?;
        self.pass(padding(size))?;
        Ok(bytes)
    }

    /// Reads the rest after the first end block, which must be zeros.
    fn end(&mut self) -> Result<(), LayerError> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match self.some(&mut buffer)? {
                0 => return Ok(()),
                read if buffer[..read].iter().all(|&byte| byte == 0) => {}
                _ => return Err(LayerError::damaged("something follows its end")),
            }
        }
    }

    fn exactly(&mut self, buffer: &mut [u8]) -> Result<(), LayerError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.some(&mut buffer[filled..])? {
                0 => return Err(LayerError::CutShort),
                read => filled += read,
            }
        }
        Ok(())
    }

    fn pass(&mut self, bytes: u64) -> Result<(), LayerError> {
        if bytes > 0 {
            self.input.skip(bytes).map_err(unreadable)?;
            self.position = self.position.saturating_add(bytes);
        }
        Ok(())
    }

    fn some(&mut self, buffer: &mut [u8]) -> Result<usize, LayerError> {
        loop {
            match self.input.read(buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(unreadable(error)),
                Ok(read) => {
                    self.position += read as u64;
                    return Ok(read);
                }
            }
        }
    }
}

fn unreadable(error: io::Error) -> LayerError {
    match error.kind() {
        ErrorKind::UnexpectedEof => LayerError::CutShort,
        _ => LayerError::Decompress(error),
    }
}

fn padding(size: u64) -> u64 {
    (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|&byte| byte == 0) {
        bytes.truncate(end);
    }
    bytes
}

fn check_sum(header: &Header) -> Result<(), LayerError> {
    let bytes = header.as_bytes();
    // The checksum counts its own field as spaces.
    let spaces = 8 * u32::from(b' ');
    let counted = bytes[..148].iter().chain(&bytes[156..]);
    let sum = spaces + counted.map(|&byte| u32::from(byte)).sum::<u32>();
    match header.cksum() {
        Ok(said) if said == sum => Ok(()),
        _ => Err(LayerError::damaged("a header's checksum is wrong")),
    }
}

fn number<T>(field: io::Result<T>) -> Result<T, LayerError> {
    field.map_err(|_| LayerError::damaged("a number of a header is malformed"))
}

fn entry(header: &Header, extended: Extended) -> Result<Entry, LayerError> {
    let name = match extended.name {
        Some(name) => name,
        None => header.path_bytes().into_owned(),
    };
    let kind = kind(header, &name)?;
    let target = match (kind, extended.target) {
        (Kind::Symlink | Kind::HardLink, Some(target)) => target,
        (Kind::Symlink | Kind::HardLink, None) => header
            .link_name_bytes()
            .map_or_else(Vec::new, |target| target.into_owned()),
        _ => Vec::new(),
    };
    if name.len() > PATH_LIMIT || target.len() > PATH_LIMIT {
        return Err(LayerError::name(
            &name,
            "has a name or a target of more than 4095 bytes",
        ));
    }
    let said = match extended.size {
        Some(size) => size,
        None => number(header.entry_size())?,
    };
    let owner = |extended: Option<u64>, field: io::Result<u64>| {
        let owner = extended.map_or_else(|| number(field), Ok)?;
        u32::try_from(owner)
            .ok()
            .filter(|&owner| owner != u32::MAX)
            .ok_or_else(|| LayerError::name(&name, "has an owner that is no user's number"))
    };
    let user = owner(extended.user, header.uid())?;
    let group = owner(extended.group, header.gid())?;
    let modified = match extended.modified {
        Some(modified) => modified,
        // Times before 1970 are negative numbers in the binary form.
        None => (number(header.mtime())?.cast_signed(), 0),
    };
    Ok(Entry {
        kind,
        target,
        mode: (number(header.mode())? & 0o7777) as u16,
        user,
        group,
        modified,
        // For other kinds, the header's size is not a number of bytes that follow.
        size: if kind == Kind::File { said } else { 0 },
        attributes: extended.attributes,
        name,
    })
}

fn kind(header: &Header, name: &[u8]) -> Result<Kind, LayerError> {
    let refused = |kind| {
        Err(LayerError::Kind {
            name: shown(name),
            kind,
        })
    };
    match header.entry_type() {
        // The oldest format marks a directory only by the slash at the end of its name.
        EntryType::Regular if name.ends_with(b"/") => Ok(Kind::Directory),
        EntryType::Regular | EntryType::Continuous => Ok(Kind::File),
        EntryType::Directory => Ok(Kind::Directory),
        EntryType::Symlink => Ok(Kind::Symlink),
        EntryType::Link => Ok(Kind::HardLink),
        EntryType::Fifo => Ok(Kind::Fifo),
        EntryType::Char | EntryType::Block => Ok(Kind::Device),
        EntryType::GNUSparse => refused("a sparse file in GNU's format"),
        _ => refused("of an unknown type"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Input for &[u8] {
        fn skip(&mut self, bytes: u64) -> io::Result<()> {
            *self = &self[self.len().min(bytes as usize)..];
            Ok(())
        }
    }

    fn read_all(mut bytes: &[u8]) -> Result<Vec<Entry>, LayerError> {
        let mut reader = Reader::new(&mut bytes as &mut dyn Input);
        let mut entries = Vec::new();
        while let Some(entry) = reader.next()? {
            entries.push(entry);
        }
        Ok(entries)
    }

    impl Input for &mut dyn Input {
        fn skip(&mut self, bytes: u64) -> io::Result<()> {
            (**self).skip(bytes)
        }
    }

    fn header(kind: EntryType, name: &str, size: u64) -> Vec<u8> {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_path(name).expect("short");
        header.set_size(size);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        header.as_bytes().to_vec()
    }

    #[test]
    fn a_tar_that_is_cut_short_is_an_error_wherever_it_is_cut() {
        let mut bytes = header(EntryType::Regular, "f", 600);
        bytes.extend([1; 600]);
        bytes.extend([0; 424 + 1024]);
        assert_eq!(read_all(&bytes).expect("whole").len(), 1);
        for cut in [0, 1, 511, 512, 513, 1111, 1112, 1535, 1536, 1537] {
            let read = read_all(&bytes[..cut]);
            assert!(matches!(read, Err(LayerError::CutShort)), "{cut}");
        }
    }

    #[test]
    fn a_header_with_a_large_size_causes_no_large_allocation() {
        for kind in [EntryType::XHeader, EntryType::GNULongName] {
            let read = read_all(&header(kind, "x", 1 << 32));
            assert!(matches!(read, Err(LayerError::Limit { .. })), "{kind:?}");
        }
        let read = read_all(&header(EntryType::Regular, "x", 1 << 32));
        assert!(matches!(read, Err(LayerError::CutShort)));
    }

    #[test]
    fn what_is_no_header_is_an_error() {
        let mut bytes = header(EntryType::Regular, "f", 0);
        bytes[0] ^= 1;
        assert!(matches!(read_all(&bytes), Err(LayerError::Damaged { .. })));
        let mut bytes = vec![0; 1024];
        bytes.push(1);
        assert!(matches!(read_all(&bytes), Err(LayerError::Damaged { .. })));
        let bytes = header(EntryType::GNUSparse, "f", 0);
        assert!(matches!(read_all(&bytes), Err(LayerError::Kind { .. })));
    }
}
