//! [`Recording`]: passes requests from a client to the VMM and answers back, and records both.

use std::io;
use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use super::cassette::{
    Answer, Cassette, Exchange, RecordedRequest, RecordedResponse, RequestBody, ResponseBody,
    STATUSES,
};
use super::descriptors::{ClientStream, DescriptorsLost};
use super::response::{refusal, usual_headers};
use super::vmm_connection::{First, Reply, VmmConnection};
use super::wire::{RawRequest, RawResponse, Reader, RequestHead, SWITCHING_PROTOCOLS};
use super::{Error, placeholder};
use crate::causes::Causes;
use crate::client::BODY_LIMIT;
use crate::socket::SocketAddress;

/// The state that the connections of one recorder share.
#[derive(Debug)]
pub(super) struct Recording {
    api_socket: SocketAddress,
    /// Pairs of a text and the name of its placeholder, the longest text first.
    placeholders: Vec<(String, String)>,
    recorded: Mutex<Recorded>,
}

#[derive(Debug, Default)]
struct Recorded {
    exchanges: Vec<Exchange>,
    bytes: u64,
    failure: Option<Error>,
}

/// Whether a client's connection stays open after an exchange.
pub(super) enum Connection {
    /// It stays open for another request.
    Kept,
    /// It is to be closed.
    Over,
}

/// An exchange that was passed on, with the reason why a part of it can't be recorded.
struct Passage {
    /// The request: method and path.
    asked: String,
    request: Result<RecordedRequest, &'static str>,
    answer: Result<Answer, &'static str>,
    /// An estimate of its size in the cassette, in bytes.
    size: usize,
    /// The answer for the client. `None` if its connection is to be closed without an answer.
    bytes: Option<Bytes>,
}

/// The bytes of an answer, and whether the connection stays open afterwards.
type Bytes = (Vec<u8>, Connection);

/// The longest time that a VMM may take for an answer. After it the recording fails.
const ANSWER_LIMIT: Duration = Duration::from_secs(10 * 60);

impl Recording {
    /// Records the VMM at `api_socket`. If two placeholders match at a place, the first one in the list is used.
    pub(super) fn new(api_socket: SocketAddress, placeholders: Vec<(String, String)>) -> Recording {
        Recording {
            api_socket,
            placeholders,
            recorded: Mutex::default(),
        }
    }

    /// Aborts `server` and returns the recording. An exchange that has begun is completed first. The recording has all
    /// exchanges, or those before the first one that a cassette can't hold, with the [`Error::Unrecordable`] for that
    /// one.
    pub(super) async fn take(&self, server: &JoinHandle<()>) -> (Vec<Exchange>, Option<Error>) {
        let mut recorded = self.recorded.lock().await;
        server.abort();
        let failure = recorded.failure.take();
        (std::mem::take(&mut recorded.exchanges), failure)
    }

    /// Passes the client's next request to the VMM and the answer back, and records both.
    ///
    /// A request is passed on when it is complete. If the client may wait for an interim response before it sends the
    /// body, the head is passed on first. This does not change the order of the exchanges, because the VMM acts only
    /// when it has the body.
    ///
    /// # Errors
    ///
    /// As [`Reader::request_head`], if the client fails before its request is complete. Nothing is recorded then.
    pub(super) async fn exchange(
        &self,
        client: &mut Reader<ClientStream>,
    ) -> io::Result<Connection> {
        let Some(head) = client.request_head().await? else {
            return Ok(Connection::Over);
        };
        let mut descriptors = 0;
        let mut ahead = None;
        if head.expects && !client.has_body_of(&head) {
            let Some(mut upstream) = self.connect(&head.method, &head.path).await else {
                return Ok(Connection::Over);
            };
            let received = client.get_mut().take_descriptors();
            descriptors = received.len();
            if let First::Answer(reply) = upstream.ask_for_body(client, &head, received).await? {
                let mut recorded = self.recorded.lock().await;
                let passage = Passage::without_body(head, descriptors, reply);
                let answer = self.write_down(&mut recorded, passage);
                drop(recorded);
                answer_with(client, answer).await;
                // The next bytes may be the body that the VMM did not wait for, or another request. They can't be told
                // apart.
                return Ok(Connection::Over);
            }
            ahead = Some(upstream);
        }
        let request = client.rest_of(head).await?;
        let received = client.get_mut().take_descriptors();
        descriptors += received.len();

        // The lock is held until the answer has come. It gives the exchanges their order.
        let mut recorded = self.recorded.lock().await;
        let (mut upstream, bytes) = match ahead {
            Some(upstream) => (upstream, &request.body),
            None => match self.connect(&request.method, &request.path).await {
                Some(upstream) => (upstream, &request.bytes),
                None => return Ok(Connection::Over),
            },
        };
        let answer = upstream.ask(bytes, received, client.get_mut().stream());
        let reply = timeout(ANSWER_LIMIT, answer).await;
        let passage = Passage::of(request, descriptors, reply);
        let answer = self.write_down(&mut recorded, passage);
        drop(recorded);
        Ok(answer_with(client, answer).await)
    }

