//! The compressed formats in which distributions ship kernels and modules.

use std::io::{self, ErrorKind, Read};

use super::input::{self, MIB};

/// A compressed format, told by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    Gzip,
    Xz,
    /// The legacy frame that kernels use: a magic number, then blocks, each with its compressed length.
    Lz4Legacy,
    Zstd,
}

/// An xz or zstd stream may ask for a dictionary of this much memory and no more.
const DICTIONARY_LIMIT: u64 = 256 * MIB;
/// What one block of a legacy lz4 frame holds at most when decompressed.
const LZ4_BLOCK: usize = 8 * MIB as usize;

impl Compression {
    const MAGICS: [(&[u8], Compression); 4] = [
        (b"\x1f\x8b", Compression::Gzip),
        (b"\xfd7zXZ\0", Compression::Xz),
        (b"\x02\x21\x4c\x18", Compression::Lz4Legacy),
        (b"\x28\xb5\x2f\xfd", Compression::Zstd),
    ];

    /// The format of `bytes`, or `None` when it's none of those that are read here.
    pub(super) fn detect(bytes: &[u8]) -> Option<Compression> {
        Self::MAGICS
            .iter()
            .find(|(magic, _)| bytes.starts_with(magic))
            .map(|&(_, compression)| compression)
    }

    /// Decompresses one stream; what follows it is ignored. More than `limit` bytes are an error.
    pub(super) fn decompress(self, bytes: &[u8], limit: u64) -> io::Result<Vec<u8>> {
        match self {
            Compression::Gzip => collect(flate2::read::GzDecoder::new(bytes), limit),
            Compression::Xz => {
                let kib = (DICTIONARY_LIMIT / 1024) as u32;
                collect(
                    lzma_rust2::XzReader::new_mem_limit(bytes, false, kib),
                    limit,
                )
            }
            Compression::Lz4Legacy => lz4_legacy(bytes, limit),
            Compression::Zstd => {
                let decoder = ruzstd::decoding::StreamingDecoder::new_with_max_window_size(
                    bytes,
                    DICTIONARY_LIMIT,
                )
                .map_err(|e| io::Error::new(ErrorKind::InvalidData, e.to_string()))?;
                collect(decoder, limit)
            }
        }
    }
}

fn collect(decoder: impl Read, limit: u64) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    decoder.take(limit + 1).read_to_end(&mut out)?;
    bounded(out, limit)
}

fn bounded(out: Vec<u8>, limit: u64) -> io::Result<Vec<u8>> {
    if out.len() as u64 > limit {
        return Err(io::Error::new(
            ErrorKind::FileTooLarge,
            format!("it holds more than {limit} bytes"),
        ));
    }
    Ok(out)
}

fn lz4_legacy(bytes: &[u8], limit: u64) -> io::Result<Vec<u8>> {
    let damaged = |what: &str| io::Error::new(ErrorKind::InvalidData, what.to_owned());
    let mut out = Vec::new();
    let mut block = vec![0; LZ4_BLOCK];
    let mut at = 4; // Past the magic number.
    while at < bytes.len() {
        let len = input::u32_at(bytes, at).ok_or_else(|| damaged("a block's length is cut off"))?
            as usize;
        let start = at + 4;
        let data = start
            .checked_add(len)
            .and_then(|end| bytes.get(start..end))
            .ok_or_else(|| damaged("a block is cut off"))?;
        let written = lz4_flex::block::decompress_into(data, &mut block)
            .map_err(|e| io::Error::new(ErrorKind::InvalidData, e))?;
        out.extend_from_slice(&block[..written]);
        if out.len() as u64 > limit {
            break;
        }
        at = start + len;
    }
    bounded(out, limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lz4_frame(blocks: &[&[u8]]) -> Vec<u8> {
        let mut frame = b"\x02\x21\x4c\x18".to_vec();
        for block in blocks {
            let packed = lz4_flex::block::compress(block);
            frame.extend((packed.len() as u32).to_le_bytes());
            frame.extend(packed);
        }
        frame
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
    fn lz4_of_kernels() {
        check(&lz4_frame(&[b"one", b"two"]), 6, Ok(b"onetwo"));
        check(&lz4_frame(&[]), 6, Ok(b""));
        check(
            &lz4_frame(&[b"one", b"two"]),
            5,
            Err(ErrorKind::FileTooLarge),
        );
        let mut cut = lz4_frame(&[b"one"]);
        cut.pop();
        check(&cut, 6, Err(ErrorKind::InvalidData));
        check(
            b"\x02\x21\x4c\x18\xff\xff\xff\xff",
            6,
            Err(ErrorKind::InvalidData),
        );
    }

    #[test]
    fn a_bomb_is_stopped_at_the_limit() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        io::Write::write_all(&mut gzip, &vec![0; 1 << 20]).expect("in memory");
        check(
            &gzip.finish().expect("in memory"),
            1000,
            Err(ErrorKind::FileTooLarge),
        );
    }

    #[test]
    fn damage_is_an_error() {
        check(b"\x1f\x8b", 100, Err(ErrorKind::UnexpectedEof));
        check(b"\xfd7zXZ\0\0\0", 100, Err(ErrorKind::UnexpectedEof));
        check(b"\x28\xb5\x2f\xfd", 100, Err(ErrorKind::InvalidData));
    }
}
