//! The host's end of a run's connection. It computes the chains by itself, without the library.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::Duration;

use chv_sandbox::guest::dispatcher::{Confinement, Dispatcher, ServeError, Toolbox};
use chv_sandbox::guest::frame::{encode, read_frame};
use chv_sandbox::guest::protocol::{
    ErrorEvent, Frame, JsonRecord, OpenRun, Opened, RunEnd, RunOutcome, RunSignal, StdinMode,
    ToolName,
};
use chv_sandbox::guest::record::{RECORD_HEADER, RecordHeader, RecordKind};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::host::{FakeSystem, LIMIT};

/// A dispatcher with the shell and the tools that `tools` declares.
pub(super) fn dispatcher(tools: &Value) -> Dispatcher {
    let file = json!({"sh": true, "tools": tools}).to_string();
    let toolbox = Toolbox::from_json(file.as_bytes()).unwrap();
    serving(toolbox)
}

pub(super) fn serving(toolbox: Toolbox) -> Dispatcher {
    Dispatcher::new(toolbox, &Confinement::in_process(), FakeSystem::default()).unwrap()
}

/// A run of `tool` with standard input.
pub(super) fn open(tool: &str, params: Value) -> OpenRun {
    OpenRun {
        command_id: "c1".to_owned(),
        tool: ToolName::new(tool).unwrap(),
        params,
        deadline_ms: LIMIT.as_millis() as u64,
        stdin: StdinMode::Piped,
        env: BTreeMap::new(),
        cwd: None,
    }
}

pub(super) fn script(script: &str) -> OpenRun {
    open("sh", json!({ "script": script }))
}

pub(super) fn record(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u32).to_be_bytes();
    [&[kind][..], &length, body].concat()
}