    /// Makes the recording fail because the descriptors of a request can't be passed on. Returns the answer for the
    /// client.
    pub(super) async fn refuse(&self, lost: &DescriptorsLost) -> Vec<u8> {
        let reason = lost.reason();
        let mut recorded = self.recorded.lock().await;
        recorded.fail("a request with descriptors".to_owned(), reason);
        let lines = ["The recorder did not pass this request on", reason];
        refusal(500, lines.map(str::to_owned).into())
    }

    async fn connect(&self, method: &str, path: &str) -> Option<VmmConnection> {
        match VmmConnection::connect(self.api_socket.path()).await {
            Ok(upstream) => Some(upstream),
            // The VMM has ended.
            Err(error) => {
                tracing::warn!(
                    error = %Causes(&error),
                    %method,
                    %path,
                    "a request was not recorded: the VMM can't be reached"
                );
                None
            }
        }
    }

    /// Records an exchange, and returns the answer for the client, if there is one.
    fn write_down(&self, recorded: &mut Recorded, passage: Passage) -> Option<Bytes> {
        let Passage {
            asked,
            request,
            answer,
            size,
            bytes,
        } = passage;
        recorded.bytes += size as u64;
        let exchange = answer.and_then(|answer| {
            Ok(Exchange {
                request: request?,
                answer,
            })
        });
        let exchange = match exchange {
            // The file is indented, so it may be several times as long as these bytes.
            Ok(_) if recorded.bytes > Cassette::MAX_BYTES / 4 => {
                Err("the cassette would be too large")
            }
            Ok(exchange) => self.stable(exchange),
            Err(reason) => Err(reason),
        };
        match exchange {
            Ok(exchange) if recorded.failure.is_none() => recorded.exchanges.push(exchange),
            // After a failure no exchange is added: with a gap, the recording would be that of another session.
            Ok(_) => {}
            Err(reason) => recorded.fail(asked, reason),
        }
        bytes
    }

    /// Replaces the parts of the exchange that differ from run to run.
    fn stable(&self, mut exchange: Exchange) -> Result<Exchange, &'static str> {
        if exchange.request.path.ends_with("/vmm.ping")
            && let Answer::Response(RecordedResponse {
                body: ResponseBody::Json(Value::Object(ping)),
                ..
            }) = &mut exchange.answer
            && let Some(pid) = ping.get_mut("pid")
        {
            *pid = 1.into();
        }
        let mut ambiguous = false;
        placeholder::rewrite(&mut exchange, &mut |text| {
            ambiguous |= placeholder::has_placeholder(text);
            for (real, name) in &self.placeholders {
                if text.contains(real) {
                    *text = text.replace(real, &format!("${{{name}}}"));
                }
            }
        });
        if ambiguous {
            return Err("a text in it has the form of a placeholder");
        }
        Ok(exchange)
    }
}

