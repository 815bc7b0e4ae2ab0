//! [`Compression`]: the compressed formats in which distributions ship kernels and modules.

use std::io::{self, ErrorKind, Read};

use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder, errors::FrameDecoderError};

use super::input::{self, MIB};

/// A compressed format, which is detected by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    Gzip,
    Xz,
    /// The legacy frame that kernels use: a magic number, then blocks, each with its compressed length. The newer kind
    /// of frames is not supported, because no distribution uses it for kernels.
    Lz4Legacy,
    Zstd,
}

/// The largest dictionary that an xz or zstd stream may need, in bytes.
const DICTIONARY_LIMIT: u64 = 256 * MIB;
/// The largest decompressed size of one block of a legacy lz4 frame, in bytes.
const LZ4_BLOCK: usize = 8 * MIB as usize;
const LZ4_LEGACY_MAGIC: &[u8] = b"\x02\x21\x4c\x18";

impl Compression {
    const MAGICS: [(&[u8], Compression); 4] = [
        (b"\x1f\x8b", Compression::Gzip),
        (b"\xfd7zXZ\0", Compression::Xz),
        (LZ4_LEGACY_MAGIC, Compression::Lz4Legacy),
        (b"\x28\xb5\x2f\xfd", Compression::Zstd),
    ];

    /// The format of `bytes`, or `None` if it isn't one of these formats.
    ///
    /// zstd and lz4 share the skippable frames that may come before the first frame of data (pzstd writes one); a file
    /// that has only such frames counts as zstd.
    pub(super) fn detect(bytes: &[u8]) -> Option<Compression> {
        let mut rest = bytes;
        while is_skippable(rest) {
            rest = skip_frame(rest).unwrap_or_default();
        }
        if rest.is_empty() && !bytes.is_empty() {
            return Some(Compression::Zstd);
        }
        Self::MAGICS
            .iter()
            .find(|(magic, _)| rest.starts_with(magic))
            .map(|&(_, compression)| compression)
    }

    /// Decompresses all of `bytes`: each gzip member, xz stream, or zstd or lz4 frame, one after the other, as the
    /// format's own tool does. Checksums are compared.
    ///
    /// Bytes after the last stream that belong to no stream are an error; gzip(1) and lz4(1) drop them with a warning,
    /// xz(1) and zstd(1) fail. Zeros after the last gzip member, and zeros between xz streams (in multiples of four),
    /// are padding. More than `limit` decompressed bytes are an error.
    pub(super) fn decompress(self, bytes: &[u8], limit: u64) -> io::Result<Vec<u8>> {
        let mut output = Output {
            bytes: Vec::new(),
            limit,
        };
        match self {
            Compression::Gzip => gzip(bytes, &mut output)?,
            Compression::Xz => {
                let kib = (DICTIONARY_LIMIT / 1024) as u32;
                output.append(lzma_rust2::XzReader::new_mem_limit(bytes, true, kib))?;
            }
            Compression::Lz4Legacy => lz4_legacy(bytes, &mut output)?,
            Compression::Zstd => zstd(bytes, &mut output)?,
        }
        Ok(output.bytes)
    }
}

/// The decompressed bytes, at most one more than the limit.
struct Output {
    bytes: Vec<u8>,
    limit: u64,
}

impl Output {
    /// Appends all bytes of `decoder`.
    fn append(&mut self, decoder: impl Read) -> io::Result<()> {
        let left = self.limit.saturating_sub(self.len());
        decoder.take(left + 1).read_to_end(&mut self.bytes)?;
        if self.len() > self.limit {
            return Err(io::Error::new(
                ErrorKind::FileTooLarge,
                format!("it holds more than {} bytes", self.limit),
            ));
        }
        Ok(())
    }

    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }
}

