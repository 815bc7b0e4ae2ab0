use proptest::prelude::*;
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
use tokio::time::sleep;

use super::*;
use crate::guest::frame::encode;
use crate::guest::protocol::{ErrorEvent, MAX_FRAME, ToolResult};

const IDLE: Duration = Duration::from_secs(30);
const TOTAL: Duration = Duration::from_secs(120);

fn event(message: usize) -> Frame {
    Frame::ErrorEvent(ErrorEvent {
        code: "C".to_owned(),
        message: "m".repeat(message),
    })
}

/// Allows every type up to the largest frame.
fn any_type(_: FrameType, _: usize) -> Result<usize, Violation> {
    Ok(MAX_FRAME)
}

/// Allows the types that a host receives, up to their limits.
fn host(frame_type: FrameType, _: usize) -> Result<usize, Violation> {
    let limit = frame_type.limit_at_host();
    limit.ok_or(Violation::WrongDirection {
        frame: frame_type.name(),
    })
}

fn reader(stream: DuplexStream) -> FrameReader<DuplexStream> {
    FrameReader::new(stream, IDLE, TOTAL)
}

/// Reads all frames of `bytes`. Returns their number, and the error if there was one.
async fn read_all(bytes: &[u8]) -> (usize, Option<ReadError>) {
    let mut reader = FrameReader::new(bytes, IDLE, TOTAL);
    let mut frames = 0;
    loop {
        match reader.next(&any_type).await {
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
        reader.next(&any_type).await,
        Err(ReadError::Torn { received: 5 })
    ));
    assert!(
        reader.buffer.capacity() <= 4 * READ_STEP,
        "{}",
        reader.buffer.capacity()
    );
}

/// Checks that a frame of `length` bytes is refused after its head, although the rest never comes.
#[tokio::test]
async fn a_frame_that_is_not_allowed_is_refused_at_its_head() {
    let check = async |head: &str, length: usize, expected: fn(&ReadError) -> bool| {
        let (mut guest, stream) = duplex(1 << 16);
        let length = u32::try_from(length).unwrap();
        guest.write_all(&length.to_be_bytes()).await.unwrap();
        guest.write_all(head.as_bytes()).await.unwrap();
        let mut reader = reader(stream);
        let error = reader.next(&host).await.unwrap_err();
        assert!(expected(&error), "{head}: {error:?}");
        assert!(reader.buffer.capacity() <= 2 * READ_STEP);
    };
    check("{\"type\":\"ToolDispatch\"", MAX_FRAME, |error| {
        matches!(
            error,
            ReadError::Refused(Violation::WrongDirection {
                frame: "ToolDispatch"
            })
        )
    })
    .await;
    check("{\"type\":\"Hello\",", (64 << 10) + 1, |error| {
        matches!(
            error,
            ReadError::TooLarge {
                limit: 0x1_0000,
                ..
            }
        )
    })
    .await;
    check("{\"type\":\"EvidenceChunk\",", (3 << 19) + 1, |error| {
        matches!(
            error,
            ReadError::TooLarge {
                limit: 0x18_0000,
                ..
            }
        )
    })
    .await;
    check("{\"type\":\"Nonsense\"", MAX_FRAME, |error| {
        matches!(error, ReadError::Decode(DecodeError::UnknownType { .. }))
    })
    .await;
}

/// A type that isn't the first field is found once the frame has come, and the same rules apply.
#[tokio::test]
async fn a_frame_that_is_not_allowed_is_refused_wherever_its_type_stands() {
    let check = async |body: String, expected: fn(&ReadError) -> bool| {
        let mut bytes = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
        bytes.extend(body.as_bytes());
        let mut reader = FrameReader::new(bytes.as_slice(), IDLE, TOTAL);
        let error = reader.next(&host).await.unwrap_err();
        assert!(expected(&error), "{error:?}");
    };
    check("{\"x\":1,\"type\":\"Renew\"}".to_owned(), |error| {
        matches!(error, ReadError::Refused(_))
    })
    .await;
    let long = "x".repeat(64 << 10);
    let body = format!("{{\"code\":\"{long}\",\"type\":\"ErrorEvent\",\"message\":\"\"}}");
    check(body, |error| matches!(error, ReadError::TooLarge { .. })).await;
}

#[tokio::test]
async fn the_buffer_of_a_whole_frame_is_no_larger_than_it() {
    let length = MAX_FRAME - READ_STEP;
    let mut bytes = u32::try_from(MAX_FRAME).unwrap().to_be_bytes().to_vec();
    bytes.resize(HEADER + length, b' ');
    let mut reader = FrameReader::new(bytes.as_slice(), IDLE, TOTAL);
    assert!(matches!(
        reader.next(&any_type).await,
        Err(ReadError::Torn { .. })
    ));
    let capacity = reader.buffer.capacity();
    assert!(capacity <= MAX_FRAME + 2 * READ_STEP, "{capacity}");
}

#[tokio::test]
async fn the_buffer_of_a_large_frame_is_freed_after_it() {
    let large = Frame::ToolResult(ToolResult {
        command_id: "c1".to_owned(),
        exit_code: 0,
        stdout: "x".repeat(4 * KEPT),
        stderr: String::new(),
        evidence_hash: None,
        details: None,
    });
    let mut bytes = encode(&large).unwrap();
    bytes.extend(encode(&event(1)).unwrap());
    let mut reader = FrameReader::new(bytes.as_slice(), IDLE, TOTAL);
    assert_eq!(reader.next(&any_type).await.unwrap(), Some(large));
    assert_eq!(reader.next(&any_type).await.unwrap(), Some(event(1)));
    assert!(
        reader.buffer.capacity() <= KEPT,
        "{}",
        reader.buffer.capacity()
    );
}

#[tokio::test(start_paused = true)]
async fn waiting_between_frames_has_no_limit() {
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
        assert_eq!(reader.next(&any_type).await.unwrap(), Some(event(1)));
    }
    assert!(reader.next(&any_type).await.unwrap().is_none());
    guest.await.unwrap();
}

/// Reads a frame of which the guest sends one byte every `pause`. An error has the number of bytes and the time until
/// then.
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
    let read = reader(host).next(&any_type).await;
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
    // Each byte comes in time, but 120 s are over before the 50th byte, so the frame doesn't.
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
    assert!(reader.next(&any_type).await.unwrap().is_some());
    assert!(matches!(
        reader.next(&any_type).await,
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
            while let Some(frame) = reader.next(&any_type).await.unwrap() {
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
