//! Connects to a guest's port through the VMM's Unix socket (the hybrid-vsock handshake), and repeats failed attempts
//! while the guest boots.

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

/// The longest path in the address of a Unix socket, in bytes, without its NUL byte.
const MAX_SOCKET_PATH: usize = 107;

/// The longest reply that is read, in bytes, including its newline. The longest valid one, `OK 4294967295\n`, has 14
/// bytes.
pub(super) const MAX_REPLY: usize = 31;

/// The first and the longest pause between two attempts. Each pause is twice as long as the one before.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// Connects to the guest's port. Failed attempts are repeated until the limit `boot` has passed.
///
/// While the guest boots, the socket or its listener may be missing, the reply may not come, or the VMM may close the
/// connection after some seconds, before or inside the reply. These attempts are repeated. An attempt isn't repeated if
/// the path is too long, if this process may not use the socket, or if the received bytes can't be the beginning of a
/// reply.
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
            // The overall limit cut this attempt short, so the cause of the attempt before it tells more.
            Err(cause @ HandshakeError::NoReply { .. }) if limit < handshake => {
                earlier.take().unwrap_or(cause)
            }
            Err(cause) => cause,
        };
        tracing::trace!(
            socket = ?config.socket, port = config.port, attempts, error = %Causes(&cause),
            "an attempt to connect to the guest failed"
        );
        if !may_pass(&cause) || begin.elapsed() + pause >= boot {
            return Err(failed(attempts, cause));
        }
        earlier = Some(cause);
        sleep(pause).await;
        pause = PAUSES.1.min(pause * 2);
    }
}

/// Connects to the port of a guest that has booted. An attempt is repeated only if the backlog of the socket's listener
/// is full.
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

/// Whether another attempt may succeed a little later.
fn may_pass(cause: &HandshakeError) -> bool {
    match cause {
        HandshakeError::Connect(error) => matches!(
            error.kind(),
            // ConnectionReset: the listener was just closed. WouldBlock: its backlog is full.
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

/// Makes one connection and its handshake within `limit`.
async fn attempt(socket: &Path, port: u32, limit: Duration) -> Result<UnixStream, HandshakeError> {
    // The reply outlives the future that the limit drops, since its bytes decide whether another attempt makes sense.
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

/// Sends the `CONNECT` line and reads the reply into `reply`: up to its newline, at most [`MAX_REPLY`] bytes. No byte
/// after the newline is read, since frames may follow at once.
async fn shake_hands(
    socket: &Path,
    port: u32,
    reply: &mut Vec<u8>,
) -> Result<UnixStream, HandshakeError> {
    let failed = |error| HandshakeError::Stream(Arc::new(error));
    let mut stream = UnixStream::connect(socket)
        .await
        .map_err(|error| HandshakeError::Connect(Arc::new(error)))?;

    // Some releases of Cloud Hypervisor crash if a client closes the connection inside the line. A new connection takes
    // the whole line at once, and there is no await between connecting and writing at which this future could be
    // dropped.
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

/// Whether a line is `OK <port>` with its newline.
pub(super) fn is_ok(line: &[u8]) -> bool {
    let port = line
        .strip_prefix(b"OK ")
        .and_then(|rest| rest.strip_suffix(b"\n"));
    port.is_some_and(|port| {
        port.iter().all(u8::is_ascii_digit)
            && std::str::from_utf8(port).is_ok_and(|port| port.parse::<u32>().is_ok())
    })
}

/// Whether these bytes, which have no newline yet, can be the beginning of a valid reply.
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
    fn only_ok_and_a_port_is_a_valid_reply() {
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
    fn every_beginning_of_a_valid_reply_is_accepted() {
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