impl Recorded {
    /// Keeps the first reason why the recording is incomplete.
    fn fail(&mut self, request: String, reason: &'static str) {
        let step = self.exchanges.len() + 1;
        self.failure.get_or_insert(Error::Unrecordable {
            step,
            request,
            reason,
        });
    }
}

impl Passage {
    /// Creates the passage of a request that was passed on as a whole. The reply is `Elapsed` if no answer came in
    /// time.
    fn of(request: RawRequest, descriptors: usize, reply: Result<Reply, Elapsed>) -> Passage {
        Passage::new(
            format!("{} {}", request.method, request.path),
            // If the body is too large for a VMM, only its length is recorded.
            request.bytes.len().min(BODY_LIMIT),
            recorded_request(request, descriptors),
            reply,
        )
    }

    /// Creates the passage of a request that was answered before its body came.
    fn without_body(head: RequestHead, descriptors: usize, reply: Reply) -> Passage {
        let asked = format!("{} {}", head.method, head.path);
        let request = RecordedRequest {
            method: head.method,
            path: head.path,
            body: RequestBody::Length(head.body as u64),
            descriptors,
        };
        Passage::new(asked, 0, Ok(request), Ok(reply))
    }

    fn new(
        asked: String,
        size: usize,
        request: Result<RecordedRequest, &'static str>,
        reply: Result<Reply, Elapsed>,
    ) -> Passage {
        let (answer, bytes) = match reply {
            Ok(Ok(Some(response))) => {
                let connection = match response.status {
                    SWITCHING_PROTOCOLS => Connection::Over,
                    _ => Connection::Kept,
                };
                let bytes = (response.bytes.clone(), connection);
                let answer = recorded_response(response).map(Answer::Response);
                (answer, Some(bytes))
            }
            Ok(Ok(None)) => (Ok(Answer::Closed), None),
            Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                (Err("the answer is not HTTP or too large"), None)
            }
            Ok(Err(_)) => (Err("the request could not be sent to the VMM"), None),
            Err(_) => (Err("the VMM did not answer within 10 minutes"), None),
        };
        Passage {
            asked,
            size: size + bytes.as_ref().map_or(0, |(bytes, _)| bytes.len()),
            request,
            answer,
            bytes,
        }
    }
}

/// Sends the answer to the client. Without an answer, the connection is to be closed.
async fn answer_with(client: &mut Reader<ClientStream>, answer: Option<Bytes>) -> Connection {
    let Some((bytes, connection)) = answer else {
        return Connection::Over;
    };
    match client.get_mut().stream().write_all(&bytes).await {
        Ok(()) => connection,
        Err(_) => Connection::Over,
    }
}

fn recorded_request(
    request: RawRequest,
    descriptors: usize,
) -> Result<RecordedRequest, &'static str> {
    let RawRequest {
        method, path, body, ..
    } = request;
    let body = if body.is_empty() {
        RequestBody::None
    } else if body.len() > BODY_LIMIT {
        RequestBody::Length(body.len() as u64)
    } else if let Ok(json) = serde_json::from_slice(&body) {
        RequestBody::Json(json)
    } else {
        let text = String::from_utf8(body).map_err(|_| "its body is not UTF-8")?;
        RequestBody::Text(text)
    };
    Ok(RecordedRequest {
        method,
        path,
        body,
        descriptors,
    })
}

fn recorded_response(response: RawResponse) -> Result<RecordedResponse, &'static str> {
    let RawResponse {
        status,
        headers,
        body,
        ..
    } = response;
    if !STATUSES.contains(&status) {
        return Err("a cassette holds no answer of this status");
    }
    let body = if body.is_empty() {
        ResponseBody::Empty
    } else if let Ok(json) = serde_json::from_slice(&body) {
        ResponseBody::Json(json)
    } else {
        let text = String::from_utf8(body).map_err(|_| "the answer's body is not UTF-8")?;
        ResponseBody::Text(text)
    };
    Ok(RecordedResponse {
        status,
        headers: (headers != usual_headers(status)).then_some(headers),
        body,
    })
}
