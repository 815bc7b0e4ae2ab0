//! [`Pending`]: the requests in flight on one channel, by id.

use std::collections::{HashMap, HashSet, VecDeque};

use tokio::sync::oneshot;
use uuid::Uuid;

use super::evidence::{Announced, Evidence, OutputBytes};
use super::{Error, EvidenceError};
use crate::guest::protocol::{EvidenceChunk, Extension, Frame, FrameType};
use crate::sanitize;

/// How many requests that have given up are remembered. Their answers count as late; an answer to a request that isn't
/// remembered breaks the protocol.
const MAX_GIVEN_UP: usize = 256;

/// The id of a request, by which an answer names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// A tool's `command_id`.
    Command(String),
    /// A query's `query_id`.
    Query(Uuid),
    /// The `request_id` of an extension's frame.
    Request(Uuid),
    /// A hello has no id, so only one can be in flight.
    Hello,
}

impl Key {
    /// The id as a line of at most 64 characters, for errors. The guest may have chosen the id.
    pub(super) fn shortened(&self) -> String {
        match self {
            Key::Command(id) => sanitize::line(id, 64),
            Key::Query(id) | Key::Request(id) => id.to_string(),
            Key::Hello => "hello".to_owned(),
        }
    }

    /// Whether a frame of this type may be the answer to this request, or a part of it.
    fn is_answered_by(&self, frame_type: FrameType) -> bool {
        match self {
            Key::Command(_) => {
                matches!(frame_type, FrameType::ToolResult | FrameType::EvidenceChunk)
            }
            Key::Query(_) => frame_type == FrameType::GuestResponse,
            Key::Request(_) => matches!(frame_type, FrameType::Imprinted | FrameType::Renewed),
            Key::Hello => matches!(frame_type, FrameType::Hello | FrameType::ErrorEvent),
        }
    }
}

/// An answer whose evidence was checked.
pub(super) struct Answer {
    pub(super) frame: Frame,
    /// The output's bytes, if the answer is a tool's result with details.
    pub(super) output: Option<OutputBytes>,
}

/// Delivers an answer, or the reason why the answer can't be accepted, to the request's caller. Returns false, and
/// delivers nothing, if the answer is of the wrong kind.
type Deliver = Box<dyn FnMut(Result<Answer, EvidenceError>) -> bool + Send>;

/// A request that waits for its answer.
struct Waiting {
    deliver: Deliver,
    /// The chunks of a command's output so far.
    evidence: Evidence,
}

/// The requests of one channel.
#[derive(Default)]
pub(super) struct Pending {
    waiting: HashMap<Key, Waiting>,
    given_up: VecDeque<Key>,
    /// The ids of the runs in flight, which have connections of their own.
    runs: HashSet<Key>,
    /// Which evidence the guest's hello has announced.
    announced: Announced,
    /// The extensions that the guest's hello lists.
    extensions: Vec<Extension>,
    closed: Option<Error>,
}

/// Why a request can't be made.
pub(super) enum Refused {
    /// A request with its id is in flight, or has given up.
    Taken,
    /// The channel is closed.
    Closed(Error),
}

/// What [`Pending::answer`] did with an answer.
#[derive(Debug, PartialEq)]
pub(super) enum Answered {
    /// The answer was delivered.
    Delivered,
    /// The answer's request had given up.
    Late(Frame),
    /// The answer is of another kind than the request.
    WrongKind,
    /// No such request was made, or it was answered before.
    NeverAsked,
}

