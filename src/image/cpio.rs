//! [`Archive`]: writes newc archives (`cpio -H newc`), the format of an initramfs.
//!
//! Format: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst. Owner, times and inode numbers are
//! fixed, so an archive depends only on names, modes and contents.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

/// An entry of an archive.
enum Entry {
    Directory,
    File { executable: bool, data: Vec<u8> },
    CharacterDevice { major: u32, minor: u32 },
}

/// An archive to write. Names are relative, without a leading `/`.
#[derive(Default)]
pub(super) struct Archive {
    // Sorted by name, which also puts every directory before its entries.
    entries: BTreeMap<String, Entry>,
}

impl Archive {
    pub(super) fn directory(&mut self, name: &str) {
        self.add_parents(name);
        self.entries.insert(name.to_owned(), Entry::Directory);
    }

    pub(super) fn file(&mut self, name: &str, data: Vec<u8>) {
        self.add_parents(name);
        self.entries.insert(
            name.to_owned(),
            Entry::File {
                executable: false,
                data,
            },
        );
    }

    pub(super) fn program(&mut self, name: &str, data: Vec<u8>) {
        self.add_parents(name);
        self.entries.insert(
            name.to_owned(),
            Entry::File {
                executable: true,
                data,
            },
        );
    }

    pub(super) fn character_device(&mut self, name: &str, major: u32, minor: u32) {
        self.add_parents(name);
        self.entries
            .insert(name.to_owned(), Entry::CharacterDevice { major, minor });
    }

    fn add_parents(&mut self, name: &str) {
        for (at, _) in name.match_indices('/') {
            self.entries
                .entry(name[..at].to_owned())
                .or_insert(Entry::Directory);
        }
    }

    /// Writes the archive with its trailer.
    pub(super) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        // Each entry has its own inode number, because entries with the same number and more than one link are the same
        // file in this format.
        for (number, (name, entry)) in (1..).zip(&self.entries) {
            write_entry(out, number, name, entry)?;
        }
        write_member(out, Header::default(), "TRAILER!!!", &[])
    }
}

fn write_entry(out: &mut impl Write, number: u32, name: &str, entry: &Entry) -> io::Result<()> {
    let header = |mode, links| Header {
        number,
        mode,
        links,
        ..Header::default()
    };
    match entry {
        Entry::Directory => write_member(out, header(0o040_755, 2), name, &[]),
        Entry::File {
            executable: false,
            data,
        } => write_member(out, header(0o100_644, 1), name, data),
        Entry::File {
            executable: true,
            data,
        } => write_member(out, header(0o100_755, 1), name, data),
        &Entry::CharacterDevice { major, minor } => {
            let device = (major, minor);
            write_member(
                out,
                Header {
                    device,
                    ..header(0o020_600, 1)
                },
                name,
                &[],
            )
        }
    }
}

#[derive(Default)]
struct Header {
    number: u32,
    mode: u32,
    links: u32,
    device: (u32, u32),
}

fn write_member(out: &mut impl Write, header: Header, name: &str, data: &[u8]) -> io::Result<()> {
    const HEADER_LEN: usize = 110;
    let length = |len: usize| {
        u32::try_from(len).map_err(|_| {
            io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("{name} has 4 GiB or more"),
            )
        })
    };
    let name_len = name.len() + 1; // With its NUL.
    let fields = [
        header.number,
        header.mode,
        0, // User.
        0, // Group.
        header.links.max(1),
        0, // Time of change.
        length(data.len())?,
        0, // The device it came from, major and minor.
        0,
        header.device.0,
        header.device.1,
        length(name_len)?,
        0, // No checksum in this flavour.
    ];
    out.write_all(b"070701")?;
    for field in fields {
        write!(out, "{field:08X}")?;
    }
    out.write_all(name.as_bytes())?;
    out.write_all(b"\0")?;
    pad(out, HEADER_LEN + name_len)?;
    out.write_all(data)?;
    pad(out, data.len())
}

/// Writes the padding after the header with the name, and after the data: each ends at a multiple of four bytes.
fn pad(out: &mut impl Write, len: usize) -> io::Result<()> {
    out.write_all(&[0; 3][..len.next_multiple_of(4) - len])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads an archive back: name, mode, inode number, data.
    fn parse(mut bytes: &[u8]) -> Vec<(String, u32, u32, Vec<u8>)> {
        let mut members = Vec::new();
        loop {
            assert_eq!(&bytes[..6], b"070701");
            let field = |index: usize| {
                let text =
                    std::str::from_utf8(&bytes[6 + 8 * index..14 + 8 * index]).expect("ASCII");
                u32::from_str_radix(text, 16).expect("hexadecimal")
            };
            let (number, mode, size, name_len) =
                (field(0), field(1), field(6) as usize, field(11) as usize);
            let name = String::from_utf8(bytes[110..110 + name_len - 1].to_vec()).expect("UTF-8");
            let data = (110 + name_len).next_multiple_of(4);
            let contents = bytes[data..data + size].to_vec();
            bytes = &bytes[(data + size).next_multiple_of(4)..];
            if name == "TRAILER!!!" {
                assert!(bytes.is_empty());
                return members;
            }
            members.push((name, mode, number, contents));
        }
    }

    fn written(archive: &Archive) -> Vec<u8> {
        let mut out = Vec::new();
        archive.write(&mut out).expect("in memory");
        out
    }

    #[test]
    fn what_is_written_reads_back_sorted_with_parents() {
        let mut archive = Archive::default();
        archive.program("init", b"code".to_vec());
        archive.file("a/b/file", b"12345".to_vec());
        archive.character_device("dev/console", 5, 1);
        archive.directory("a-b");
        let member =
            |name: &str, mode, number, data: &[u8]| (name.to_owned(), mode, number, data.to_vec());
        assert_eq!(
            parse(&written(&archive)),
            [
                member("a", 0o040_755, 1, b""),
                member("a-b", 0o040_755, 2, b""),
                member("a/b", 0o040_755, 3, b""),
                member("a/b/file", 0o100_644, 4, b"12345"),
                member("dev", 0o040_755, 5, b""),
                member("dev/console", 0o020_600, 6, b""),
                member("init", 0o100_755, 7, b"code"),
            ]
        );
    }

    #[test]
    fn the_empty_archive_is_its_trailer() {
        assert_eq!(parse(&written(&Archive::default())), []);
    }

    #[test]
    fn order_of_addition_does_not_matter() {
        let names = ["b", "a", "c/d"];
        let mut one = Archive::default();
        names
            .iter()
            .for_each(|name| one.file(name, name.as_bytes().to_vec()));
        let mut other = Archive::default();
        names
            .iter()
            .rev()
            .for_each(|name| other.file(name, name.as_bytes().to_vec()));
        assert_eq!(written(&one), written(&other));
    }
}
