//! [`RawConnection`]: calls of a VMM's API, written as bytes on one kept-alive connection.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use chv_sandbox::client::Client;

use super::Outcome;

pub(crate) struct RawConnection(UnixStream);

impl RawConnection {
    /// Connects to the VMM that `client` reaches.
    pub(crate) fn open(client: &Client) -> Outcome<RawConnection> {
        Ok(RawConnection(UnixStream::connect(client.address().path())?))
    }

    pub(crate) fn delete(&mut self) -> Outcome<()> {
        self.call("PUT", "vm.delete", "")
    }

    /// Restores the snapshot in `folder`, paused.
    pub(crate) fn restore(&mut self, folder: &Path) -> Outcome<()> {
        let body = format!(r#"{{"source_url":"file://{}"}}"#, folder.display());
        self.call("PUT", "vm.restore", &body)
    }

    pub(crate) fn resume(&mut self) -> Outcome<()> {
        self.call("PUT", "vm.resume", "")
    }

    pub(crate) fn info(&mut self) -> Outcome<()> {
        self.call("GET", "vm.info", "")
    }

    fn call(&mut self, method: &str, operation: &str, body: &str) -> Outcome<()> {
        let length = body.len();
        let request = format!(
            "{method} /api/v1/{operation} HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        self.0.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        let mut piece = [0; 8192];
        while !is_whole(&answer) {
            match self.0.read(&mut piece)? {
                0 => return Err("the VMM closed the connection".into()),
                read => answer.extend_from_slice(&piece[..read]),
            }
        }
        match answer.starts_with(b"HTTP/1.1 20") {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&answer).into()),
        }
    }
}

fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let mut lines = head.lines().filter_map(|line| line.split_once(':'));
    let length = lines.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length = length.map_or(Some(0), |(_, value)| value.trim().parse().ok());
    length.is_none_or(|length| body.len() >= length)
}
