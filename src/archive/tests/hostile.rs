//! Tests of extraction: streams that an honest sender never makes.

use std::io::{self, Read};

use tar::{EntryType, Header};

use super::*;

/// The headers and bytes of one entry.
struct Forged {
    name: Vec<u8>,
    kind: u8,
    mode: u32,
    size: u64,
    target: Vec<u8>,
    bytes: Vec<u8>,
}

impl Forged {
    fn new(name: &[u8], kind: u8, bytes: &[u8]) -> Forged {
        Forged {
            name: name.to_owned(),
            kind,
            mode: 0o700,
            size: bytes.len() as u64,
            target: Vec::new(),
            bytes: bytes.to_owned(),
        }
    }

    fn mode(self, mode: u32) -> Forged {
        Forged { mode, ..self }
    }

    fn claiming(self, size: u64) -> Forged {
        Forged { size, ..self }
    }

    fn to(self, target: &[u8]) -> Forged {
        let target = target.to_owned();
        Forged { target, ..self }
    }

    fn header(&self) -> Header {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::new(self.kind));
        header.set_mode(self.mode);
        header.set_size(self.size);
        header.set_mtime(0);
        let fields = header.as_old_mut();
        fields.name[..self.name.len()].copy_from_slice(&self.name);
        fields.linkname[..self.target.len()].copy_from_slice(&self.target);
        header.set_cksum();
        header
    }

    fn blocks(&self) -> Vec<u8> {
        let mut blocks = self.header().as_bytes().to_vec();
        blocks.extend(&self.bytes);
        blocks.resize(blocks.len().next_multiple_of(512), 0);
        blocks
    }
}

fn file(name: &[u8]) -> Forged {
    Forged::new(name, b'0', b"bytes")
}

fn directory(name: &[u8]) -> Forged {
    Forged::new(name, b'5', b"")
}

fn link(name: &[u8], target: &[u8]) -> Forged {
    Forged::new(name, b'2', b"").to(target)
}

fn pax(records: &[u8]) -> Forged {
    Forged::new(b"PaxHeader", b'x', records)
}

fn record(keyword: &str, value: &[u8]) -> Vec<u8> {
    let rest = keyword.len() + value.len() + 3;
    let length = (1..5).find_map(|digits| {
        let length = rest + digits;
        (length.to_string().len() == digits).then_some(length)
    });
    [
        format!("{} {keyword}=", length.unwrap()).as_bytes(),
        value,
        b"\n",
    ]
    .concat()
}

/// The entries of a directory, and the archive's end.
fn archive<const N: usize>(entries: [Forged; N]) -> Vec<u8> {
    let mut stream = directory(b"./").blocks();
    for entry in entries {
        stream.extend(entry.blocks());
    }
    stream.extend([0; 1024]);
    stream
}

#[track_caller]
fn refused(stream: &[u8], code: &str, why: &str) {
    refused_within(stream, Account::default(), code, why);
}

#[track_caller]
fn refused_within(stream: impl Read, mut account: Account, code: &str, why: &str) {
    let place = Place::new();
    let extracted = extract(stream, place.target("out"), None, &mut account);
    let error = extracted.map(|_| ()).unwrap_err();
    let text = error.to_string();
    assert_eq!(error.code().text(), code, "{text}");
    assert!(text.contains(why), "{text}");
    assert!(
        text.len() < 600 && !text.contains(char::is_control),
        "{text}"
    );
    assert!(place.names().is_empty(), "{:?} is left", place.names());
}

#[test]
fn an_archive_of_valid_forged_entries_is_extracted() {
    let stream = archive([
        directory(b"./a/"),
        file(b"a/b"),
        pax(&record("path", b"a/c\n")),
        file(b"x"),
        link(b"d", b"a/b"),
        Forged::new(b"old", 0, b""),
    ]);
    let place = Place::new();
    let totals = place.extract(&stream, &mut limits(6, 10)).unwrap();
    assert_eq!((totals.entries, totals.bytes), (6, 10));
    let names: Vec<_> = tree(&place.path("out")).into_keys().collect();
    assert_eq!(names, [&b""[..], b"a", b"a/b", b"a/c\n", b"d", b"old"]);
}

