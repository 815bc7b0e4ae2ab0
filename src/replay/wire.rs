//! [`Reader`] reads HTTP/1.1 messages as a VMM writes them: heads, and bodies with a length, within limits on size.
//!
//! This is not hyper, because a recording must have the bytes that a VMM sends: an empty reason phrase, no date, and a
//! body that may not have the form that its `Content-Type` names.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

const MAX_HEAD: usize = 16 * 1024;
const MAX_BODY: usize = 16 * 1024 * 1024;
const MAX_HEADERS: usize = 64;

/// The head of a request whose body may not have come yet. The bytes of the head are at the front of the reader's
/// buffer.
#[derive(Debug)]
pub(super) struct RequestHead {
    pub(super) method: String,
    pub(super) path: String,
    /// The length of the body, in bytes.
    pub(super) body: usize,
    /// Whether the head has `Expect`: the client may then wait for an interim response before it sends the body.
    pub(super) expects: bool,
    /// The length of the head, in bytes.
    bytes: usize,
}

/// A request, with its bytes.
#[derive(Debug, PartialEq)]
pub(crate) struct RawRequest {
    pub(super) method: String,
    pub(super) path: String,
    pub(crate) body: Vec<u8>,
    /// All bytes of the request, to be passed on.
    pub(super) bytes: Vec<u8>,
}

/// A response, with its bytes.
#[derive(Debug, PartialEq)]
pub(crate) struct RawResponse {
    pub(crate) status: u16,
    /// The header lines except `Content-Length`.
    pub(super) headers: Vec<String>,
    pub(crate) body: Vec<u8>,
    /// All bytes of the response, to be passed on.
    pub(super) bytes: Vec<u8>,
}

impl RawResponse {
    /// Whether this is an interim response and the answer is still to come (RFC 9110, section 15.2). A response with
    /// status 101 is not: it is the last one of its connection.
    pub(super) fn is_interim(&self) -> bool {
        matches!(self.status, 100..=199) && self.status != SWITCHING_PROTOCOLS
    }
}

