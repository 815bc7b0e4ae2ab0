//! Frames as bytes: a length (u32, big-endian), then that many bytes of JSON. Blocking, for the guest.

use std::io::{self, Read, Write};

use super::protocol::{DecodeError, Frame, MAX_FRAME};

/// How many bytes a frame's length takes.
pub const HEADER: usize = 4;

/// What is read at most in one go, so that a peer's claim of a length costs nothing before its bytes have come.
pub(crate) const READ_STEP: usize = 64 << 10;

/// Reads one frame; `None` at a clean end, between frames.
///
/// After [`FrameError::Decode`] the stream stands at the next frame, and a guest can answer with an
/// [`ErrorEvent`](super::protocol::ErrorEvent) and read on. After any other error it can't be used further.
///
/// # Errors
///
/// [`FrameError`] by what was wrong with the frame.
pub fn read_frame(reader: &mut impl Read) -> Result<Option<Frame>, FrameError> {
    let mut header = [0; HEADER];
    let mut filled = 0;
    while filled < HEADER {
        match reader.read(&mut header[filled..]) {
            Ok(0) if filled == 0 => return Ok(None),
            Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    let length = body_length(header)?;
    let mut body = Vec::new();
    while body.len() < length {
        let start = body.len();
        body.resize(length.min(start + READ_STEP), 0);
        reader.read_exact(&mut body[start..])?;
    }
    Ok(Some(Frame::decode(&body)?))
}

/// Writes one frame in one piece, and flushes.
///
/// # Errors
///
/// [`FrameError::TooLarge`] before anything was written, or [`FrameError::Io`].
pub fn write_frame(writer: &mut impl Write, frame: &Frame) -> Result<(), FrameError> {
    writer.write_all(&encode(frame)?)?;
    Ok(writer.flush()?)
}

/// The frame's bytes, length and body.
///
/// # Errors
///
/// [`FrameError::TooLarge`] when the body would have more than [`MAX_FRAME`] bytes.
pub fn encode(frame: &Frame) -> Result<Vec<u8>, FrameError> {
    let mut bytes = vec![0; HEADER];
    serde_json::to_writer(&mut bytes, frame).map_err(io::Error::from)?;
    let length = bytes.len() - HEADER;
    if length > MAX_FRAME {
        return Err(FrameError::TooLarge {
            length: length as u64,
        });
    }
    bytes[..HEADER].copy_from_slice(&(length as u32).to_be_bytes());
    Ok(bytes)
}

/// The length of the body that a header announces: 1 to [`MAX_FRAME`].
///
/// # Errors
///
/// [`FrameError::Empty`] or [`FrameError::TooLarge`].
pub fn body_length(header: [u8; HEADER]) -> Result<usize, FrameError> {
    match u32::from_be_bytes(header) as usize {
        0 => Err(FrameError::Empty),
        length if length > MAX_FRAME => Err(FrameError::TooLarge {
            length: length as u64,
        }),
        length => Ok(length),
    }
}

/// A frame could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Its length is 0.
    #[error("the frame has no body")]
    Empty,
    /// Its length is above [`MAX_FRAME`].
    #[error("the frame has {length} bytes, more than {MAX_FRAME}")]
    TooLarge {
        /// The length, in bytes.
        length: u64,
    },
    /// Its body isn't what the protocol allows.
    #[error("the frame is malformed")]
    Decode(#[from] DecodeError),
    /// The stream failed, or ended inside a frame.
    #[error("the stream failed")]
    Io(#[from] io::Error),
}
