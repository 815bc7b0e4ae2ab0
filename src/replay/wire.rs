//! HTTP/1.1 as a VMM speaks it: heads and bodies with a length, read whole and bounded.
//!
//! Not hyper: a replay must send the bytes that a VMM sends (an empty reason, no date, a body that is not what
//! its type says), and a recording must see them.

use std::convert::Infallible;
use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::cassette::{RecordedResponse, ResponseBody};

const MAX_HEAD: usize = 16 * 1024;
const MAX_BODY: usize = 16 * 1024 * 1024;
const MAX_HEADERS: usize = 64;

/// A request as it was read.
#[derive(Debug, PartialEq)]
pub(crate) struct RawRequest {
    pub(super) method: String,
    pub(super) path: String,
    pub(crate) body: Vec<u8>,
    /// All its bytes, to be passed on.
    pub(super) bytes: Vec<u8>,
}

/// A response as it was read.
#[derive(Debug, PartialEq)]
pub(crate) struct RawResponse {
    pub(crate) status: u16,
    /// The header lines without `Content-Length`.
    pub(super) headers: Vec<String>,
    pub(crate) body: Vec<u8>,
    /// All its bytes, to be passed on.
    pub(super) bytes: Vec<u8>,
}

/// Sends a request and reads its response; `None` when the other end closes before one begins. Errors as for
/// [`Reader::response`].
///
/// Reads while it writes: a VMM answers a body that is too large without reading it to its end, and it may close
/// before that; what it said is still there to be read.
pub(crate) async fn exchange(
    stream: UnixStream,
    request: &[u8],
) -> io::Result<Option<RawResponse>> {
    // The writing half lives on: a VMM loses the response when it is shut.
    let (read, mut write) = stream.into_split();
    let mut reader = Reader::new(read);
    let sending = async {
        let _ = write.write_all(request).await;
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        answer = reader.response() => answer,
        never = sending => match never {},
    }
}

/// Reads messages from a stream, one after the other.
pub(crate) struct Reader<S> {
    stream: S,
    buffer: Vec<u8>,
}

impl<S: AsyncRead + Unpin> Reader<S> {
    pub(crate) fn new(stream: S) -> Self {
        Reader {
            stream,
            buffer: Vec::new(),
        }
    }

    pub(super) fn get_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    /// The next request; `None` when the stream ends before one begins.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` when the stream ends inside one; `InvalidData` when it isn't HTTP/1.1 with a length, or is
    /// too large.
    pub(super) async fn request(&mut self) -> io::Result<Option<RawRequest>> {
        loop {
            let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
            let mut request = httparse::Request::new(&mut headers);
            if let httparse::Status::Complete(head) =
                request.parse(&self.buffer).map_err(invalid)?
            {
                let method = request.method.unwrap_or_default().to_owned();
                let path = request.path.unwrap_or_default().to_owned();
                let length = content_length(request.headers)?.unwrap_or(0);
                let (body, bytes) = self.message(head, length).await?;
                return Ok(Some(RawRequest {
                    method,
                    path,
                    body,
                    bytes,
                }));
            }
            if !self.more_of_head().await? {
                return Ok(None);
            }
        }
    }

    /// The next response; `None` when the stream ends before one begins. Errors as for a request.
    pub(crate) async fn response(&mut self) -> io::Result<Option<RawResponse>> {
        loop {
            let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
            let mut response = httparse::Response::new(&mut headers);
            if let httparse::Status::Complete(head) =
                response.parse(&self.buffer).map_err(invalid)?
            {
                let status = response.code.unwrap_or_default();
                let headers = response
                    .headers
                    .iter()
                    .filter(|header| !header.name.eq_ignore_ascii_case("content-length"))
                    .map(|header| {
                        format!("{}: {}", header.name, String::from_utf8_lossy(header.value))
                    })
                    .collect();
                // Without a length there is no body: a VMM never ends one by closing.
                let length = content_length(response.headers)?.unwrap_or(0);
                let (body, bytes) = self.message(head, length).await?;
                return Ok(Some(RawResponse {
                    status,
                    headers,
                    body,
                    bytes,
                }));
            }
            if !self.more_of_head().await? {
                return Ok(None);
            }
        }
    }

    /// Reads more of a head; `false` at the end of the stream, if nothing of a head was there.
    async fn more_of_head(&mut self) -> io::Result<bool> {
        if self.buffer.len() > MAX_HEAD {
            return Err(invalid("the head is too large"));
        }
        match self.stream.read_buf(&mut self.buffer).await? {
            0 if self.buffer.is_empty() => Ok(false),
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(true),
        }
    }

    /// Takes one message off the buffer, whose head is already there: its body, and all of it.
    async fn message(&mut self, head: usize, length: usize) -> io::Result<(Vec<u8>, Vec<u8>)> {
        let end = head + length;
        while self.buffer.len() < end {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let rest = self.buffer.split_off(end);
        let bytes = std::mem::replace(&mut self.buffer, rest);
        Ok((bytes[head..].to_vec(), bytes))
    }
}

fn content_length(headers: &[httparse::Header<'_>]) -> io::Result<Option<usize>> {
    let mut length = None;
    for header in headers {
        if header.name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(invalid("a body without a length"));
        }
        if header.name.eq_ignore_ascii_case("content-length") {
            let value = std::str::from_utf8(header.value).map_err(invalid)?;
            let value = value.parse().map_err(invalid)?;
            if value > MAX_BODY {
                return Err(invalid("the body is too large"));
            }
            if length.replace(value).is_some_and(|other| other != value) {
                return Err(invalid("two lengths"));
            }
        }
    }
    Ok(length)
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// The header lines that a VMM sends with every answer, without `Content-Length`.
pub(super) fn usual_headers(status: u16) -> &'static [&'static str] {
    const ALL: &[&str] = &[
        "Server: Cloud Hypervisor API",
        "Connection: keep-alive",
        "Content-Type: application/json",
    ];
    match status {
        204 => &ALL[..2],
        _ => ALL,
    }
}

impl ResponseBody {
    /// The body's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            ResponseBody::Empty => Vec::new(),
            ResponseBody::Json(json) => json.to_string().into_bytes(),
            ResponseBody::Text(text) => text.clone().into_bytes(),
        }
    }
}