/// The status after which a connection no longer carries HTTP.
pub(super) const SWITCHING_PROTOCOLS: u16 = 101;

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

    /// Reads the head of the next request. `None` if the stream ends before a request begins.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` if the stream ends within a head. `InvalidData` if the head is not HTTP/1.1, if its body has no
    /// length, or if either is too large.
    pub(super) async fn request_head(&mut self) -> io::Result<Option<RequestHead>> {
        loop {
            let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
            let mut request = httparse::Request::new(&mut headers);
            if let httparse::Status::Complete(bytes) =
                request.parse(&self.buffer).map_err(invalid)?
            {
                return Ok(Some(RequestHead {
                    method: request.method.unwrap_or_default().to_owned(),
                    path: request.path.unwrap_or_default().to_owned(),
                    body: content_length(request.headers)?.unwrap_or(0),
                    expects: (request.headers.iter())
                        .any(|header| header.name.eq_ignore_ascii_case("expect")),
                    bytes,
                }));
            }
            if !self.more_of_head().await? {
                return Ok(None);
            }
        }
    }

    /// Returns the bytes of a head that was just read.
    pub(super) fn bytes_of(&self, head: &RequestHead) -> &[u8] {
        &self.buffer[..head.bytes]
    }

    /// Whether the whole body has come.
    pub(super) fn has_body_of(&self, head: &RequestHead) -> bool {
        self.buffer.len() >= head.bytes + head.body
    }

    /// Waits until the whole body has come. This may be cancelled: no bytes are lost.
    pub(super) async fn await_body(&mut self, head: &RequestHead) -> io::Result<()> {
        self.fill(head.bytes + head.body).await
    }

    /// Reads the rest of the request whose head was just read.
    pub(super) async fn rest_of(&mut self, head: RequestHead) -> io::Result<RawRequest> {
        let (body, bytes) = self.message(head.bytes, head.body).await?;
        Ok(RawRequest {
            method: head.method,
            path: head.path,
            body,
            bytes,
        })
    }

    /// Reads the next response that is not an interim one. Interim responses are skipped. Otherwise as
    /// [`response`](Reader::response).
    #[cfg(feature = "compat")]
    pub(crate) async fn answer(&mut self) -> io::Result<Option<RawResponse>> {
        loop {
            match self.response().await? {
                Some(response) if response.is_interim() => {}
                answer => return Ok(answer),
            }
        }
    }

    /// Reads the next response, which may be an interim one. `None` if the stream ends before a response begins. This
    /// may be cancelled: no bytes are lost. The errors are those of [`request_head`](Reader::request_head).
    pub(super) async fn response(&mut self) -> io::Result<Option<RawResponse>> {
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
                let length = match status {
                    // These responses have no body, whatever length their head gives (RFC 9112, section 6.3).
                    100..=199 | 204 | 304 => 0,
                    // A response without a length has no body: a VMM never marks the end of a body by closing the
                    // connection.
                    _ => content_length(response.headers)?.unwrap_or(0),
                };
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

    /// Reads more of a head. Returns `false` if the stream ended before the head began.
    async fn more_of_head(&mut self) -> io::Result<bool> {
        if self.buffer.len() > MAX_HEAD {
            return Err(invalid(format!("the head is larger than {MAX_HEAD} bytes")));
        }
        match self.stream.read_buf(&mut self.buffer).await? {
            0 if self.buffer.is_empty() => Ok(false),
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(true),
        }
    }

    /// Takes a message whose head is in the buffer. Returns its body, and all of its bytes.
    async fn message(&mut self, head: usize, length: usize) -> io::Result<(Vec<u8>, Vec<u8>)> {
        let end = head + length;
        self.fill(end).await?;
        let rest = self.buffer.split_off(end);
        let bytes = std::mem::replace(&mut self.buffer, rest);
        Ok((bytes[head..].to_vec(), bytes))
    }

    /// Reads until the buffer has `length` bytes.
    async fn fill(&mut self, length: usize) -> io::Result<()> {
        while self.buffer.len() < length {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }
}

fn content_length(headers: &[httparse::Header<'_>]) -> io::Result<Option<usize>> {
    let mut length = None;
    for header in headers {
        if header.name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(invalid("the message has `Transfer-Encoding` and no length"));
        }
        if header.name.eq_ignore_ascii_case("content-length") {
            let value = std::str::from_utf8(header.value).map_err(invalid)?;
            let value = value.parse().map_err(invalid)?;
            if value > MAX_BODY {
                return Err(invalid(format!("the body is larger than {MAX_BODY} bytes")));
            }
            if length.replace(value).is_some_and(|other| other != value) {
                return Err(invalid("the message has two different lengths"));
            }
        }
    }
    Ok(length)
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use super::super::response::CONTINUE;
    use super::*;

    /// Reads requests from a stream that returns one byte at a time.
    async fn requests(text: &str) -> io::Result<Vec<RawRequest>> {
        let mut all = Vec::new();
        let bytes: Vec<_> = text
            .bytes()
            .map(|byte| Ok::<_, io::Error>(vec![byte]))
            .collect();
        let mut stream = tokio_test_stream(bytes);
        let mut reader = Reader::new(&mut stream);
        while let Some(head) = reader.request_head().await? {
            all.push(reader.rest_of(head).await?);
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
    async fn pipelined_requests_are_read_one_by_one() {
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
    async fn a_cut_or_malformed_request_is_an_error() {
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

    #[tokio::test]
    async fn interim_responses_are_no_answer() {
        const ANSWER: &str = "HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\n{}";
        let check = async |interim: &str, statuses: &[u16], rest: &str| {
            let bytes = format!("{interim}{ANSWER}").into_bytes();
            let chunks = bytes.into_iter().map(|byte| Ok(vec![byte])).collect();
            let mut reader = Reader::new(tokio_test_stream(chunks));
            for status in statuses {
                let response = reader.response().await.unwrap().unwrap();
                assert_eq!(response.status, *status, "{interim:?}");
                assert!(response.is_interim() && response.body.is_empty());
            }
            let answer = reader.answer().await.unwrap().unwrap();
            assert_eq!(String::from_utf8_lossy(&answer.bytes), rest, "{interim:?}");
            assert!(!answer.is_interim());
        };
        let switch = "HTTP/1.1 101 \r\nUpgrade: x\r\n\r\n";
        let hints = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\nContent-Length: 400\r\n\r\n";
        let more = "HTTP/1.1 100 \r\n\r\n";
        check("", &[], ANSWER).await;
        check(more, &[100], ANSWER).await;
        check(more, &[], ANSWER).await;
        check(&[more, hints, more].concat(), &[100, 103], ANSWER).await;
        check("HTTP/1.1 199 \r\n\r\n", &[], ANSWER).await;
        check(&[more, switch].concat(), &[100], switch).await;
        check(std::str::from_utf8(CONTINUE).unwrap(), &[100], ANSWER).await;
    }

    #[tokio::test]
    async fn a_response_without_a_body_ends_with_its_head() {
        for status in ["204", "304"] {
            let head = format!("HTTP/1.1 {status} \r\nContent-Length: 400\r\n\r\n");
            let mut reader = Reader::new(head.as_bytes());
            let answer = reader.answer().await.unwrap().unwrap();
            assert_eq!(answer.bytes, head.as_bytes());
            assert!(reader.answer().await.unwrap().is_none());
        }
    }
}
