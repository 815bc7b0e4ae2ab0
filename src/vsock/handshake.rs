//! The hybrid-vsock handshake, tried again while the guest comes up.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout};

use super::{ChannelConfig, Error, HandshakeError};
use crate::causes::Causes;
use crate::limits::TimeLimits;

/// The longest path that an address of a Unix socket holds, its closing NUL aside.
const MAX_SOCKET_PATH: usize = 107;

/// The longest reply, its newline included: `OK 4294967295\n` has 14 bytes.
pub(super) const MAX_REPLY: usize = 31;

/// The pauses between attempts that failed fast: the first, and what doubling it stops at.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// Connects to the guest's port. Failed attempts are repeated until `boot` of the limits has passed.
///
/// While the guest comes up there may be no socket yet, no listener, no reply, or a connection that the VMM closes
/// after some seconds, before the reply or inside it. All of these are tried again. A path that is too long, a socket
/// that may not be used, and bytes that can't be the beginning of a reply are final.
pub(super) async fn connect(config: &ChannelConfig) -> Result<UnixStream, Error> {
    let TimeLimits {
        boot, handshake, ..
    } = config.limits;
    let begin = Instant::now();
    let mut attempts = 0;
    let failed = |attempts, source| Error::Handshake {
        socket: config.socket.name().to_owned(),
        port: config.port,
        attempts,
        elapsed: begin.elapsed(),
        source,
    };
    let bytes = config.socket.path().as_os_str().as_bytes().len();
    if bytes > MAX_SOCKET_PATH {
        return Err(failed(attempts, HandshakeError::PathTooLong { bytes }));
    }
    let mut pause = PAUSES.0;
    let mut earlier = None;
    loop {
        let limit = handshake.min(boot.saturating_sub(begin.elapsed()));
        attempts += 1;
        let cause = match attempt(config.socket.path(), config.port, limit).await {
            Ok(stream) => return Ok(stream),
            // An attempt that the end of all attempts cut short says less than the one before it.
            Err(cause @ HandshakeError::NoReply { .. }) if limit < handshake => {
                earlier.take().unwrap_or(cause)
            }
            Err(cause) => cause,
        };
        tracing::trace!(
            socket = ?config.socket, port = config.port, attempts, error = %Causes(&cause),
            "no channel yet"
        );
        if !may_pass(&cause) || begin.elapsed() + pause >= boot {
            return Err(failed(attempts, cause));
        }
        earlier = Some(cause);
        sleep(pause).await;
        pause = PAUSES.1.min(pause * 2);
    }
}

/// Connects to the port of a guest that is up: nothing but a full backlog of the socket's listener is tried again.
pub(super) async fn connect_once(
    config: &ChannelConfig,
    limit: Duration,
) -> Result<UnixStream, Error> {
    let begin = Instant::now();
    let mut attempts = 0;
    loop {
        attempts += 1;
        let left = limit.saturating_sub(begin.elapsed());
        let source = match attempt(config.socket.path(), config.port, left).await {
            Ok(stream) => return Ok(stream),
            Err(source) => source,
        };
        let is_full = matches!(
            &source,
            HandshakeError::Connect(error) if error.kind() == io::ErrorKind::WouldBlock
        );
        if !is_full || begin.elapsed() + PAUSES.0 >= limit {
            return Err(Error::Handshake {
                socket: config.socket.name().to_owned(),
                port: config.port,
                attempts,
                elapsed: begin.elapsed(),
                source,
            });
        }
        sleep(PAUSES.0).await;
    }
}

/// Whether the same attempt may succeed a little later.
fn may_pass(cause: &HandshakeError) -> bool {
    match cause {
        HandshakeError::Connect(error) => matches!(
            error.kind(),
            // The last two: a listener that is going away, and one whose backlog is full.
            io::ErrorKind::NotFound
                | io::ErrorKind::ConnectionRefused
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::WouldBlock
        ),
        HandshakeError::Stream(_)
        | HandshakeError::ClosedSilently
        | HandshakeError::CutReply { .. }
        | HandshakeError::NoReply { .. } => true,
        HandshakeError::PathTooLong { .. } | HandshakeError::BadReply { .. } => false,
    }
}

