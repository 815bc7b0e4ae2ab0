//! What passes a recorder: from the client to the VMM and back, and written down on the way.

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
use super::upstream::{First, Reply, Upstream};
use super::wire::{RawRequest, RawResponse, Reader, RequestHead, SWITCHING_PROTOCOLS};
use super::{Error, substitution};
use crate::causes::Causes;
use crate::client::BODY_LIMIT;
use crate::socket::SocketAddress;

/// What the connections of one recorder share.
#[derive(Debug)]
pub(super) struct Tape {
    api_socket: SocketAddress,
    /// Text and the name that stands for it, the longest text first.
    placeholders: Vec<(String, String)>,
    recorded: Mutex<Recorded>,
}

#[derive(Debug, Default)]
struct Recorded {
    exchanges: Vec<Exchange>,
    bytes: u64,
    failure: Option<Error>,
}

/// What becomes of a client's connection after an exchange.
pub(super) enum Connection {
    /// Another request may come on it.
    Kept,
    /// It is to be closed.
    Over,
}

/// An exchange that has passed, as far as it can be written down.
struct Passage {
    /// Method and path.
    asked: String,
    request: Result<RecordedRequest, &'static str>,
    answer: Result<Answer, &'static str>,
    /// How much of the cassette it takes, in bytes.
    size: usize,
    /// The answer for the client; `None` if its connection is to be closed instead.
    bytes: Option<Bytes>,
}

/// The bytes of an answer, and what becomes of the connection after them.
type Bytes = (Vec<u8>, Connection);

/// The longest time that a VMM may take for an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10 * 60);

impl Tape {
    /// Records the VMM at `api_socket`; of two placeholders that match at a place, the first counts.
    pub(super) fn new(api_socket: SocketAddress, placeholders: Vec<(String, String)>) -> Tape {
        Tape {
            api_socket,
            placeholders,
            recorded: Mutex::default(),
        }
    }

    /// Aborts `server` and returns what was recorded, once an exchange that has begun is complete: all exchanges, or those
    /// before the first that can't stand in a cassette, and its [`Error::Unrecordable`].
    pub(super) async fn take(&self, server: &JoinHandle<()>) -> (Vec<Exchange>, Option<Error>) {
        let mut recorded = self.recorded.lock().await;
        server.abort();
        let failure = recorded.failure.take();
        (std::mem::take(&mut recorded.exchanges), failure)
    }

    /// Passes the client's next request on, and its answer back, and writes both down.
    ///
    /// A request is passed on when it is complete. If the client may wait for an interim response before it sends the
    /// body, the head goes ahead. The VMM acts when it has the body, so that does not change the order of the
    /// exchanges.
    ///
    /// # Errors
    ///
    /// As for [`Reader::request_head`], when the client fails before its request is complete. Nothing is written down.
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
            let beside = client.get_mut().take_descriptors();
            descriptors = beside.len();
            if let First::Answer(reply) = upstream.ask_for_body(client, &head, beside).await? {
                let mut recorded = self.recorded.lock().await;
                let passage = Passage::without_body(head, descriptors, reply);
                let answer = self.write_down(&mut recorded, passage);
                drop(recorded);
                answer_with(client, answer).await;
                // What comes next may be the body that the VMM did not wait for, or another request.
                return Ok(Connection::Over);
            }
            ahead = Some(upstream);
        }
        let request = client.rest_of(head).await?;
        let beside = client.get_mut().take_descriptors();
        descriptors += beside.len();

        // Held until the answer is there: this is what makes an order of the exchanges.
        let mut recorded = self.recorded.lock().await;
        let (mut upstream, bytes) = match ahead {
            Some(upstream) => (upstream, &request.body),
            None => match self.connect(&request.method, &request.path).await {
                Some(upstream) => (upstream, &request.bytes),
                None => return Ok(Connection::Over),
            },
        };
        let answer = upstream.ask(bytes, beside, client.get_mut().stream());
        let reply = timeout(ANSWER_LIMIT, answer).await;
        let passage = Passage::of(request, descriptors, reply);
        let answer = self.write_down(&mut recorded, passage);
        drop(recorded);
        Ok(answer_with(client, answer).await)
    }

    /// Makes the recording fail because a request's descriptors can't be passed on; the answer for the client.
    pub(super) async fn refuse(&self, lost: &DescriptorsLost) -> Vec<u8> {
        let reason = lost.reason();
        let mut recorded = self.recorded.lock().await;
        recorded.fail("a request with descriptors".to_owned(), reason);
        let lines = ["The recorder did not pass this request on", reason];
        refusal(500, lines.map(str::to_owned).into())
    }

    async fn connect(&self, method: &str, path: &str) -> Option<Upstream> {
        match Upstream::connect(self.api_socket.path()).await {
            Ok(upstream) => Some(upstream),
            // There is no VMM any more.
            Err(error) => {
                tracing::warn!(error = %Causes(&error), %method, %path, "not recorded: the VMM can't be reached");
                None
            }
        }
    }

    /// Writes an exchange down, and returns the answer if there is one.
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
            // Written with indents, JSON is several times as long.
            Ok(_) if recorded.bytes > Cassette::MAX_BYTES / 4 => {
                Err("the cassette has become too large")
            }
            Ok(exchange) => self.stable(exchange),
            Err(reason) => Err(reason),
        };
        match exchange {
            Ok(exchange) if recorded.failure.is_none() => recorded.exchanges.push(exchange),
            // With a gap before it, it would be another session.
            Ok(_) => {}
            Err(reason) => recorded.fail(asked, reason),
        }
        bytes
    }

    /// The same exchange without what differs from run to run.
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
        substitution::rewrite(&mut exchange, &mut |text| {
            ambiguous |= substitution::has_placeholder(text);
            for (real, name) in &self.placeholders {
                if text.contains(real) {
                    *text = text.replace(real, &format!("${{{name}}}"));
                }
            }
        });
        if ambiguous {
            return Err("it has a text that would be taken for a placeholder");
        }
        Ok(exchange)
    }
}

impl Recorded {
    /// Keeps the first reason why the recording is not complete.
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
    /// A request that was passed on whole; no reply means that it did not come in time.
    fn of(request: RawRequest, descriptors: usize, reply: Result<Reply, Elapsed>) -> Passage {
        Passage::new(
            format!("{} {}", request.method, request.path),
            // Of a body that no VMM reads, only the length is kept.
            request.bytes.len().min(BODY_LIMIT),
            recorded_request(request, descriptors),
            reply,
        )
    }

    /// A request that was answered before its body came.
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
                (Err("the answer is not HTTP"), None)
            }
            Ok(Err(_)) => (Err("it could not be sent to the VMM"), None),
            Err(_) => (Err("no answer came"), None),
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

/// Sends the client its answer, or lets its connection end without one.
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
