//! Reads and writes [`Frame`]s on a blocking stream, for the guest.
//!
//! A frame is a length (u32, big-endian) and then that many bytes of JSON. The host's side reads the same format with
//! [`vsock`](crate::vsock).

use std::io::{self, Read, Write};

use super::protocol::{DecodeError, Frame, MAX_FRAME};

/// The size of the length before a frame's body, in bytes.
pub(crate) const HEADER: usize = 4;

/// The most bytes that one read asks for and allocates. A peer that announces a long frame therefore causes no
/// allocation for bytes that it hasn't sent.
pub(crate) const READ_STEP: usize = 64 << 10;

/// The first capacity of an encoded frame, in bytes. Most frames fit, so that the buffer doesn't grow step by step.
const USUAL: usize = 512;

/// Reads one frame. Returns `None` when the stream ends between two frames.
///
/// After [`FrameError::Decode`] the stream is at the start of the next frame: a guest can answer with an
/// [`ErrorEvent`](super::protocol::ErrorEvent) and read on. After any other error the stream is unusable.
///
/// # Errors
///
/// - [`FrameError::Length`] if the announced length is 0 or above [`MAX_FRAME`]
/// - [`FrameError::Decode`] if the body breaks a rule of the protocol
/// - [`FrameError::Io`] if the stream fails, or ends inside the frame
pub fn read_frame(reader: &mut impl Read) -> Result<Option<Frame>, FrameError> {
    match read_body(reader)? {
        Some(body) => Ok(Some(Frame::decode(&body)?)),
        None => Ok(None),
    }
}

/// Reads the body of one frame without decoding it. Returns `None` when the stream ends between two frames.
///
/// # Errors
///
/// As [`read_frame`], without [`FrameError::Decode`].
pub(crate) fn read_body(reader: &mut impl Read) -> Result<Option<Vec<u8>>, FrameError> {
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
    Ok(Some(body))
}

/// Writes one frame with a single `write_all`, then flushes.
///
/// # Errors
///
/// - [`FrameError::Length`] if the body would have more than [`MAX_FRAME`] bytes; nothing was written
/// - [`FrameError::Io`] if the stream fails
pub fn write_frame(writer: &mut impl Write, frame: &Frame) -> Result<(), FrameError> {
    writer.write_all(&encode(frame)?)?;
    Ok(writer.flush()?)
}

/// Encodes a frame: its length, then its body.
///
/// # Errors
///
/// [`LengthError::TooLarge`] when the body would have more than [`MAX_FRAME`] bytes.
pub fn encode(frame: &Frame) -> Result<Vec<u8>, LengthError> {
    let mut bytes = Vec::with_capacity(USUAL);
    encode_into(&mut bytes, frame)?;
    Ok(bytes)
}

/// Appends the encoded frame to `bytes`. If the frame is too large, `bytes` is left as it was.
///
/// # Errors
///
/// As [`encode`].
pub(crate) fn encode_into(bytes: &mut Vec<u8>, frame: &Frame) -> Result<(), LengthError> {
    let start = bytes.len();
    bytes.extend([0; HEADER]);
    serde_json::to_writer(&mut *bytes, frame).expect(
        "a frame has string keys and no fallible serialiser, and writing to memory can't fail",
    );
    let length = bytes.len() - start - HEADER;
    if length > MAX_FRAME {
        bytes.truncate(start);
        return Err(LengthError::TooLarge {
            length: length as u64,
        });
    }
    bytes[start..start + HEADER].copy_from_slice(&(length as u32).to_be_bytes());
    Ok(())
}

/// Reads the length of the body from a frame's header: 1 to [`MAX_FRAME`] bytes.
///
/// # Errors
///
/// [`LengthError::Empty`] for 0, [`LengthError::TooLarge`] for more than [`MAX_FRAME`].
pub(crate) fn body_length(header: [u8; HEADER]) -> Result<usize, LengthError> {
    match u32::from_be_bytes(header) as usize {
        0 => Err(LengthError::Empty),
        length if length > MAX_FRAME => Err(LengthError::TooLarge {
            length: length as u64,
        }),
        length => Ok(length),
    }
}

