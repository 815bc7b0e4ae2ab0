//! Frames from a stream, bounded in size and time.

use std::io;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, timeout_at};

use crate::guest::frame::{HEADER, LengthError, READ_STEP, body_length};
use crate::guest::protocol::{DecodeError, Frame};

/// The most memory that is kept between two frames.
const KEPT: usize = 1 << 20;

/// Reads frames.
///
/// The buffer grows with the bytes that have come, never with what the guest has announced. Waiting between frames has
/// no limit; inside a frame there are two, one for the next byte and one for the whole frame.
pub(super) struct FrameReader<R> {
    stream: R,
    buffer: BytesMut,
    idle: Duration,
    total: Duration,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads from `stream`; `idle` is the limit for the next byte inside a frame, `total` for one whole frame.
    pub(super) fn new(stream: R, idle: Duration, total: Duration) -> Self {
        FrameReader {
            stream,
            buffer: BytesMut::new(),
            idle,
            total,
        }
    }

    /// The next frame; `None` when the stream has ended between two frames. After an error the stream can't be used.
    pub(super) async fn next(&mut self) -> Result<Option<Frame>, ReadError> {
        let mut began = (!self.buffer.is_empty()).then(Instant::now);
        loop {
            if let Some(frame) = self.take_frame()? {
                return Ok(Some(frame));
            }
            self.buffer.reserve(READ_STEP);
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
                                received: self.buffer.len(),
                                waited: began.elapsed(),
                            });
                        }
                    }
                }
            };
            if read.map_err(ReadError::Io)? == 0 {
                return match self.buffer.len() {
                    0 => Ok(None),
                    received => Err(ReadError::Torn { received }),
                };
            }
            began.get_or_insert_with(Instant::now);
        }
    }

    /// Decodes the buffer's first frame, if it is complete. A bad length is found as soon as it has come.
    fn take_frame(&mut self) -> Result<Option<Frame>, ReadError> {
        let Some(&header) = self.buffer.first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let end = HEADER + body_length(header).map_err(ReadError::Length)?;
        let Some(body) = self.buffer.get(HEADER..end) else {
            return Ok(None);
        };
        let frame = Frame::decode(body).map_err(ReadError::Decode)?;
        self.buffer.advance(end);
        if end > KEPT {
            // What a large frame has taken isn't kept for the small ones after it; at most one read's rest is moved.
            self.buffer = BytesMut::from(&*self.buffer);
        }
        Ok(Some(frame))
    }
}

/// No further frame can be read.
#[derive(Debug)]
pub(super) enum ReadError {
    /// A frame's length is out of bounds.
    Length(LengthError),
    /// A frame's body isn't what the protocol allows.
    Decode(DecodeError),
    /// A frame stood still, or took too long.
    Stalled { received: usize, waited: Duration },
    /// The stream ended inside a frame.
    Torn { received: usize },
    /// The stream failed.
    Io(io::Error),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::sleep;

    use super::*;
    use crate::guest::frame::encode;
    use crate::guest::protocol::{ErrorEvent, MAX_FRAME};

    const IDLE: Duration = Duration::from_secs(30);
    const TOTAL: Duration = Duration::from_secs(120);

    fn event(message: usize) -> Frame {
        Frame::ErrorEvent(ErrorEvent {
            code: "C".to_owned(),
            message: "m".repeat(message),
        })
    }

    fn reader(stream: DuplexStream) -> FrameReader<DuplexStream> {
        FrameReader::new(stream, IDLE, TOTAL)
    }

    /// What is read from `bytes` followed by the stream's end.
    async fn read_all(bytes: &[u8]) -> (usize, Option<ReadError>) {
        let mut reader = FrameReader::new(bytes, IDLE, TOTAL);
        let mut frames = 0;
        loop {
            match reader.next().await {
                Ok(Some(_)) => frames += 1,
                Ok(None) => return (frames, None),
                Err(error) => return (frames, Some(error)),
            }
        }
    }

    #[tokio::test]
    async fn bad_frames_end_the_stream_with_their_reason() {
        let check = async |bytes: &[u8], expected: fn(&ReadError) -> bool| {
            let mut all = encode(&event(1)).unwrap();
            all.extend(bytes);
            let (frames, error) = read_all(&all).await;
            assert_eq!(frames, 1);
            assert!(error.as_ref().is_some_and(expected), "{bytes:?}: {error:?}");
        };
        let over = (MAX_FRAME as u32 + 1).to_be_bytes();
        check(&[0, 0, 0, 0], |e| {
            matches!(e, ReadError::Length(LengthError::Empty))
        })
        .await;
        for header in [over, [0xff; 4]] {
            check(&header, |e| {
                matches!(e, ReadError::Length(LengthError::TooLarge { .. }))
            })
            .await;
        }
        check(&[0, 0, 0, 2, b'{', b'{'], |e| {
            matches!(e, ReadError::Decode(_))
        })
        .await;
        check(&[0], |e| matches!(e, ReadError::Torn { received: 1 })).await;
        check(&[0, 0, 0, 2, b'{'], |e| {
            matches!(e, ReadError::Torn { received: 5 })
        })
        .await;
    }

