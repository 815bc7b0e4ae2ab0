//! [`FrameReader`]: reads frames from a stream, within limits of size and time.
//!
//! `chv-guest` writes `type` as the first field of each frame, so the type is known once the first bytes have come. A
//! frame of a type that isn't allowed, or that is too large for its type, is refused then, before more of it is read.
//! If `type` isn't the first field, it is searched for once the whole body has come, and the rest is decoded only if
//! the type is allowed.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, timeout_at};

use super::Violation;
use crate::guest::frame::{HEADER, LengthError, READ_STEP, body_length};
use crate::guest::protocol::{DecodeError, Frame, FrameType};

/// The largest buffer that is kept between two frames, in bytes.
const KEPT: usize = 1 << 20;

/// Reads frames.
///
/// The buffer grows with the bytes that have come, not with the length that the guest has announced. It holds one frame
/// and the bytes that were read together with the frame's end. There is no time limit between frames. Inside a frame
/// there are two: one for the next byte, and one for the whole frame.
pub(super) struct FrameReader<R> {
    stream: R,
    buffer: Vec<u8>,
    /// The index in `buffer` of the first frame that wasn't returned yet.
    start: usize,
    idle: Duration,
    total: Duration,
}

/// A function that gets the type and the announced length of a body, and returns the largest allowed length, or why
/// this type isn't allowed now.
pub(super) type Admit<'a> = &'a (dyn Fn(FrameType, usize) -> Result<usize, Violation> + Sync);

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// A reader of `stream`. `idle` is the limit for the next byte inside a frame, `total` for one whole frame.
    pub(super) fn new(stream: R, idle: Duration, total: Duration) -> Self {
        FrameReader {
            stream,
            buffer: Vec::new(),
            start: 0,
            idle,
            total,
        }
    }

    /// Reads the next frame; `None` if the stream has ended between two frames. After an error the stream is unusable.
    ///
    /// `admit` is called once for each frame, as soon as its type is known.
    pub(super) async fn next(&mut self, admit: Admit<'_>) -> Result<Option<Frame>, ReadError> {
        let mut began = (!self.pending().is_empty()).then(Instant::now);
        let mut admitted = None;
        loop {
            if let Some(frame) = self.take_frame(&mut admitted, admit)? {
                return Ok(Some(frame));
            }
            self.make_room();
            let mut window = (&mut self.stream).take(READ_STEP as u64);
            let read = window.read_buf(&mut self.buffer);
            let read = match began {
                None => read.await,
                Some(began) => {
                    let limit = (Instant::now() + self.idle).min(began + self.total);
                    match timeout_at(limit, read).await {
                        Ok(read) => read,
                        Err(_) => {
                            return Err(ReadError::Stalled {
                                received: self.pending().len(),
                                waited: began.elapsed(),
                            });
                        }
                    }
                }
            };
            if read.map_err(ReadError::Io)? == 0 {
                return match self.pending().len() {
                    0 => Ok(None),
                    received => Err(ReadError::Torn { received }),
                };
            }
            began.get_or_insert_with(Instant::now);
        }
    }

    /// The stream, and the bytes that were read after the last frame.
    pub(super) fn into_parts(self) -> (R, Vec<u8>) {
        let rest = self.pending().to_vec();
        (self.stream, rest)
    }

    /// The bytes of the frames that weren't returned yet.
    fn pending(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    /// Makes room for one read. A full buffer grows to twice its size, but to no more than the size of its frame plus
    /// one read.
    fn make_room(&mut self) {
        self.buffer.drain(..self.start);
        self.start = 0;
        let filled = self.buffer.len();
        if self.buffer.capacity() - filled >= READ_STEP {
            return;
        }
        let header = self.buffer.first_chunk().copied();
        let whole = header.map_or(HEADER, |header| HEADER + body_length(header).unwrap_or(0));
        let missing = whole.saturating_sub(filled);
        self.buffer
            .reserve_exact(missing.min(filled).max(READ_STEP));
    }

    /// Decodes the buffer's first frame if it is complete. A bad length and a type that isn't allowed are errors as
    /// soon as their bytes have come. `admitted` is this frame's type, if an earlier call has found and allowed it.
    fn take_frame(
        &mut self,
        admitted: &mut Option<FrameType>,
        admit: Admit<'_>,
    ) -> Result<Option<Frame>, ReadError> {
        let pending = self.pending();
        let Some(&header) = pending.first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let length = body_length(header).map_err(ReadError::Length)?;
        let end = HEADER + length;
        let come = &pending[HEADER..pending.len().min(end)];
        if admitted.is_none()
            && let Some(frame_type) = FrameType::of_head(come)
        {
            let frame_type = frame_type.map_err(ReadError::Decode)?;
            check(frame_type, length, admit)?;
            *admitted = Some(frame_type);
        }
        let Some(body) = pending.get(HEADER..end) else {
            return Ok(None);
        };
        let text = std::str::from_utf8(body).map_err(|error| ReadError::Decode(error.into()))?;
        let frame_type = match *admitted {
            Some(frame_type) => frame_type,
            None => {
                let frame_type = FrameType::of(text).map_err(ReadError::Decode)?;
                check(frame_type, length, admit)?;
                frame_type
            }
        };
        let frame = Frame::decode_as(frame_type, text).map_err(ReadError::Decode)?;
        if end > KEPT {
            // The large buffer of this frame is freed, since the next frames are probably small.
            self.buffer = pending[end..].to_vec();
        } else {
            self.start += end;
        }
        Ok(Some(frame))
    }
}

fn check(frame_type: FrameType, length: usize, admit: Admit<'_>) -> Result<(), ReadError> {
    let limit = admit(frame_type, length).map_err(ReadError::Refused)?;
    match length > limit {
        true => Err(ReadError::TooLarge {
            frame_type,
            length,
            limit,
        }),
        false => Ok(()),
    }
}

/// Why no further frame can be read.
#[derive(Debug)]
pub(super) enum ReadError {
    /// A frame's length is out of bounds.
    Length(LengthError),
    /// A frame is larger than its type allows.
    TooLarge {
        frame_type: FrameType,
        length: usize,
        limit: usize,
    },
    /// A frame of this type isn't allowed now.
    Refused(Violation),
    /// A frame's body breaks a rule of the protocol.
    Decode(DecodeError),
    /// A frame exceeded one of the two time limits.
    Stalled { received: usize, waited: Duration },
    /// The stream ended inside a frame.
    Torn { received: usize },
    /// The stream failed.
    Io(io::Error),
}

#[cfg(test)]
mod tests;