/// The chain as the protocol describes it, computed without the library's code.
fn chain(direction: u8, open_body: &[u8], records: &[(u8, Vec<u8>)]) -> String {
    let size = |bytes: &[u8]| (bytes.len() as u32).to_be_bytes();
    let first = [
        b"chv-sandbox-run-v2\0",
        &[direction][..],
        &size(open_body),
        open_body,
    ]
    .concat();
    let mut link = Sha256::digest(first);
    for (kind, body) in records {
        link = Sha256::digest([&link[..], &[*kind], &size(body), body].concat());
    }
    let hex: String = link.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// A run, as its host sees it.
pub(super) struct Run {
    pub(super) stream: UnixStream,
    served: JoinHandle<Result<(), ServeError>>,
    open_body: Vec<u8>,
    sent: Vec<(u8, Vec<u8>)>,
    received: Vec<(u8, Vec<u8>)>,
}

/// Everything that a run has sent.
pub(super) struct Ended {
    pub(super) end: RunEnd,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
}

impl Run {
    /// Opens a run on a connection of its own, and waits for the answer.
    pub(super) fn start(dispatcher: &Dispatcher, open: &OpenRun) -> Run {
        let run = Run::request(dispatcher, open);
        assert_eq!(run.answer(), Frame::Opened(Opened {}));
        run
    }

    /// Opens a run, and leaves the answer unread.
    pub(super) fn request(dispatcher: &Dispatcher, open: &OpenRun) -> Run {
        let frame = encode(&Frame::OpenRun(open.clone())).unwrap();
        let run = Run::connect(dispatcher, frame[4..].to_vec());
        run.send_bytes(&frame);
        run
    }

    /// A connection on which nothing has been sent yet.
    pub(super) fn connect(dispatcher: &Dispatcher, open_body: Vec<u8>) -> Run {
        let (stream, guest) = UnixStream::pair().unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        let dispatcher = dispatcher.clone();
        Run {
            stream,
            served: std::thread::spawn(move || dispatcher.serve(guest)),
            open_body,
            sent: Vec::new(),
            received: Vec::new(),
        }
    }

    pub(super) fn answer(&self) -> Frame {
        let frame = read_frame(&mut &self.stream).unwrap();
        frame.expect("a frame and not the connection's end")
    }

    /// The code with which the guest refused to open the run.
    pub(super) fn refused(self) -> String {
        let Frame::ErrorEvent(ErrorEvent { code, .. }) = self.answer() else {
            panic!("no refusal");
        };
        assert_eq!(read_frame(&mut &self.stream).unwrap(), None);
        code
    }

    pub(super) fn send_bytes(&self, bytes: &[u8]) {
        (&self.stream).write_all(bytes).unwrap();
    }

    pub(super) fn send(&mut self, kind: RecordKind, body: &[u8]) {
        self.send_bytes(&record(kind as u8, body));
        self.sent.push((kind as u8, body.to_vec()));
    }

    pub(super) fn write(&mut self, stdin: &[u8]) {
        self.send(RecordKind::Stdin, stdin);
    }

    pub(super) fn end_of_stdin(&mut self) {
        self.send(RecordKind::EndOfStdin, b"");
    }

    pub(super) fn signal(&mut self, signal: RunSignal) {
        self.send(RecordKind::Signal, &signal.encode());
    }

    /// The next record.
    pub(super) fn next(&mut self) -> (RecordKind, Vec<u8>) {
        let mut header = [0; RECORD_HEADER];
        self.stream.read_exact(&mut header).unwrap();
        let header = RecordHeader::decode(header).unwrap();
        let mut body = vec![0; header.length];
        self.stream.read_exact(&mut body).unwrap();
        if header.kind != RecordKind::End {
            self.received.push((header.kind as u8, body.clone()));
        }
        (header.kind, body)
    }

    /// Reads standard output until it is as long as `expected`, and checks that it is `expected`.
    #[track_caller]
    pub(super) fn expect(&mut self, expected: &str) {
        let mut read = Vec::new();
        while read.len() < expected.len() {
            let (kind, body) = self.next();
            assert_eq!(
                kind,
                RecordKind::Stdout,
                "{}",
                String::from_utf8_lossy(&body)
            );
            read.extend(body);
        }
        assert_eq!(String::from_utf8_lossy(&read), expected);
    }

    /// A line of standard output that is a number.
    pub(super) fn number(&mut self) -> i32 {
        let (kind, line) = self.next();
        assert_eq!(kind, RecordKind::Stdout);
        String::from_utf8(line).unwrap().trim().parse().unwrap()
    }

    /// Reads up to the last record, and compares its totals and links with what was sent and received.
    pub(super) fn end(mut self) -> Ended {
        let end = loop {
            if let (RecordKind::End, body) = self.next() {
                break RunEnd::decode(&body).unwrap();
            }
        };
        assert_eq!(self.stream.read(&mut [0]).unwrap(), 0, "nothing follows");
        drop(self.stream);
        self.served.join().unwrap().unwrap();

        let taken = &self.sent[..end.records_taken as usize];
        assert_eq!(end.to_guest_hash, chain(0, &self.open_body, taken));
        assert_eq!(end.to_host_hash, chain(1, &self.open_body, &self.received));
        let of = |kind: RecordKind| {
            let records = self.received.iter();
            let of_kind = records.filter(|(byte, _)| *byte == kind as u8);
            of_kind
                .flat_map(|(_, body)| body.clone())
                .collect::<Vec<u8>>()
        };
        let (stdout, stderr) = (of(RecordKind::Stdout), of(RecordKind::Stderr));
        let sent = (stdout.len() + stderr.len()) as u64;
        let written = end.stdout_total + end.stderr_total;
        assert_eq!(end.cut, sent < written, "{end:?}");
        assert!(sent <= written, "{end:?}");
        Ended {
            end,
            stdout,
            stderr,
        }
    }

    /// Closes the connection, and returns the guest's result of serving it.
    pub(super) fn close(self) -> Result<(), ServeError> {
        self.stream.shutdown(Shutdown::Both).unwrap();
        self.served.join().unwrap()
    }

    /// Waits for the guest to end the connection without a last record.
    pub(super) fn broken(self) -> ServeError {
        let mut rest = Vec::new();
        // The kernel resets a connection that is closed with unread bytes.
        match (&self.stream).read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
        }
        self.served.join().unwrap().unwrap_err()
    }
}

impl Ended {
    /// The standard output of a tool that exited with 0.
    #[track_caller]
    pub(super) fn output(self) -> String {
        assert_eq!(self.end.outcome, RunOutcome::Exited { code: 0 });
        assert_eq!(String::from_utf8_lossy(&self.stderr), "");
        String::from_utf8(self.stdout).unwrap()
    }
}

/// Gives the run a deadline of one second.
pub(super) fn soon(mut open: OpenRun) -> OpenRun {
    open.deadline_ms = Duration::from_secs(1).as_millis() as u64;
    open
}

/// Shuts down the host's sending direction.
pub(super) fn half_close(run: &Run) {
    run.stream.shutdown(Shutdown::Write).unwrap();
}