fn damaged(what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

fn trailing(rest: &[u8]) -> io::Error {
    damaged(format!(
        "its last {} bytes are not compressed data",
        rest.len()
    ))
}

fn gzip(mut rest: &[u8], output: &mut Output) -> io::Result<()> {
    loop {
        output.append(flate2::bufread::GzDecoder::new(&mut rest))?;
        if rest.iter().all(|&byte| byte == 0) {
            return Ok(());
        }
        if Compression::detect(rest) != Some(Compression::Gzip) {
            return Err(trailing(rest));
        }
    }
}

fn zstd(mut rest: &[u8], output: &mut Output) -> io::Result<()> {
    /// How many bytes are decoded before they are taken out of the decoder.
    const STEP: usize = MIB as usize;

    let failed = |error: FrameDecoderError| damaged(error.to_string());
    let mut decoder = FrameDecoder::new();
    decoder.set_max_window_size(DICTIONARY_LIMIT);
    while !rest.is_empty() {
        if is_skippable(rest) {
            rest = skip_frame(rest)?;
            continue;
        }
        if Compression::detect(rest) != Some(Compression::Zstd) {
            return Err(trailing(rest));
        }
        let before = output.len();
        decoder.reset(&mut rest).map_err(failed)?;
        while !decoder.is_finished() {
            decoder
                .decode_blocks(&mut rest, BlockDecodingStrategy::UptoBytes(STEP))
                .map_err(failed)?;
            output.append(&mut decoder)?;
        }
        // The decoder checks neither size nor checksum. A size of 0 means that the frame doesn't state it.
        let size = decoder.content_size();
        if size != 0 && size != output.len() - before {
            return Err(damaged("a frame has another size than it states"));
        }
        if let Some(checksum) = decoder.get_checksum_from_data()
            && decoder.get_calculated_checksum() != Some(checksum)
        {
            return Err(damaged("a frame's checksum is wrong"));
        }
    }
    Ok(())
}

fn lz4_legacy(mut rest: &[u8], output: &mut Output) -> io::Result<()> {
    let begins_frame = |bytes: &[u8]| is_skippable(bytes) || bytes.starts_with(LZ4_LEGACY_MAGIC);
    let mut block = vec![0; LZ4_BLOCK];
    while !rest.is_empty() {
        if is_skippable(rest) {
            rest = skip_frame(rest)?;
            continue;
        }
        rest = rest
            .strip_prefix(LZ4_LEGACY_MAGIC)
            .ok_or_else(|| trailing(rest))?;
        // A frame has no end marker. A magic number can't be a block's length, because it would be longer than any
        // block.
        while !rest.is_empty() && !begins_frame(rest) {
            let data = length_and_data(rest).ok_or_else(|| {
                damaged("a block is cut off, or the last block is followed by other bytes")
            })?;
            let written = lz4_flex::block::decompress_into(data, &mut block).map_err(damaged)?;
            output.append(&block[..written])?;
            rest = &rest[LENGTH_LEN + data.len()..];
        }
    }
    Ok(())
}

const LENGTH_LEN: usize = 4;

/// The bytes after a four-byte length; `None` if there are fewer than that length.
fn length_and_data(bytes: &[u8]) -> Option<&[u8]> {
    let len = input::u32_at(bytes, 0)? as usize;
    bytes.get(LENGTH_LEN..LENGTH_LEN.checked_add(len)?)
}

/// Whether `bytes` begin with a skippable frame, which holds no data (RFC 8878, section 3.1.2).
fn is_skippable(bytes: &[u8]) -> bool {
    input::u32_at(bytes, 0).is_some_and(|magic| magic & !0xf == 0x184d_2a50)
}

/// The bytes after the skippable frame with which `bytes` begin.
fn skip_frame(bytes: &[u8]) -> io::Result<&[u8]> {
    const MAGIC_LEN: usize = 4;

    let data = length_and_data(&bytes[MAGIC_LEN..])
        .ok_or_else(|| damaged("a skippable frame is cut off"))?;
    Ok(&bytes[MAGIC_LEN + LENGTH_LEN + data.len()..])
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).expect("in memory");
        encoder.finish().expect("in memory")
    }

    fn xz(bytes: &[u8]) -> Vec<u8> {
        let options = lzma_rust2::XzOptions::with_preset(1);
        let mut encoder = lzma_rust2::XzWriter::new(Vec::new(), options).expect("options");
        encoder.write_all(bytes).expect("in memory");
        encoder.finish().expect("in memory")
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
    }

    fn lz4(bytes: &[u8]) -> Vec<u8> {
        lz4_frame(&[bytes])
    }

    fn lz4_frame(blocks: &[&[u8]]) -> Vec<u8> {
        let mut frame = LZ4_LEGACY_MAGIC.to_vec();
        for block in blocks {
            let packed = lz4_flex::block::compress(block);
            frame.extend((packed.len() as u32).to_le_bytes());
            frame.extend(packed);
        }
        frame
    }

    fn skippable(variant: u8, data: &[u8]) -> Vec<u8> {
        let len = (data.len() as u32).to_le_bytes();
        [&[0x50 | variant, 0x2a, 0x4d, 0x18], &len[..], data].concat()
    }

    fn check(compressed: &[u8], limit: u64, expected: Result<&[u8], ErrorKind>) {
        let compression = Compression::detect(compressed).expect("a known magic");
        let found = compression.decompress(compressed, limit);
        match expected {
            Ok(bytes) => assert_eq!(found.expect("decompresses"), bytes, "{compression:?}"),
            Err(kind) => assert_eq!(
                found.expect_err("must fail").kind(),
                kind,
                "{compression:?}"
            ),
        }
    }

    #[test]
    fn every_stream_is_read() {
        for pack in [gzip, xz, zstd, lz4] {
            let streams = [pack(b"one"), pack(b""), pack(b"two"), pack(b"three")].concat();
            check(&streams, 11, Ok(b"onetwothree"));
            check(&streams, 10, Err(ErrorKind::FileTooLarge));
            let cut = &streams[..streams.len() - 1];
            let found = Compression::detect(cut).expect("known").decompress(cut, 11);
            assert!(found.is_err(), "a last stream that is cut off");
        }
    }

    #[test]
    fn what_follows_the_last_stream_is_data_padding_or_an_error() {
        const INVALID: Result<&[u8], ErrorKind> = Err(ErrorKind::InvalidData);

        for pack in [gzip, xz, zstd, lz4] {
            for garbage in [&b"garbage!"[..], b"\x01", b"\0\0\0\x01"] {
                check(&[&pack(b"one"), garbage].concat(), 99, INVALID);
            }
        }
        let zeros = |pack: fn(&[u8]) -> Vec<u8>, count, after: &[u8]| {
            [&pack(b"one"), &vec![0; count][..], after].concat()
        };
        check(&zeros(gzip, 1, b""), 99, Ok(b"one"));
        check(&zeros(gzip, 512, b""), 99, Ok(b"one"));
        check(&zeros(gzip, 4, &gzip(b"two")), 99, INVALID);
        check(&zeros(xz, 4, b""), 99, Ok(b"one"));
        check(&zeros(xz, 8, &xz(b"two")), 99, Ok(b"onetwo"));
        check(&zeros(xz, 3, b""), 99, INVALID);
        check(&zeros(xz, 2, &xz(b"two")), 99, INVALID);
        check(&zeros(zstd, 4, b""), 99, INVALID);
        check(&zeros(lz4, 4, b""), 99, INVALID);
        // A stream of one format after a stream of another format is not part of the first.
        check(&[gzip(b"one"), xz(b"two")].concat(), 99, INVALID);
        check(&[zstd(b"one"), lz4(b"two")].concat(), 99, INVALID);
    }

    #[test]
    fn skippable_frames_are_skipped_wherever_they_are() {
        for pack in [zstd, lz4] {
            let file = [
                skippable(0, b"the size of the next frame"),
                skippable(0xf, b""),
                pack(b"one"),
                skippable(3, &pack(b"not this")),
                pack(b"two"),
                skippable(7, b"at the end"),
            ]
            .concat();
            check(&file, 99, Ok(b"onetwo"));
            let cut = &file[..file.len() - 1];
            check(cut, 99, Err(ErrorKind::InvalidData));
        }
        check(&skippable(0, b"alone"), 99, Ok(b""));
        check(&skippable(0, b"cut")[..10], 99, Err(ErrorKind::InvalidData));
        let other = [skippable(0, b""), b"neither".to_vec()].concat();
        assert_eq!(Compression::detect(&other), None);
        assert_eq!(Compression::detect(b""), None);
    }

    #[test]
    fn checksums_and_sizes_of_zstd_frames_are_compared() {
        let frame = zstd(b"some content of a module");
        check(&frame, 99, Ok(b"some content of a module"));
        let mut wrong = frame.clone();
        *wrong.last_mut().expect("not empty") ^= 1;
        check(&wrong, 99, Err(ErrorKind::InvalidData));

        // A frame of a single segment (0x20) with a last raw block (1) of five bytes. It states a size of five, then of
        // six.
        let raw = |size| [b"\x28\xb5\x2f\xfd\x20", &[size][..], b"\x29\0\0hello"].concat();
        check(&raw(5), 99, Ok(b"hello"));
        check(&raw(6), 99, Err(ErrorKind::InvalidData));
    }

    #[test]
    fn lz4_of_kernels() {
        check(&lz4_frame(&[b"one", b"two"]), 6, Ok(b"onetwo"));
        check(&lz4_frame(&[]), 6, Ok(b""));
        check(
            b"\x02\x21\x4c\x18\xff\xff\xff\xff",
            6,
            Err(ErrorKind::InvalidData),
        );
    }

    #[test]
    fn a_bomb_is_stopped_at_the_limit() {
        for pack in [gzip, xz, zstd, lz4] {
            check(&pack(&vec![0; 1 << 20]), 1000, Err(ErrorKind::FileTooLarge));
        }
    }

    #[test]
    fn damage_is_an_error() {
        check(b"\x1f\x8b", 100, Err(ErrorKind::UnexpectedEof));
        check(b"\xfd7zXZ\0\0\0", 100, Err(ErrorKind::UnexpectedEof));
        check(b"\x28\xb5\x2f\xfd", 100, Err(ErrorKind::InvalidData));
    }
}
