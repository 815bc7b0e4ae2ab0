//! HTTP as a stand-in for a VMM speaks it.

use std::io::{self, BufRead, Write};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

/// Answers at one byte a second until the client closes.
pub(super) fn answer_slowly(stream: &mut UnixStream) -> io::Result<()> {
    for byte in b"HTTP/1.1 200 \r\nContent-Length: 100\r\n\r\n"
        .iter()
        .cycle()
    {
        stream.write_all(&[*byte])?;
        thread::sleep(Duration::from_secs(1));
    }
    Ok(())
}

/// The last part of the path, and the body. `None` at the end of the connection.
pub(super) fn read_request(reader: &mut impl BufRead) -> io::Result<Option<(String, String)>> {
    let mut operation = None;
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let line = line.trim_end().to_ascii_lowercase();
        match (&operation, line.strip_prefix("content-length: ")) {
            (None, _) => {
                let path = line.split(' ').nth(1).ok_or(io::ErrorKind::InvalidData)?;
                operation = path.rsplit('/').next().map(str::to_owned);
            }
            (_, Some(value)) => length = value.parse().map_err(io::Error::other)?,
            _ if line.is_empty() => break,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let body = String::from_utf8(body).map_err(io::Error::other)?;
    Ok(operation.map(|operation| (operation, body)))
}
