//! Writes responses with the bytes that a VMM sends: no reason phrase, no date, and the header lines of a VMM.

use super::cassette::{RecordedResponse, ResponseBody};

/// Returns the header lines that a VMM sends with every answer, except `Content-Length`.
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

/// The interim response of a VMM to `Expect: 100-continue`, as read from v53.0.
pub(super) const CONTINUE: &[u8] =
    b"HTTP/1.1 100 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n\r\n";

/// Returns an error in the form that a VMM uses, for a request that did not reach a VMM.
pub(super) fn refusal(status: u16, lines: Vec<String>) -> Vec<u8> {
    RecordedResponse {
        status,
        headers: None,
        body: ResponseBody::Json(lines.into()),
    }
    .to_bytes()
}

impl ResponseBody {
    /// Returns the bytes of the body.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            ResponseBody::Empty => Vec::new(),
            ResponseBody::Json(json) => json.to_string().into_bytes(),
            ResponseBody::Text(text) => text.clone().into_bytes(),
        }
    }
}

impl RecordedResponse {
    /// Returns the bytes of this response, in the form in which a VMM writes it: no reason phrase after the status, the
    /// header lines of a VMM, and `Content-Length` unless the status is 204.
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
    use super::super::wire::Reader;
    use super::*;

    /// The expected bytes were read from a VMM of v53.0.
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
