//! Runs and transfers, each on a connection of its own, against guests that the tests script: honest ones and hostile
//! ones.

mod hostile;
mod input;
mod opening;
mod run;

use std::collections::BTreeMap;

use chv_sandbox::guest::protocol::{
    Direction, Hello, JsonRecord, OpenRun, Opened, RunChain, RunEnd, RunOutcome, StdinMode,
};
use chv_sandbox::guest::record::{RECORD_HEADER, RecordHeader, RecordKind};
use chv_sandbox::vsock::RunStream;
use tokio::net::UnixListener;

use super::*;

/// A channel to a guest that has all extensions, and the socket on which the guest accepts further connections.
struct Scene {
    /// Keeps the folder until the end of the test.
    _vm: Vm,
    channel: Channel,
    _guest: Guest,
    listener: UnixListener,
}

impl Scene {
    async fn new() -> Scene {
        Scene::with(Hello::of_this_build(), |limits| limits).await
    }

    async fn with(hello: Hello, change: impl Fn(TimeLimits) -> TimeLimits) -> Scene {
        let vm = Vm::new();
        let listener = vm.listen();
        let mut config = vm.config();
        config.limits = change(config.limits);
        let greeted = async {
            let (mut guest, _) = Guest::accept(&listener).await;
            guest.send_bytes(b"OK 1073741824\n").await;
            assert!(matches!(guest.read().await, Frame::Hello(_)));
            guest.send(&Frame::Hello(hello)).await;
            guest
        };
        let opened = async {
            let channel = Channel::open(&config).await.unwrap();
            channel.hello(LIMIT).await.unwrap();
            channel
        };
        let (channel, guest) = tokio::join!(opened, greeted);
        Scene {
            _vm: vm,
            channel,
            _guest: guest,
            listener,
        }
    }

    /// Accepts a further connection and reads its first frame.
    async fn accept(&self) -> (Guest, Frame) {
        let (mut guest, line) = Guest::accept(&self.listener).await;
        assert_eq!(line, "CONNECT 1024\n");
        guest.send_bytes(b"OK 1073741825\n").await;
        let frame = guest.read().await;
        (guest, frame)
    }

    /// Opens a run. Returns it and the guest's end of it.
    async fn run(&self, stdin: StdinMode) -> (RunStream, RunGuest) {
        let accept = async {
            let (mut guest, frame) = self.accept().await;
            guest.send(&Frame::Opened(Opened {})).await;
            RunGuest::of(guest, &frame)
        };
        let (run, guest) = tokio::join!(self.channel.open_run(open_run(stdin)), accept);
        (run.unwrap(), guest)
    }

    /// Checks that the channel still carries requests.
    async fn assert_channel_goes_on(&self) {
        assert!(!self.channel.is_poisoned(), "{:?}", self.channel.closed());
    }
}

fn open_run(stdin: StdinMode) -> OpenRun {
    OpenRun {
        command_id: "r1".to_owned(),
        tool: ToolName::new("sh").unwrap(),
        params: json!({"script": "true"}),
        deadline_ms: 20_000,
        stdin,
        env: BTreeMap::new(),
        cwd: None,
    }
}

/// The guest's end of a run. It computes the chains as an honest guest does.
struct RunGuest {
    guest: Guest,
    to_guest: RunChain,
    to_host: RunChain,
    taken: u64,
    totals: [u64; 2],
}

impl RunGuest {
    fn of(guest: Guest, frame: &Frame) -> RunGuest {
        let body = encode(frame).unwrap().split_off(4);
        RunGuest {
            guest,
            to_guest: RunChain::new(Direction::ToGuest, &body),
            to_host: RunChain::new(Direction::ToHost, &body),
            taken: 0,
            totals: [0; 2],
        }
    }

    async fn output(&mut self, kind: RecordKind, body: &[u8]) {
        self.to_host.append(kind, body);
        self.totals[usize::from(kind == RecordKind::Stderr)] += body.len() as u64;
        self.guest.send_bytes(&record(kind, body)).await;
    }

    async fn stdout(&mut self, body: &[u8]) {
        self.output(RecordKind::Stdout, body).await;
    }

    /// Reads the next record of the host.
    async fn take(&mut self) -> (RecordKind, Vec<u8>) {
        let mut header = [0; RECORD_HEADER];
        self.guest.stream.read_exact(&mut header).await.unwrap();
        let header = RecordHeader::decode(header).unwrap();
        let mut body = vec![0; header.length];
        self.guest.stream.read_exact(&mut body).await.unwrap();
        self.to_guest.append(header.kind, &body);
        self.taken += 1;
        (header.kind, body)
    }

    /// The last record of an honest guest.
    fn end(&self) -> RunEnd {
        RunEnd {
            outcome: RunOutcome::Exited { code: 0 },
            stdout_total: self.totals[0],
            stderr_total: self.totals[1],
            cut: false,
            to_guest_hash: RunChain::text(&self.to_guest.link()),
            to_host_hash: RunChain::text(&self.to_host.link()),
            records_taken: self.taken,
        }
    }

    async fn send_end(&mut self, end: &RunEnd) {
        let bytes = record(RecordKind::End, &end.encode());
        self.guest.send_bytes(&bytes).await;
    }
}

fn record(kind: RecordKind, body: &[u8]) -> Vec<u8> {
    let header = RecordHeader::of(kind, body).unwrap();
    [&header.encode()[..], body].concat()
}