impl RecordedResponse {
    /// The bytes of this response on the wire.
    ///
    /// As a VMM writes them: no reason beside the status, its own header lines, and a `Content-Length` unless the
    /// status is 204.
    pub fn to_bytes(&self) -> Vec<u8> {
        let body = self.body.to_bytes();
        let mut head = format!("HTTP/1.1 {} \r\n", self.status);
        let mut line = |line: &str| {
            head.push_str(line);
            head.push_str("\r\n");
        };
        match &self.headers {
            Some(headers) => headers.iter().for_each(|header| line(header)),
            None => usual_headers(self.status)
                .iter()
                .for_each(|header| line(header)),
        }
        if self.status != 204 {
            line(&format!("Content-Length: {}", body.len()));
        }
        line("");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(&body);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hands out one byte at a time, the worst way in which a stream may arrive.
    async fn requests(text: &str) -> io::Result<Vec<RawRequest>> {
        let mut all = Vec::new();
        let bytes: Vec<_> = text
            .bytes()
            .map(|byte| Ok::<_, io::Error>(vec![byte]))
            .collect();
        let mut stream = tokio_test_stream(bytes);
        let mut reader = Reader::new(&mut stream);
        while let Some(request) = reader.request().await? {
            all.push(request);
        }
        Ok(all)
    }

    fn tokio_test_stream(chunks: Vec<io::Result<Vec<u8>>>) -> impl AsyncRead + Unpin {
        let (mut write, read) = tokio::io::duplex(1);
        tokio::spawn(async move {
            for chunk in chunks {
                let chunk = chunk.expect("chunks are given");
                if tokio::io::AsyncWriteExt::write_all(&mut write, &chunk)
                    .await
                    .is_err()
                {
                    return;
                }
            }
        });
        read
    }

    #[tokio::test]
    async fn pipelined_requests_come_apart() {
        let found = requests(
            "PUT /a HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}GET /b HTTP/1.1\r\nhost: x\r\n\r\n",
        )
        .await
        .unwrap();
        let seen: Vec<_> = found
            .iter()
            .map(|request| {
                (
                    request.method.as_str(),
                    request.path.as_str(),
                    request.body.as_slice(),
                )
            })
            .collect();
        assert_eq!(seen, [("PUT", "/a", b"{}".as_slice()), ("GET", "/b", b"")]);
    }

    #[tokio::test]
    async fn what_is_cut_or_not_http_is_an_error() {
        use io::ErrorKind::{InvalidData, UnexpectedEof};
        let long = format!("GET /{} HTTP/1.1\r\n", "a".repeat(MAX_HEAD + 1));
        let cases = [
            ("GET /b HTT", UnexpectedEof),
            (
                "PUT /a HTTP/1.1\r\nContent-Length: 2\r\n\r\n{",
                UnexpectedEof,
            ),
            ("\0\0\0\0", InvalidData),
            (
                "PUT /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
                InvalidData,
            ),
            ("PUT /a HTTP/1.1\r\nContent-Length: -1\r\n\r\n", InvalidData),
            (
                "PUT /a HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n",
                InvalidData,
            ),
            (
                "PUT /a HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
                InvalidData,
            ),
            (&long, InvalidData),
        ];
        for (text, expected) in cases {
            let error = requests(text).await.unwrap_err();
            assert_eq!(error.kind(), expected, "{:.40}: {error}", text);
        }
    }

    /// The bytes on the right were read from a v53.0 VMM.
    #[tokio::test]
    async fn responses_have_a_vmms_own_bytes() {
        let response = |status, body| RecordedResponse {
            status,
            headers: None,
            body,
        };
        let cases = [
            (
                response(204, ResponseBody::Empty),
                "HTTP/1.1 204 \r\nServer: Cloud Hypervisor API\r\nConnection: keep-alive\r\n\r\n",
            ),
            (
                response(404, ResponseBody::Json(serde_json::json!(["Not Found"]))),
                "HTTP/1.1 404 \r\nServer: Cloud Hypervisor API\r\nConnection: keep-alive\r\n\
                 Content-Type: application/json\r\nContent-Length: 13\r\n\r\n[\"Not Found\"]",
            ),
            (
                response(400, ResponseBody::Empty),
                "HTTP/1.1 400 \r\nServer: Cloud Hypervisor API\r\nConnection: keep-alive\r\n\
                 Content-Type: application/json\r\nContent-Length: 0\r\n\r\n",
            ),
        ];
        for (response, expected) in cases {
            let bytes = response.to_bytes();
            assert_eq!(String::from_utf8_lossy(&bytes), expected);
            let read = Reader::new(bytes.as_slice())
                .response()
                .await
                .unwrap()
                .unwrap();
            assert_eq!(read.status, response.status);
            assert_eq!(read.headers, usual_headers(response.status));
            assert_eq!(read.body, response.body.to_bytes());
            assert_eq!(read.bytes, bytes);
        }
    }
}