#[test]
fn bad_names_are_refused() {
    let check = |entries: [Forged; 2], why| refused(&archive(entries), "SANDBOX_FILE_NAME", why);
    let alone = |name: &[u8], why| check([directory(b"a"), file(name)], why);
    alone(b"", "empty");
    alone(b"/etc/passwd", "absolute");
    alone(b"..", "\"..\"");
    alone(b"../out2", "\"..\"");
    alone(b"a/../../b", "\"..\"");
    alone(b"a/.", "\".\"");
    alone(b"a//b", "empty part");
    alone(b"a/b/", "slash");
    alone(b".", "twice");
    alone(b"./", "slash");
    alone(b"b/c", "right after the directory");
    check([file(b"a"), file(b"a")], "twice");
    check([file(b"a"), file(b"./a")], "twice");
    check([file(b"a"), directory(b"a/")], "twice");
    check([file(b"a"), link(b"a", b"b")], "twice");
    check([directory(b"a/"), directory(b"./a/")], "twice");
    check([directory(b"a/"), directory(b"./")], "twice");
    check([file(b"a"), file(b"a/b")], "right after the directory");
    check(
        [link(b"a", b"."), file(b"a/b")],
        "right after the directory",
    );
    check([link(b"a", b"/tmp"), file(b"b")], "absolute target");
    check([link(b"a", b"../b"), file(b"b")], "lead out");
    check([link(b"a", b""), file(b"b")], "to nothing");

    let named = |name: &[u8], why| {
        let stream = archive([pax(&record("path", name)), file(b"x")]);
        refused(&stream, "SANDBOX_FILE_NAME", why);
    };
    named(b"a\0b", "NUL");
    named(b"", "empty");
    named(b"../x", "\"..\"");
    named(&[b'n'; 256], "255");
    named(&[&b"d/".repeat(2048)[..], b"e"].concat(), "4095");
    named(&[b'\n'; 256], "255");
    let stream = archive([pax(&record("linkpath", b"a\0b")), link(b"x", b"x")]);
    refused(&stream, "SANDBOX_FILE_NAME", "NUL");
}

#[test]
fn a_directory_takes_no_further_entries_after_another_one() {
    let stream = archive([directory(b"a"), directory(b"b"), file(b"a/c")]);
    refused(&stream, "SANDBOX_FILE_NAME", "right after the directory");
    let stream = archive([directory(b"ab"), file(b"a/c")]);
    refused(&stream, "SANDBOX_FILE_NAME", "right after the directory");
}

#[test]
fn bad_first_entries_are_refused() {
    let check = |root: Forged, code, why| {
        let stream = [root.blocks(), vec![0; 1024]].concat();
        refused(&stream, code, why);
    };
    check(directory(b"a/"), "SANDBOX_FILE_NAME", "right after");
    check(file(b"a/b"), "SANDBOX_FILE_NAME", "right after");
    check(link(b"a", b"b"), "SANDBOX_FILE_KIND", "symbolic link");
    check(link(b".", b"b"), "SANDBOX_FILE_KIND", "symbolic link");
    let two_files = [file(b"a").blocks(), file(b"b").blocks(), vec![0; 1024]].concat();
    refused(&two_files, "SANDBOX_FILE_NAME", "right after");
    refused(&[0; 1024], "SANDBOX_FILE_DIGEST", "empty");
}

#[test]
fn other_kinds_are_refused() {
    let check = |entry: Forged, why| refused(&archive([entry]), "SANDBOX_FILE_KIND", why);
    let of_type = |kind, why| check(Forged::new(b"a", kind, b""), why);
    check(Forged::new(b"a", b'1', b"").to(b"b"), "a hard link");
    of_type(b'3', "a character device");
    of_type(b'4', "a block device");
    of_type(b'6', "a fifo");
    of_type(b'7', "of an unknown type");
    of_type(b'g', "a global pax header");
    of_type(b'L', "a long name");
    of_type(b'K', "a long name");
    of_type(b'S', "a sparse file");
    of_type(b'Z', "of an unknown type");
    of_type(0xff, "of an unknown type");
    for mode in [0o4755, 0o2755, 0o1777] {
        check(file(b"a").mode(mode), "set-user-id");
        check(directory(b"a").mode(mode), "set-user-id");
    }
    let sparse = pax(&record("GNU.sparse.realsize", b"1"));
    refused(
        &archive([sparse, file(b"a")]),
        "SANDBOX_FILE_KIND",
        "not taken",
    );
}

#[test]
fn a_size_above_the_limit_is_refused_before_a_file_is_created() {
    let check = |entry: Forged, account: Account, why| {
        let mut stream = directory(b"./").blocks();
        stream.extend(entry.blocks());
        refused_within(&stream[..], account, "SANDBOX_FILE_LIMIT", why);
    };
    check(
        file(b"a").claiming(1 << 63),
        Account::default(),
        "1073741824 bytes of files",
    );
    check(
        file(b"a").claiming(u64::MAX),
        Account::default(),
        "bytes of files",
    );
    check(file(b"a").claiming(6), limits(9, 5), "5 bytes of files");
    check(file(b"a"), limits(1, 9), "1 entries");
    let longest = format!("{}", u64::MAX);
    let huge = pax(&record("size", longest.as_bytes())).blocks();
    let stream = [directory(b"./").blocks(), huge, file(b"a").blocks()].concat();
    refused(&stream, "SANDBOX_FILE_LIMIT", "bytes of files");
    check(
        pax(b"").claiming(1 << 40),
        Account::default(),
        "16384 bytes of pax records",
    );
    check(
        pax(b"").claiming((16 << 10) + 1),
        Account::default(),
        "pax records",
    );
}