/// The length of a frame's body is not 1 to [`MAX_FRAME`] bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LengthError {
    /// The length is 0.
    #[error("the frame has no body")]
    Empty,
    /// The length is above [`MAX_FRAME`].
    #[error("the frame has {length} bytes, more than {MAX_FRAME}")]
    TooLarge {
        /// The length, in bytes.
        length: u64,
    },
}

/// A frame could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The frame's length is out of bounds.
    #[error("the frame can't be carried")]
    Length(#[from] LengthError),
    /// The frame's body breaks a rule of the protocol.
    #[error("the frame is malformed")]
    Decode(#[from] DecodeError),
    /// The stream failed, or ended inside a frame.
    #[error("the stream failed")]
    Io(#[from] io::Error),
}

#[cfg(test)]
mod tests {
    use super::super::protocol::ErrorEvent;
    use super::*;

    fn event(message: usize) -> Frame {
        Frame::ErrorEvent(ErrorEvent {
            code: String::new(),
            message: "m".repeat(message),
        })
    }

    /// A reader that returns one byte for each call.
    struct Drip<'a>(&'a [u8]);

    impl Read for Drip<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let one = into.len().min(1);
            self.0.read(&mut into[..one])
        }
    }

    #[test]
    fn frames_come_back_as_they_were_written() {
        let mut bytes = Vec::new();
        for message in [0, 1, READ_STEP - 1, READ_STEP, 3 * READ_STEP] {
            write_frame(&mut bytes, &event(message)).unwrap();
        }
        let mut reader = Drip(&bytes);
        for message in [0, 1, READ_STEP - 1, READ_STEP, 3 * READ_STEP] {
            assert_eq!(read_frame(&mut reader).unwrap(), Some(event(message)));
        }
        assert_eq!(read_frame(&mut reader).unwrap(), None);
    }

    #[test]
    fn a_frame_as_long_as_allowed_passes_and_one_byte_more_does_not() {
        let around = serde_json::to_vec(&event(0)).unwrap().len();
        let longest = encode(&event(MAX_FRAME - around)).unwrap();
        assert_eq!(longest.len(), HEADER + MAX_FRAME);
        assert!(read_frame(&mut longest.as_slice()).unwrap().is_some());

        let error = encode(&event(MAX_FRAME - around + 1)).unwrap_err();
        assert!(
            matches!(error, LengthError::TooLarge { length } if length == MAX_FRAME as u64 + 1)
        );
    }

    #[test]
    fn bad_lengths_and_torn_frames_are_errors() {
        let check = |bytes: &[u8], expected: fn(&FrameError) -> bool| {
            let error = read_frame(&mut { bytes }).unwrap_err();
            assert!(expected(&error), "{bytes:?}: {error:?}");
        };
        check(&[0, 0, 0, 0], |e| {
            matches!(e, FrameError::Length(LengthError::Empty))
        });
        check(&[0xff; 4], |e| {
            matches!(e, FrameError::Length(LengthError::TooLarge { .. }))
        });
        check(&[1, 0, 0, 1], |e| {
            matches!(e, FrameError::Length(LengthError::TooLarge { .. }))
        });
        check(&[0, 0], |e| matches!(e, FrameError::Io(_)));
        check(&[0, 0, 0, 9, b'{'], |e| matches!(e, FrameError::Io(_)));
        check(&[0, 0, 0, 1, b'{'], |e| matches!(e, FrameError::Decode(_)));
    }

    #[test]
    fn after_a_frame_that_is_not_known_the_next_one_is_read() {
        let mut bytes = b"\0\0\0\x0c{\"type\":\"x\"}".to_vec();
        bytes.extend(encode(&event(1)).unwrap());
        let mut reader = bytes.as_slice();
        assert!(matches!(
            read_frame(&mut reader),
            Err(FrameError::Decode(_))
        ));
        assert_eq!(read_frame(&mut reader).unwrap(), Some(event(1)));
    }
}
