//! The [`Relay`] of a run with streams: passes records between the host's connection and the tool's pipes.
//!
//! ```text
//! connection -> Inbox -> Input -> the tool's standard input
//! connection <- Outbox <--------- its standard output and error
//! ```
//!
//! One thread polls the connection, the pipes, the tool's end and the deadline together. Its reads and writes don't
//! block. It holds one record of output, which is sent before the next one is read: a host that stops reading blocks
//! the tool and nothing else. [`Input`] says how much input it holds.

mod inbox;
mod input;
mod outbox;

use std::fs::File;
use std::io;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags};

use super::ServeError;
use super::connection::{Connection, SEND_LIMIT};
use super::running::{self, Ended, Running};
use super::stream_connection::StreamConnection;
use crate::guest::frame::FrameError;
use crate::guest::protocol::{Direction, JsonRecord, RunChain, RunEnd, RunOutcome, RunSignal};
use crate::guest::record::RecordKind;
use inbox::Inbox;
use input::Input;
use outbox::Outbox;

/// The size to which a tool's pipes are enlarged, in bytes: the kernel's default limit for an unprivileged user
/// (`/proc/sys/fs/pipe-max-size`). With it a tool can write on while its last record is hashed and sent.
const PIPE: usize = 1 << 20;

/// The poll events that mean that the host has closed the connection.
const CLOSED: PollFlags = PollFlags::RDHUP.union(PollFlags::HUP).union(PollFlags::ERR);

/// The state of one run with streams, in both directions.
pub(super) struct Relay<'a> {
    connection: &'a Connection,
    deadline: Instant,
    inbox: Inbox,
    input: Input,
    /// The chain of the records to the guest.
    to_guest: RunChain,
    records_taken: u64,
    signals: Signals,
    outbox: Outbox,
    stdout_total: u64,
    stderr_total: u64,
    /// How many bytes of output may still be sent; the rest is read, counted and dropped.
    allowance: u64,
    cut: bool,
}

/// The signals that the host has sent.
#[derive(Debug, Default)]
struct Signals {
    terminate: bool,
    kill: bool,
}

/// The result of a wait: which descriptors are ready.
struct Ready {
    has_ended: bool,
    is_closed: bool,
    has_records: bool,
    stdout: bool,
    stderr: bool,
}

/// Why the relay stopped while nothing failed.
enum Stopped {
    /// The tool ended, by itself or by the host's signal.
    Ended,
    AtDeadline,
    /// The host has closed the connection.
    Closed,
}

/// Why the relay can't go on.
enum Failed {
    Serve(ServeError),
    /// Reading the tool's pipes or waiting for the tool failed.
    Tool(io::Error),
}

impl From<ServeError> for Failed {
    fn from(error: ServeError) -> Failed {
        Failed::Serve(error)
    }
}

