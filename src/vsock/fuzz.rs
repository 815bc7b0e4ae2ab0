//! Fuzz targets for the bytes that a guest or a VMM sends to the host.

use std::cell::RefCell;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use tokio::runtime::Runtime;

use super::codec::FrameReader;
use super::handshake;
use super::run::{RUN_TO_HOST, RunRecord, RunStream};
use super::stream::RecordStream;
use super::{Origin, Violation};
use crate::guest::frame::{encode, read_frame};
use crate::guest::protocol::{FrameType, StdinMode};

/// A limit that is never reached, since each stream has all of its bytes from the start.
const LIMIT: Duration = Duration::from_secs(600);

thread_local! {
    static RUNTIME: RefCell<Runtime> = RefCell::new(
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime"),
    );
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    RUNTIME.with_borrow_mut(|runtime| runtime.block_on(future))
}

/// Reads the frames that a guest sends on the channel. Each frame must be the same after it is encoded and decoded once
/// more.
pub(crate) fn frames_to_host(bytes: &[u8]) {
    let admit = |frame_type: FrameType, _: usize| {
        let frame = frame_type.name();
        frame_type
            .limit_at_host()
            .ok_or(Violation::WrongDirection { frame })
    };
    block_on(async {
        let mut reader = FrameReader::new(bytes, LIMIT, LIMIT);
        while let Ok(Some(frame)) = reader.next(&admit).await {
            let written = encode(&frame).expect("a frame that was read is not too large");
            let again = read_frame(&mut &written[..]).expect("an encoded frame can be read");
            assert_eq!(again, Some(frame));
        }
    });
}

/// A stream that holds these bytes and then ends.
fn stream_of(bytes: &[u8]) -> tokio::net::UnixStream {
    let (ours, mut theirs) = UnixStream::pair().expect("a pair of sockets");
    theirs.set_nonblocking(true).expect("non-blocking");
    // Bytes for which the socket has no room are left out.
    let _ = theirs.write(bytes);
    ours.set_nonblocking(true).expect("non-blocking");
    tokio::net::UnixStream::from_std(ours).expect("a stream")
}

/// Reads a VMM's reply to `CONNECT`. Only `OK <port>` may be accepted, and no byte after the line may be read.
pub(crate) fn handshake(bytes: &[u8]) {
    let line = bytes.split_inclusive(|byte| *byte == b'\n').next();
    let line = line.unwrap_or_default();
    block_on(async {
        let mut stream = stream_of(bytes);
        let mut reply = Vec::new();
        let read = handshake::read_reply(&mut stream, &mut reply).await;
        let taken = read.is_ok() && handshake::is_ok(&reply);
        let text = std::str::from_utf8(line).unwrap_or_default();
        let port = text
            .strip_prefix("OK ")
            .and_then(|rest| rest.strip_suffix('\n'))
            .filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
        let expected = line.len() <= handshake::MAX_REPLY
            && port.is_some_and(|port| port.parse::<u32>().is_ok());
        assert_eq!(taken, expected, "{}", line.escape_ascii());
        if taken {
            let mut rest = vec![0; bytes.len()];
            let count = stream.try_read(&mut rest).unwrap_or(0);
            assert_eq!(rest[..count], bytes[line.len()..line.len() + count]);
        }
    });
}

/// Reads the records of a run. If its end is accepted, the totals must be those of the streams.
pub(crate) fn run_records(bytes: &[u8]) {
    block_on(async {
        let origin = Origin::next(Path::new("fuzzer").into(), 0);
        let stream = RecordStream::on(stream_of(bytes), origin, &RUN_TO_HOST, &[]);
        let mut run = RunStream::nameless(stream, StdinMode::None, b"{}", "run".to_owned());
        let mut came = [0; 2];
        loop {
            match run.output.next().await {
                Ok(RunRecord::Output { stream, bytes }) => came[stream as usize] += bytes.len(),
                Ok(RunRecord::End(end)) => {
                    let said = [end.stdout_total, end.stderr_total];
                    assert!(end.cut || said == came.map(|bytes| bytes as u64));
                    return;
                }
                Err(_) => return,
            }
        }
    });
}
