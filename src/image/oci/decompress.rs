//! [`decompress`]: decompresses a layer as a stream, with a bounded window in memory.

use std::io::{self, BufRead, ErrorKind, Read};

use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder, errors::FrameDecoderError};

use super::{documents::Compression, error::LayerError};
use crate::image::input::MIB;

/// How many bytes are passed on at once.
const CHUNK: usize = 256 * 1024;
/// The largest window that a zstd frame may need, in bytes.
const WINDOW_LIMIT: u64 = 128 * MIB;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const ZSTD_MAGIC: u32 = 0xfd2f_b528;

/// Takes decompressed bytes. Returning `false` ends the decompression early.
pub(super) type Taker<'a> = dyn FnMut(Vec<u8>) -> bool + 'a;

/// Decompresses all of `input`: every gzip member or zstd frame. Its first bytes must be of the compression that its
/// media type `declared`.
pub(super) fn decompress(
    input: impl BufRead,
    declared: Option<Compression>,
    take: &mut Taker<'_>,
) -> Result<(), LayerError> {
    let mut input = Peeking {
        start: Vec::new(),
        input,
    };
    let found = detect(input.peek().map_err(failed)?);
    if let Some(declared) = declared
        && declared != found
    {
        return Err(LayerError::Compression {
            declared: declared.name(),
            found: found.name(),
        });
    }
    let done = match found {
        Compression::Plain => copy(&mut input, take).map(drop),
        Compression::Gzip => gzip(&mut input, take),
        Compression::Zstd => zstd(&mut input, take),
    };
    done.map_err(failed)
}

fn failed(error: io::Error) -> LayerError {
    match error.kind() {
        ErrorKind::UnexpectedEof => LayerError::CutShort,
        _ => LayerError::Decompress(error),
    }
}

fn detect(start: &[u8]) -> Compression {
    match magic(start) {
        _ if start.starts_with(&GZIP_MAGIC) => Compression::Gzip,
        Some(magic) if magic == ZSTD_MAGIC || is_skippable(magic) => Compression::Zstd,
        _ => Compression::Plain,
    }
}

fn magic(start: &[u8]) -> Option<u32> {
    start.first_chunk().map(|magic| u32::from_le_bytes(*magic))
}

/// Whether a zstd frame with this magic number holds no data (RFC 8878, section 3.1.2).
fn is_skippable(magic: u32) -> bool {
    magic & !0xf == 0x184d_2a50
}

/// An input whose next bytes can be examined before they are read.
struct Peeking<R> {
    /// The bytes that were examined and not read yet.
    start: Vec<u8>,
    input: R,
}

impl<R: BufRead> Peeking<R> {
    /// The next four bytes, or all that are left.
    fn peek(&mut self) -> io::Result<&[u8]> {
        const MOST: usize = 4;
        let missing = MOST.saturating_sub(self.start.len()) as u64;
        let mut more = self.input.by_ref().take(missing);
        more.read_to_end(&mut self.start)?;
        Ok(&self.start)
    }
}

impl<R: BufRead> Read for Peeking<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}

impl<R: BufRead> BufRead for Peeking<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match self.start.is_empty() {
            true => self.input.fill_buf(),
            false => Ok(&self.start),
        }
    }

    fn consume(&mut self, bytes: usize) {
        match self.start.is_empty() {
            true => self.input.consume(bytes),
            false => drop(self.start.drain(..bytes)),
        }
    }
}

