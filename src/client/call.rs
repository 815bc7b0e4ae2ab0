//! One call: it waits for its turn, takes a connection, and checks that the VMM's release has what the request uses.

use std::os::fd::OwnedFd;

use bytes::Bytes;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, timeout_at};

use super::error::Context;
use super::transport::{Answer, Connection};
use super::{
    BODY_LIMIT, DeadlineOutcome, Deadlines, Error, ErrorKind, ParseReleaseError, Release,
    descriptors, refusal,
};
use crate::api::types::VmmPingResponse;
use crate::api::{self, Request, Requirement};
use crate::socket::SocketAddress;

/// The connection that is kept between calls, with the release of the VMM at its other end.
pub(super) struct Kept {
    connection: Connection,
    release: Option<Release>,
}

/// One call: the operation, the socket, the body and the deadline.
pub(super) struct Call<'a> {
    pub(super) context: Context<'a>,
    pub(super) body: Bytes,
    /// The parts of the request that not every supported release has.
    pub(super) requirements: Vec<Requirement>,
    deadline: Instant,
}

/// The result of an exchange on the kept connection.
enum Attempt {
    Answered(Answer),
    /// Nothing was sent: there was no connection, or it turned out to be closed.
    Unsent(Option<Error>),
}

impl<'a> Call<'a> {
    pub(super) fn new<T>(
        request: &Request<T>,
        socket: &'a SocketAddress,
        deadlines: &Deadlines,
    ) -> Call<'a> {
        let limit = deadlines.of(request.operation());
        Call {
            context: Context {
                operation: request.operation(),
                socket,
                limit,
            },
            requirements: match request.is_checked() {
                true => request.requirements(),
                false => Vec::new(),
            },
            body: request.body().cloned().unwrap_or_default(),
            deadline: Instant::now() + limit,
        }
    }

    /// Refuses a body that no release takes.
    pub(super) fn refuse<T>(&self, request: &Request<T>) -> Result<(), Error> {
        match request.is_checked() {
            true => descriptors::refuse_in_body(request.operation(), request.body())
                .map_err(|kind| self.context.refuse(kind)),
            false => Ok(()),
        }
    }

    /// Refuses a request of which this release would ignore a part.
    pub(super) fn check(&self, release: Release) -> Result<(), Error> {
        match refusal::of(self.context.operation, &self.requirements, release) {
            Some(kind) => Err(self.context.refuse(kind)),
            None => Ok(()),
        }
    }

    /// Waits until the calls before this one have ended. A body that is too large is refused here.
    pub(super) async fn turn<'k>(
        &self,
        kept: &'k Mutex<Option<Kept>>,
    ) -> Result<MutexGuard<'k, Option<Kept>>, Error> {
        if self.body.len() > BODY_LIMIT {
            return Err(self.context.refuse(ErrorKind::BodyTooLarge {
                length: self.body.len(),
                limit: BODY_LIMIT,
            }));
        }
        timeout_at(self.deadline, kept.lock())
            .await
            .map_err(|_| self.context.deadline(DeadlineOutcome::NotSent))
    }

    /// Exchanges on the kept connection or, if there is none or it was closed meanwhile, on a new one. Refuses the
    /// request if the VMM's release would ignore a part of it.
    pub(super) async fn on_kept(&self, turn: &mut Option<Kept>) -> Result<Answer, Error> {
        if self.requirements.is_empty() {
            return self.on_any(turn).await;
        }
        let mut tries_left = 3_u8;
        loop {
            // The release is known for one connection: another VMM may answer on the next.
            self.check(self.release(turn).await?)?;
            tries_left -= 1;
            match self.on_open(turn).await? {
                Attempt::Answered(answer) => return Ok(answer),
                Attempt::Unsent(Some(error)) if tries_left == 0 => return Err(error),
                Attempt::Unsent(_) => {}
            }
        }
    }

    /// The release of the VMM at the other end of the kept connection. Sends `vmm.ping` if it isn't known yet.
    pub(super) async fn release(&self, turn: &mut Option<Kept>) -> Result<Release, Error> {
        if let Some(kept) = turn.as_mut()
            && let Some(release) = kept.release
            && kept.connection.is_open()
        {
            return Ok(release);
        }
        self.ask_release(turn).await.map(|(release, _)| release)
    }

    /// Sends `vmm.ping` on the kept connection, or on a new one, and keeps the release.
    pub(super) async fn ask_release(
        &self,
        turn: &mut Option<Kept>,
    ) -> Result<(Release, VmmPingResponse), Error> {
        let request = api::vmm_ping();
        let ping = Call {
            context: Context {
                operation: request.operation(),
                ..self.context
            },
            body: Bytes::new(),
            requirements: Vec::new(),
            deadline: self.deadline,
        };
        let answer = ping.on_any(turn).await?;
        let said = ping.finish(&request, &answer)?;
        let release: Release = said
            .version
            .parse()
            .map_err(|error: ParseReleaseError| ping.context.decode(answer.status, error))?;
        refusal::warn_unless_supported(release, self.context.socket.name());
        if let Some(kept) = turn.as_mut() {
            kept.release = Some(release);
        }
        Ok((release, said))
    }

    /// Exchanges on the kept connection, or on a new one if there is none or it was closed meanwhile.
    async fn on_any(&self, turn: &mut Option<Kept>) -> Result<Answer, Error> {
        if let Attempt::Answered(answer) = self.on_open(turn).await? {
            return Ok(answer);
        }
        let mut connection = self.open(Vec::new()).await?;
        let answer = self.exchange(&mut connection).await?;
        *turn = answer.keeps_connection().then_some(Kept {
            connection,
            release: None,
        });
        Ok(answer)
    }

    /// Exchanges on the kept connection, if there is one that is still open.
    async fn on_open(&self, turn: &mut Option<Kept>) -> Result<Attempt, Error> {
        // Taken out until the answer is read: a call that is dropped before that drops its connection too.
        let Some(mut kept) = turn.take() else {
            return Ok(Attempt::Unsent(None));
        };
        match self.exchange(&mut kept.connection).await {
            Ok(answer) => {
                *turn = answer.keeps_connection().then_some(kept);
                Ok(Attempt::Answered(answer))
            }
            Err(error)
                if !kept.connection.has_sent()
                    && !matches!(error.kind(), ErrorKind::Deadline { .. }) =>
            {
                tracing::debug!(socket = %self.context.socket.name().display(), "the kept connection was closed");
                Ok(Attempt::Unsent(Some(error)))
            }
            Err(error) => Err(error),
        }
    }

    pub(super) async fn open(&self, fds: Vec<OwnedFd>) -> Result<Connection, Error> {
        timeout_at(
            self.deadline,
            Connection::open(self.context.socket.path(), fds),
        )
        .await
        .map_err(|_| self.context.deadline(DeadlineOutcome::NotSent))?
        .map_err(|error| self.context.connect(error))
    }

    pub(super) async fn exchange(&self, connection: &mut Connection) -> Result<Answer, Error> {
        let exchange = connection.exchange(self.context.operation, self.body.clone());
        match timeout_at(self.deadline, exchange).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(failure)) => Err(self.context.broken(failure)),
            Err(_) => Err(self.context.deadline(DeadlineOutcome::of(
                self.context.operation,
                connection.has_sent(),
            ))),
        }
    }

    /// Decodes the answer into the operation's value or into an error.
    pub(super) fn finish<T>(&self, request: &Request<T>, answer: &Answer) -> Result<T, Error> {
        if !answer.is_success() {
            return Err(self.context.refused(answer));
        }
        request
            .decode(&answer.body)
            .map_err(|error| self.context.decode(answer.status, error))
    }
}