#[test]
fn a_second_file_counts_with_the_first() {
    let stream = archive([file(b"a"), file(b"b")]);
    refused_within(
        &stream[..],
        limits(3, 9),
        "SANDBOX_FILE_LIMIT",
        "9 bytes of files",
    );
    refused_within(
        &stream[..],
        limits(2, 10),
        "SANDBOX_FILE_LIMIT",
        "2 entries",
    );
    Place::new().extract(&stream, &mut limits(3, 10)).unwrap();
}

/// An endless stream: a directory, and then files with long names.
struct Endless {
    made: u64,
    blocks: io::Cursor<Vec<u8>>,
    long: bool,
}

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.blocks.read(buffer)?;
            if read > 0 {
                return Ok(read);
            }
            let mut name = format!("{:07}", self.made).into_bytes();
            let mut blocks = Vec::new();
            if self.long {
                let target = [b'n'; 3000];
                blocks = pax(&record("linkpath", &target)).blocks();
                name = format!("{}", self.made).into_bytes();
            }
            blocks.extend(link(&name, b"x").blocks());
            self.blocks = io::Cursor::new(blocks);
            self.made += 1;
        }
    }
}

#[test]
fn a_million_entries_end_at_the_limit() {
    let endless = |long| Endless {
        made: 0,
        blocks: io::Cursor::new(directory(b"./").blocks()),
        long,
    };
    refused_within(
        endless(false),
        limits(5000, 0),
        "SANDBOX_FILE_LIMIT",
        "5000 entries",
    );
    let account = limits(1 << 40, 0).with_manifest();
    refused_within(
        endless(true),
        account,
        "SANDBOX_FILE_LIMIT",
        "bytes of names",
    );
}

#[test]
fn a_stream_that_ends_too_early_is_refused() {
    let whole = archive([
        directory(b"a"),
        pax(&record("path", b"a/b")),
        file(b"x"),
        link(b"c", b"a"),
    ]);
    let place = Place::new();
    place.extract(&whole, &mut Account::default()).unwrap();
    for length in (0..whole.len()).filter(|length| length % 73 == 0 || length % 512 == 0) {
        refused(&whole[..length], "SANDBOX_FILE_TRUNCATED", "broke off");
    }

    struct Failing(io::Cursor<Vec<u8>>);
    impl Read for Failing {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match self.0.read(buffer)? {
                0 => Err(io::ErrorKind::ConnectionReset.into()),
                read => Ok(read),
            }
        }
    }
    let failing = Failing(io::Cursor::new(whole[..2048].to_vec()));
    let default = Account::default();
    refused_within(failing, default, "SANDBOX_FILE_TRUNCATED", "broke off");
}

#[test]
fn damaged_streams_are_refused() {
    let check = |stream: &[u8], why| refused(stream, "SANDBOX_FILE_DIGEST", why);
    let good = archive([file(b"a")]);
    let mut flipped = good.clone();
    flipped[512] ^= 1;
    check(&flipped, "checksum");
    let mut filled = good.clone();
    filled[1024 + 100] = 1;
    check(&filled, "last block");
    check(&[&good[..], b"more"].concat(), "follows");
    check(&[&good[..], &[0; 512]].concat(), "follows");
    check(&[&good[..], &good].concat(), "follows");
    let one_block = good.len() - 512;
    check(
        &[&good[..one_block], &file(b"b").blocks()].concat(),
        "of its end",
    );

    let mut gnu = Header::new_gnu();
    gnu.set_cksum();
    check(
        &[directory(b"./").blocks(), gnu.as_bytes().to_vec()].concat(),
        "no ustar header",
    );
    check(&[b'x'; 1024], "no ustar header");
    let mut header = file(b"a").header();
    header.as_old_mut().size = *b"8888888888z\0";
    header.set_cksum();
    check(
        &[directory(b"./").blocks(), header.as_bytes().to_vec()].concat(),
        "number",
    );

    check(&archive([directory(b"a").claiming(1)]), "has bytes");
    check(&archive([link(b"a", b"b").claiming(512)]), "has bytes");
    check(&archive([pax(&record("path", b"a"))]), "no entry");
    check(
        &archive([pax(b""), pax(b""), file(b"a")]),
        "follow pax records",
    );
    let twice = [record("path", b"a"), record("path", b"b")].concat();
    check(&archive([pax(&twice), file(b"a")]), "twice");
    for records in [
        &b"9 path=a"[..],
        b"99 path=a\n",
        b"9 path a\n",
        b"path=a\n",
        b"0 path=a\n",
        b"3 path=a\n",
        b"-9 path=a\n",
        b"10 path=a\n\n",
        b"18446744073709551616 path=a\n",
        b"9 path=ab",
        b"\n",
        b" ",
    ] {
        check(&archive([pax(records), file(b"a")]), "malformed");
    }
    for size in ["", "-1", "+1", "0x10", "1e3", " 1", "18446744073709551616"] {
        let records = record("size", size.as_bytes());
        check(&archive([pax(&records), file(b"a")]), "number");
    }
}