/// One connection and its handshake, within `limit`.
async fn attempt(socket: &Path, port: u32, limit: Duration) -> Result<UnixStream, HandshakeError> {
    // Outside of the future that the limit drops: what has come decides whether another attempt makes sense.
    let mut reply = Vec::with_capacity(MAX_REPLY);
    let failure = match timeout(limit, shake_hands(socket, port, &mut reply)).await {
        Ok(Ok(stream)) if is_ok(&reply) => return Ok(stream),
        Ok(Ok(_)) => return Err(bad_reply(&reply)),
        Ok(Err(failure)) => failure,
        Err(_) => HandshakeError::NoReply { limit },
    };
    match may_become_ok(&reply) {
        true => Err(failure),
        false => Err(bad_reply(&reply)),
    }
}

/// Sends the line and reads the reply into `reply`: up to its newline, or [`MAX_REPLY`] bytes of it, and not one byte
/// more, because frames may follow at once.
async fn shake_hands(
    socket: &Path,
    port: u32,
    reply: &mut Vec<u8>,
) -> Result<UnixStream, HandshakeError> {
    let failed = |error| HandshakeError::Stream(Arc::new(error));
    let mut stream = UnixStream::connect(socket)
        .await
        .map_err(|error| HandshakeError::Connect(Arc::new(error)))?;

    // Some releases crash when a client closes before the line's end. A connection that has just come about takes
    // the whole line, and there is no point in between where this future could be dropped.
    let line = format!("CONNECT {port}\n");
    let written = match stream.try_write(line.as_bytes()) {
        Ok(written) => written,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
        Err(error) => return Err(failed(error)),
    };
    stream
        .write_all(&line.as_bytes()[written..])
        .await
        .map_err(failed)?;
    read_reply(&mut stream, reply).await?;
    Ok(stream)
}

/// Reads the reply into `reply`; see [`shake_hands`].
pub(super) async fn read_reply(
    stream: &mut UnixStream,
    reply: &mut Vec<u8>,
) -> Result<(), HandshakeError> {
    while !reply.ends_with(b"\n") && reply.len() < MAX_REPLY {
        let mut byte = [0];
        let read = stream.read(&mut byte).await;
        match read.map_err(|error| HandshakeError::Stream(Arc::new(error)))? {
            0 if reply.is_empty() => return Err(HandshakeError::ClosedSilently),
            0 => {
                return Err(HandshakeError::CutReply { reply: text(reply) });
            }
            _ => reply.push(byte[0]),
        }
    }
    Ok(())
}

/// Whether a line is `OK <port>`.
pub(super) fn is_ok(line: &[u8]) -> bool {
    let port = line
        .strip_prefix(b"OK ")
        .and_then(|rest| rest.strip_suffix(b"\n"));
    port.is_some_and(|port| {
        port.iter().all(u8::is_ascii_digit)
            && std::str::from_utf8(port).is_ok_and(|port| port.parse::<u32>().is_ok())
    })
}

/// Whether more bytes could make a reply of these, which have no newline yet.
fn may_become_ok(start: &[u8]) -> bool {
    const OK: &[u8] = b"OK ";
    match start.strip_prefix(OK) {
        Some(b"") => true,
        Some(port) => is_ok(&[OK, port, b"\n"].concat()),
        None => OK.starts_with(start),
    }
}

fn bad_reply(reply: &[u8]) -> HandshakeError {
    HandshakeError::BadReply { reply: text(reply) }
}

fn text(reply: &[u8]) -> String {
    String::from_utf8_lossy(reply).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ok_and_a_port_is_a_reply() {
        let check = |line: &[u8], expected| {
            assert_eq!(is_ok(line), expected, "{}", line.escape_ascii());
        };
        check(b"OK 1073741824\n", true);
        check(b"OK 0\n", true);
        check(b"OK 4294967295\n", true);
        check(b"OK 4294967296\n", false);
        check(b"OK \n", false);
        check(b"OK\n", false);
        check(b"OK +1\n", false);
        check(b"OK 1 \n", false);
        check(b"OK  1\n", false);
        check(b"ok 1\n", false);
        check(b"OK 1\r\n", false);
        check(b"OK 1", false);
        check(b"OK \xff\n", false);
        check(b"\n", false);
    }

    #[test]
    fn every_beginning_of_a_reply_may_become_one() {
        let check = |start: &[u8], expected| {
            assert_eq!(may_become_ok(start), expected, "{}", start.escape_ascii());
        };
        let reply = b"OK 4294967295";
        for length in 0..=reply.len() {
            check(&reply[..length], true);
        }
        check(b"OK 4294967296", false);
        check(b"OK 12x", false);
        check(b"OK -", false);
        check(b"OK  ", false);
        check(b"OKAY", false);
        check(b"o", false);
        check(b"HTTP/1.1 4", false);
        check(b"\xff", false);
    }
}