/// Passes on all bytes of `input`. Returns `false` if the taker ended it early.
fn copy(input: &mut dyn Read, take: &mut Taker<'_>) -> io::Result<bool> {
    loop {
        let mut chunk = vec![0; CHUNK];
        let mut filled = 0;
        while filled < CHUNK {
            match input.read(&mut chunk[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        chunk.truncate(filled);
        if filled > 0 && !take(chunk) {
            return Ok(false);
        }
        if filled < CHUNK {
            return Ok(true);
        }
    }
}

fn damaged(what: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

fn gzip<R: BufRead>(input: &mut Peeking<R>, take: &mut Taker<'_>) -> io::Result<()> {
    loop {
        if !copy(&mut flate2::bufread::GzDecoder::new(&mut *input), take)? {
            return Ok(());
        }
        if !input.peek()?.starts_with(&GZIP_MAGIC) {
            return padding(input);
        }
    }
}

/// Reads the rest after the last member, which must be zeros.
fn padding(input: &mut impl BufRead) -> io::Result<()> {
    loop {
        let rest = input.fill_buf()?;
        if rest.iter().any(|&byte| byte != 0) {
            return Err(damaged("something follows the compressed data"));
        }
        match rest.len() {
            0 => return Ok(()),
            read => input.consume(read),
        }
    }
}

fn zstd<R: BufRead>(input: &mut Peeking<R>, take: &mut Taker<'_>) -> io::Result<()> {
    let mut decoder = FrameDecoder::new();
    decoder.set_max_window_size(WINDOW_LIMIT);
    loop {
        match magic(input.peek()?) {
            Some(magic) if is_skippable(magic) => skip_frame(input)?,
            Some(ZSTD_MAGIC) => {
                if !frame(&mut decoder, input, take)? {
                    return Ok(());
                }
            }
            _ if input.peek()?.is_empty() => return Ok(()),
            _ => return Err(damaged("something follows the compressed data")),
        }
    }
}

fn skip_frame(input: &mut impl BufRead) -> io::Result<()> {
    let mut header = [0; 8];
    input.read_exact(&mut header)?;
    let [_, _, _, _, length @ ..] = header;
    let length = u64::from(u32::from_le_bytes(length));
    match io::copy(&mut input.take(length), &mut io::sink())? {
        skipped if skipped == length => Ok(()),
        _ => Err(ErrorKind::UnexpectedEof.into()),
    }
}

/// Passes on the content of one frame. Returns `false` if the taker ended it early.
fn frame(
    decoder: &mut FrameDecoder,
    input: &mut impl BufRead,
    take: &mut Taker<'_>,
) -> io::Result<bool> {
    let failed =
        |error: FrameDecoderError| io::Error::new(ErrorKind::InvalidData, error.to_string());
    decoder.reset(&mut *input).map_err(failed)?;
    let mut size = 0;
    while !decoder.is_finished() {
        decoder
            .decode_blocks(&mut *input, BlockDecodingStrategy::UptoBytes(CHUNK))
            .map_err(failed)?;
        let mut chunk = Vec::new();
        decoder.read_to_end(&mut chunk)?;
        size += chunk.len() as u64;
        if !chunk.is_empty() && !take(chunk) {
            return Ok(false);
        }
    }
    // The decoder checks neither size nor checksum. A size of 0 means that the frame doesn't state it.
    let expected = decoder.content_size();
    if expected != 0 && expected != size {
        return Err(damaged("a frame has another size than it states"));
    }
    match decoder.get_checksum_from_data() {
        Some(checksum) if decoder.get_calculated_checksum() != Some(checksum) => {
            Err(damaged("a frame's checksum is wrong"))
        }
        _ => Ok(true),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).expect("in memory");
        encoder.finish().expect("in memory")
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
    }

    fn read(bytes: &[u8], declared: Option<Compression>) -> Result<Vec<u8>, LayerError> {
        let mut all = Vec::new();
        // One byte at a time, so that no read returns a whole magic number.
        let input = io::BufReader::with_capacity(1, bytes);
        decompress(input, declared, &mut |chunk| {
            all.extend(chunk);
            true
        })?;
        Ok(all)
    }

    #[test]
    fn every_member_and_frame_is_read() {
        let skippable = b"\x50\x2a\x4d\x18\x03\0\0\0abc".to_vec();
        for streams in [
            [gzip(b"one"), gzip(b""), gzip(b"two")].concat(),
            [gzip(b"one"), gzip(b"two"), vec![0; 600]].concat(),
            [zstd(b"one"), zstd(b""), zstd(b"two")].concat(),
            [skippable.clone(), zstd(b"one"), skippable, zstd(b"two")].concat(),
            b"onetwo".to_vec(),
        ] {
            assert_eq!(read(&streams, None).expect("whole"), b"onetwo");
        }
        assert_eq!(read(b"", None).expect("empty"), b"");
        let much = vec![7; 3 * CHUNK + 1];
        for stream in [gzip(&much), zstd(&much), much.clone()] {
            assert_eq!(read(&stream, None).expect("whole"), much);
        }
    }

    #[test]
    fn a_cut_or_garbage_at_the_end_is_an_error() {
        for stream in [gzip(b"some content"), zstd(b"some content")] {
            for cut in 5..stream.len() {
                assert!(read(&stream[..cut], None).is_err(), "{cut}");
            }
            for garbage in [&b"x"[..], b"\0\0\0\0\0x", b"garbage"] {
                assert!(read(&[&stream[..], garbage].concat(), None).is_err());
            }
        }
    }

    #[test]
    fn the_media_type_and_the_first_bytes_agree() {
        let streams = [
            (Compression::Plain, b"plain".to_vec()),
            (Compression::Gzip, gzip(b"x")),
            (Compression::Zstd, zstd(b"x")),
        ];
        for (found, stream) in &streams {
            for (declared, _) in &streams {
                let read = read(stream, Some(*declared));
                assert_eq!(read.is_ok(), found == declared, "{found:?} as {declared:?}");
            }
        }
    }

    #[test]
    fn the_taker_ends_a_bomb() {
        let bomb = gzip(&vec![0; 64 * CHUNK]);
        let mut chunks = 0;
        let ended = decompress(&bomb[..], None, &mut |_| {
            chunks += 1;
            chunks < 3
        });
        assert!(ended.is_ok() && chunks == 3);
    }
}