impl Pending {
    /// Registers a request. The receiver gets the value that `read` makes of the answer, or fails once the channel is
    /// closed.
    ///
    /// The id of a request that has given up is refused, too, since its late answer could be taken for that of the new
    /// request.
    pub(super) fn register<T: Send + 'static>(
        &mut self,
        key: Key,
        read: impl Fn(Answer) -> Option<T> + Send + 'static,
    ) -> Result<oneshot::Receiver<Result<T, EvidenceError>>, Refused> {
        if let Some(reason) = &self.closed {
            return Err(Refused::Closed(reason.clone()));
        }
        if self.is_taken(&key) {
            return Err(Refused::Taken);
        }
        let (sender, receiver) = oneshot::channel();
        let mut sender = Some(sender);
        let deliver =
            move |answer: Result<Answer, _>| match (answer.map(&read).transpose(), sender.take()) {
                (Some(answer), Some(sender)) => {
                    // This fails if the caller has just stopped waiting.
                    let _ = sender.send(answer);
                    true
                }
                (_, unused) => {
                    sender = unused;
                    false
                }
            };
        let waiting = Waiting {
            deliver: Box::new(deliver),
            evidence: Evidence::default(),
        };
        self.waiting.insert(key, waiting);
        Ok(receiver)
    }

    /// Reserves the id of a run, which gets no answer on the channel.
    pub(super) fn name_run(&mut self, key: &Key) -> Result<(), Refused> {
        if let Some(reason) = &self.closed {
            return Err(Refused::Closed(reason.clone()));
        }
        match self.is_taken(key) {
            true => Err(Refused::Taken),
            false => {
                self.runs.insert(key.clone());
                Ok(())
            }
        }
    }

    /// Frees the id of a run.
    pub(super) fn run_ended(&mut self, key: &Key) {
        self.runs.remove(key);
    }

    fn is_taken(&self, key: &Key) -> bool {
        self.waiting.contains_key(key) || self.given_up.contains(key) || self.runs.contains(key)
    }

    /// Whether the guest's hello lists the extension.
    pub(super) fn announces(&self, extension: Extension) -> bool {
        self.extensions.contains(&extension)
    }

    /// Delivers an answer to its request. If it is of the wrong kind, the request waits on; the caller then closes the
    /// channel.
    pub(super) fn answer(&mut self, key: &Key, frame: Frame) -> Answered {
        if let Some(waiting) = self.waiting.get_mut(key) {
            let checked = match &frame {
                Frame::ToolResult(result) => waiting.evidence.finish(result, self.announced),
                Frame::Hello(hello) => {
                    self.announced = Announced::by(hello);
                    let all = Extension::ALL.into_iter();
                    self.extensions = all.filter(|it| hello.supports(*it)).collect();
                    Ok(None)
                }
                _ => Ok(None),
            };
            if !(waiting.deliver)(checked.map(|output| Answer { frame, output })) {
                return Answered::WrongKind;
            }
            self.waiting.remove(key);
            return Answered::Delivered;
        }
        match self.given_up.iter().position(|known| known == key) {
            Some(at) => {
                self.given_up.remove(at);
                Answered::Late(frame)
            }
            None => Answered::NeverAsked,
        }
    }

    /// Adds a chunk to its command's evidence. If the chunk breaks the chain, the command fails at once.
    pub(super) fn take_chunk(&mut self, key: &Key, chunk: &EvidenceChunk) {
        let Some(waiting) = self.waiting.get_mut(key) else {
            return;
        };
        if let Err(fault) = waiting.evidence.take(chunk, self.announced) {
            (waiting.deliver)(Err(fault));
            // The command's result may still come. It is a late answer then.
            self.give_up(key);
        }
    }

    /// Whether there is a request, waiting or given up, that a frame of this type may answer.
    pub(super) fn expects(&self, frame_type: FrameType) -> bool {
        let mut keys = self.waiting.keys().chain(&self.given_up);
        keys.any(|key| key.is_answered_by(frame_type))
    }

    /// Whether a result of this command may have details.
    pub(super) fn takes_details(&self, key: &Key) -> bool {
        match self.waiting.get(key) {
            Some(waiting) => waiting.evidence.takes_details(self.announced),
            None => self.announced.details,
        }
    }

    /// Whether a request waits for its answer.
    pub(super) fn is_waiting(&self, key: &Key) -> bool {
        self.waiting.contains_key(key)
    }

    /// Whether a request has given up and its late answer hasn't come yet.
    pub(super) fn has_given_up(&self, key: &Key) -> bool {
        self.given_up.contains(key)
    }

    /// Marks a request as given up, if it still waits.
    pub(super) fn give_up(&mut self, key: &Key) {
        if self.waiting.remove(key).is_some() {
            if self.given_up.len() == MAX_GIVEN_UP {
                self.given_up.pop_front();
            }
            self.given_up.push_back(key.clone());
        }
    }

    /// Closes the channel and fails every request with `reason`, or with an earlier reason if there is one. Returns
    /// whether this was the first call.
    pub(super) fn close(&mut self, reason: &Error) -> bool {
        let first = self.closed.is_none();
        self.closed.get_or_insert_with(|| reason.clone());
        self.waiting.clear();
        first
    }

    /// The reason why the channel is closed; `None` while it is open.
    pub(super) fn closed(&self) -> Option<&Error> {
        self.closed.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::protocol::{ErrorEvent, Imprinted};

    fn answer() -> Frame {
        Frame::Imprinted(Imprinted {
            request_id: Uuid::nil(),
        })
    }

    fn register(
        pending: &mut Pending,
        key: &Key,
    ) -> Option<oneshot::Receiver<Result<(), EvidenceError>>> {
        let read = |answer: Answer| matches!(answer.frame, Frame::Imprinted(_)).then_some(());
        pending.register(key.clone(), read).ok()
    }

    fn command(id: usize) -> Key {
        Key::Command(id.to_string())
    }

    #[test]
    fn an_answer_is_delivered_once() {
        let (mut pending, key) = (Pending::default(), command(1));
        let mut receiver = register(&mut pending, &key).unwrap();
        assert!(
            register(&mut pending, &key).is_none(),
            "taken while in flight"
        );
        assert_eq!(pending.answer(&key, answer()), Answered::Delivered);
        assert!(receiver.try_recv().is_ok());
        assert_eq!(pending.answer(&key, answer()), Answered::NeverAsked);
        assert!(register(&mut pending, &key).is_some(), "free again");
    }

    #[test]
    fn an_answer_of_the_wrong_kind_is_not_delivered() {
        let (mut pending, key) = (Pending::default(), command(1));
        let mut receiver = register(&mut pending, &key).unwrap();
        let wrong = Frame::ErrorEvent(ErrorEvent {
            code: String::new(),
            message: String::new(),
        });
        assert_eq!(pending.answer(&key, wrong), Answered::WrongKind);
        assert_eq!(
            receiver.try_recv(),
            Err(oneshot::error::TryRecvError::Empty)
        );
    }

    #[test]
    fn a_late_answer_is_late_once_and_its_id_stays_taken_until_then() {
        let (mut pending, key) = (Pending::default(), command(1));
        let _receiver = register(&mut pending, &key);
        pending.give_up(&key);
        assert!(pending.has_given_up(&key));
        assert!(register(&mut pending, &key).is_none());
        assert_eq!(pending.answer(&key, answer()), Answered::Late(answer()));
        assert_eq!(pending.answer(&key, answer()), Answered::NeverAsked);
    }

    #[test]
    fn a_limited_number_of_requests_that_gave_up_is_remembered() {
        let mut pending = Pending::default();
        for id in 0..=MAX_GIVEN_UP {
            let _receiver = register(&mut pending, &command(id));
            pending.give_up(&command(id));
        }
        assert_eq!(pending.answer(&command(0), answer()), Answered::NeverAsked);
        assert_eq!(
            pending.answer(&command(1), answer()),
            Answered::Late(answer())
        );
    }

    #[test]
    fn giving_up_a_request_that_was_answered_changes_nothing() {
        let (mut pending, key) = (Pending::default(), command(1));
        let _receiver = register(&mut pending, &key);
        pending.answer(&key, answer());
        pending.give_up(&key);
        assert!(!pending.has_given_up(&key));
    }
}