    #[tokio::test]
    async fn the_buffer_follows_the_bytes_and_not_the_claim() {
        let (mut guest, host) = duplex(1 << 16);
        let mut reader = reader(host);
        guest
            .write_all(&(MAX_FRAME as u32).to_be_bytes())
            .await
            .unwrap();
        guest.write_all(b"{").await.unwrap();
        drop(guest);
        assert!(matches!(
            reader.next().await,
            Err(ReadError::Torn { received: 5 })
        ));
        assert!(
            reader.buffer.capacity() <= 4 * READ_STEP,
            "{}",
            reader.buffer.capacity()
        );
    }

    #[tokio::test]
    async fn a_large_frame_leaves_no_large_buffer() {
        let mut bytes = encode(&event(4 * KEPT)).unwrap();
        bytes.extend(encode(&event(1)).unwrap());
        let mut reader = FrameReader::new(bytes.as_slice(), IDLE, TOTAL);
        assert_eq!(reader.next().await.unwrap(), Some(event(4 * KEPT)));
        assert_eq!(reader.next().await.unwrap(), Some(event(1)));
        assert!(
            reader.buffer.capacity() <= KEPT,
            "{}",
            reader.buffer.capacity()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn between_frames_there_is_no_limit() {
        let (mut guest, host) = duplex(1 << 16);
        let frame = encode(&event(1)).unwrap();
        let guest = tokio::spawn(async move {
            for _ in 0..3 {
                sleep(Duration::from_secs(1_000_000)).await;
                guest.write_all(&frame).await.unwrap();
            }
        });
        let mut reader = reader(host);
        for _ in 0..3 {
            assert_eq!(reader.next().await.unwrap(), Some(event(1)));
        }
        assert!(reader.next().await.unwrap().is_none());
        guest.await.unwrap();
    }

    /// A guest that sends one byte of a frame every `pause`, and how long the host bears it.
    async fn bears(pause: Duration, length: usize) -> Result<(), (usize, Duration)> {
        let (mut guest, host) = duplex(1 << 16);
        let frame = encode(&event(length)).unwrap();
        let guest = tokio::spawn(async move {
            for byte in frame {
                if guest.write_all(&[byte]).await.is_err() {
                    return;
                }
                sleep(pause).await;
            }
        });
        let read = reader(host).next().await;
        guest.abort();
        match read {
            Ok(_) => Ok(()),
            Err(ReadError::Stalled { received, waited }) => Err((received, waited)),
            Err(error) => panic!("{error:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn inside_a_frame_there_are_two_limits() {
        let second = Duration::from_secs(1);
        assert_eq!(bears(second, 1).await, Ok(()));
        assert_eq!(bears(31 * second, 1).await, Err((1, 30 * second)));
        // 120 s come before the 50th byte: each byte is in time, the frame isn't.
        let (received, waited) = bears(29 * second, 50).await.unwrap_err();
        assert_eq!((received, waited), (5, 120 * second));
    }

    #[tokio::test(start_paused = true)]
    async fn the_rest_of_a_frame_that_came_with_another_is_limited_too() {
        let (mut guest, host) = duplex(1 << 16);
        let mut bytes = encode(&event(1)).unwrap();
        bytes.push(0);
        guest.write_all(&bytes).await.unwrap();
        let mut reader = reader(host);
        assert!(reader.next().await.unwrap().is_some());
        assert!(matches!(
            reader.next().await,
            Err(ReadError::Stalled { received: 1, .. })
        ));
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_frames(
            lengths in prop::collection::vec(0_usize..300, 0..8),
            pieces in prop::collection::vec(1_usize..64, 1..64),
        ) {
            let frames: Vec<_> = lengths.into_iter().map(event).collect();
            let bytes: Vec<u8> = frames.iter().flat_map(|frame| encode(frame).unwrap()).collect();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let read = runtime.block_on(async {
                let (mut guest, host) = duplex(1 << 16);
                tokio::spawn(async move {
                    let (mut rest, mut pieces) = (bytes.as_slice(), pieces.iter().cycle());
                    while !rest.is_empty() {
                        let (piece, after) = rest.split_at((*pieces.next().unwrap()).min(rest.len()));
                        guest.write_all(piece).await.unwrap();
                        tokio::task::yield_now().await;
                        rest = after;
                    }
                });
                let (mut reader, mut read) = (reader(host), Vec::new());
                while let Some(frame) = reader.next().await.unwrap() {
                    read.push(frame);
                }
                read
            });
            prop_assert_eq!(read, frames);
        }

        #[test]
        fn any_bytes_end_in_a_typed_way(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            runtime.block_on(read_all(&bytes));
        }
    }
}