impl<'a> Relay<'a> {
    /// A relay before the tool's start. `body` is that of the `OpenRun` frame.
    pub(super) fn new(
        stream: &'a mut StreamConnection,
        body: &[u8],
        deadline: Instant,
    ) -> Relay<'a> {
        let received = stream.take_received();
        Relay {
            connection: stream.connection(),
            deadline,
            inbox: Inbox::new(received),
            input: Input::default(),
            to_guest: RunChain::new(Direction::ToGuest, body),
            records_taken: 0,
            signals: Signals::default(),
            outbox: Outbox::new(RunChain::new(Direction::ToHost, body)),
            stdout_total: 0,
            stderr_total: 0,
            allowance: 0,
            cut: false,
        }
    }

    /// Relays until the tool has ended and its output was sent, at most `allowance` bytes of it. Returns `None` if the
    /// host has closed the connection.
    ///
    /// If the host closed the connection or killed the tool, or if the tool reached its deadline, every process that
    /// the tool started was killed, too.
    ///
    /// # Errors
    ///
    /// If the connection fails or the host breaks the protocol. The tool and every process that it started were killed
    /// then.
    pub(super) fn follow(
        &mut self,
        mut tool: Running,
        allowance: u64,
    ) -> Result<Option<RunOutcome>, ServeError> {
        tool.widen(PIPE);
        self.input.is_open = tool.stdin.is_some();
        self.allowance = allowance;
        match self.follow_to_the_end(&mut tool) {
            Ok(outcome) => Ok(outcome),
            Err(Failed::Serve(error)) => Err(error),
            Err(Failed::Tool(error)) => Ok(Some(RunOutcome::GuestFailed {
                reason: format!("the tool could not be followed to its end: {error}"),
            })),
        }
    }

    fn follow_to_the_end(&mut self, tool: &mut Running) -> Result<Option<RunOutcome>, Failed> {
        let outcome = match self.while_it_runs(tool)? {
            Stopped::Closed => return Ok(None),
            Stopped::Ended => self.signals.outcome(tool.reap().map_err(Failed::Tool)?),
            Stopped::AtDeadline => {
                tool.kill();
                tool.reap_killed();
                RunOutcome::DeadlineExceeded {}
            }
        };
        // A process that the tool left may hold the pipes open. So only the bytes that they hold now are read.
        for kind in [RecordKind::Stdout, RecordKind::Stderr] {
            let held = running::held(output_of(tool, kind).as_ref());
            let mut left = held.map_err(Failed::Tool)?;
            while left > 0 {
                if !self.flush()? {
                    return Ok(None);
                }
                match self.take_output(tool, kind, left)? {
                    0 => break,
                    taken => left -= taken,
                }
            }
        }
        Ok(self.flush()?.then_some(outcome))
    }

    fn while_it_runs(&mut self, tool: &mut Running) -> Result<Stopped, Failed> {
        loop {
            // Records may be in the inbox before the first wait, since they may have come together with the OpenRun
            // frame.
            self.take_records(tool)?;
            if self.signals.kill {
                return Ok(Stopped::Ended);
            }
            let ready = self.wait(tool).map_err(Failed::Tool)?;
            if ready.is_closed {
                return Ok(Stopped::Closed);
            }
            if ready.has_ended {
                return Ok(Stopped::Ended);
            }
            if Instant::now() >= self.deadline {
                return Ok(Stopped::AtDeadline);
            }
            self.send()?;
            for (kind, is_ready) in [
                (RecordKind::Stdout, ready.stdout),
                (RecordKind::Stderr, ready.stderr),
            ] {
                if is_ready && self.outbox.is_empty() {
                    self.take_output(tool, kind, u64::MAX)?;
                }
            }
            self.input.pass_on(&mut tool.stdin);
            if ready.has_records && !self.inbox.fill(self.connection).map_err(in_connection)? {
                return Ok(Stopped::Closed);
            }
        }
    }

    /// Waits until a descriptor is ready or the deadline is over.
    fn wait(&self, tool: &Running) -> io::Result<Ready> {
        let mut wanted = CLOSED;
        wanted.set(PollFlags::IN, self.input.has_room());
        wanted.set(PollFlags::OUT, !self.outbox.is_empty());
        // `poll` reports the end of a pipe even if no event was asked for. So a pipe that can't be served now is left
        // out.
        let has_room = self.outbox.is_empty();
        let [stdout, stderr] =
            [&tool.stdout, &tool.stderr].map(|pipe| pipe.as_ref().filter(|_| has_room));
        let stdin = tool.stdin.as_ref().filter(|_| self.input.is_waiting());
        let mut polled = [
            PollFd::from_borrowed_fd(tool.ended(), PollFlags::IN),
            PollFd::new(self.connection, wanted),
            tool.polled(stdout, PollFlags::IN),
            tool.polled(stderr, PollFlags::IN),
            tool.polled(stdin, PollFlags::OUT),
        ];
        running::poll(&mut polled, self.deadline)?;
        let [ended, connection, stdout, stderr, _] = polled.map(|polled| polled.revents());
        Ok(Ready {
            has_ended: !ended.is_empty(),
            is_closed: connection.intersects(CLOSED),
            has_records: connection.contains(PollFlags::IN),
            stdout: !stdout.is_empty(),
            stderr: !stderr.is_empty(),
        })
    }

    /// Reads at most `most` bytes of one of the tool's streams into a record, and sends as much of it as the connection
    /// takes now. Returns how many bytes were read.
    fn take_output(
        &mut self,
        tool: &mut Running,
        kind: RecordKind,
        most: u64,
    ) -> Result<u64, Failed> {
        let pipe = output_of(tool, kind);
        let read = self.outbox.read(kind, pipe, most, self.allowance);
        let read = read.map_err(Failed::Tool)? as u64;
        match kind {
            RecordKind::Stderr => self.stderr_total += read,
            _ => self.stdout_total += read,
        }
        self.cut |= read > self.allowance;
        self.allowance = self.allowance.saturating_sub(read);
        self.send()?;
        Ok(read)
    }

    /// Processes the records that have arrived, as long as there is room for more standard input.
    fn take_records(&mut self, tool: &mut Running) -> Result<(), ServeError> {
        while self.input.has_room()
            && let Some((kind, body)) = self.inbox.next_record()?
        {
            match kind {
                RecordKind::Stdin if self.input.is_open => self.input.take(body, &mut tool.stdin),
                RecordKind::EndOfStdin if self.input.is_open => self.input.end(&mut tool.stdin),
                RecordKind::Signal => match RunSignal::decode(body)? {
                    RunSignal::Terminate => {
                        self.signals.terminate = true;
                        tool.terminate();
                    }
                    RunSignal::Kill => {
                        self.signals.kill = true;
                        tool.kill();
                    }
                },
                _ => return Err(ServeError::UnexpectedRecord { kind }),
            }
            self.to_guest.append(kind, body);
            self.records_taken += 1;
        }
        Ok(())
    }

    fn send(&mut self) -> Result<(), ServeError> {
        self.outbox.send(self.connection).map_err(in_connection)?;
        Ok(())
    }

    /// Sends the rest of the record in the outbox. Returns false if the host has closed the connection. If the host
    /// reads nothing, this waits until the deadline, but at least [`SEND_LIMIT`], and fails then.
    fn flush(&mut self) -> Result<bool, ServeError> {
        loop {
            self.send()?;
            if self.outbox.is_empty() {
                return Ok(true);
            }
            let until = self.deadline.max(Instant::now() + SEND_LIMIT);
            let mut polled = [PollFd::new(self.connection, CLOSED | PollFlags::OUT)];
            running::poll(&mut polled, until).map_err(in_connection)?;
            let ready = polled[0].revents();
            if ready.intersects(CLOSED) {
                return Ok(false);
            }
            if ready.is_empty() && Instant::now() >= until {
                return Err(in_connection(io::ErrorKind::TimedOut.into()));
            }
        }
    }

    /// Sends the last record, the [`RunEnd`].
    pub(super) fn end(mut self, outcome: RunOutcome) -> Result<(), ServeError> {
        let end = RunEnd {
            outcome,
            stdout_total: self.stdout_total,
            stderr_total: self.stderr_total,
            cut: self.cut,
            to_guest_hash: RunChain::text(&self.to_guest.link()),
            to_host_hash: RunChain::text(&self.outbox.link()),
            records_taken: self.records_taken,
        };
        self.outbox.write(RecordKind::End, &end.encode())?;
        self.flush()?;
        Ok(())
    }
}

impl Signals {
    /// The outcome of a tool that ended like this, given the signals that the host has sent.
    ///
    /// A tool that the host's signal killed was cancelled. A tool with an exit code was not: it handled the signal, or
    /// ended before the signal reached it.
    fn outcome(&self, ended: Ended) -> RunOutcome {
        match ended {
            Ended::Exited(code) => RunOutcome::Exited { code },
            Ended::Signalled(signal) => match i32::from(signal) {
                libc::SIGTERM if self.terminate => RunOutcome::Cancelled {},
                libc::SIGKILL if self.kill => RunOutcome::Cancelled {},
                _ => RunOutcome::Signalled { signal },
            },
        }
    }
}

fn output_of(tool: &mut Running, kind: RecordKind) -> &mut Option<File> {
    match kind {
        RecordKind::Stderr => &mut tool.stderr,
        _ => &mut tool.stdout,
    }
}

fn in_connection(error: io::Error) -> ServeError {
    FrameError::Io(error).into()
}
