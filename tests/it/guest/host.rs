//! The host's end of a connection to a dispatcher that runs in this process.

use std::io::{self, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use chv_sandbox::guest::dispatcher::{Confinement, Dispatcher, ServeError, System, Toolbox};
use chv_sandbox::guest::frame::{read_frame, write_frame};
use chv_sandbox::guest::protocol::{
    EvidenceChain, EvidenceChunk, Frame, GuestProcess, MemUsage, ToolDispatch, ToolName, ToolResult,
};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags};
use serde_json::Value;

/// How long any answer may take before a test fails.
pub(super) const LIMIT: Duration = Duration::from_secs(60);

pub(super) struct Host {
    stream: UnixStream,
    served: JoinHandle<Result<(), ServeError>>,
}

impl Host {
    /// A dispatcher with every built-in tool and a stand-in for the system.
    pub(super) fn new() -> Host {
        Host::with(
            Toolbox::built_in().with_shell(),
            &Confinement::in_process(),
            FakeSystem::default(),
        )
    }

    pub(super) fn with(
        toolbox: Toolbox,
        confinement: &Confinement,
        system: impl System + 'static,
    ) -> Host {
        Host::connect(Dispatcher::new(toolbox, confinement, system).unwrap())
    }

    /// Opens one more connection to `dispatcher`.
    pub(super) fn connect(dispatcher: Dispatcher) -> Host {
        Host::connect_prepared(dispatcher, || ())
    }

    /// The same as [`connect`](Host::connect), where the dispatcher's thread first runs `prepare`.
    pub(super) fn connect_prepared(
        dispatcher: Dispatcher,
        prepare: impl FnOnce() + Send + 'static,
    ) -> Host {
        let (stream, guest) = UnixStream::pair().unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let served = std::thread::spawn(move || {
            prepare();
            dispatcher.serve(guest)
        });
        Host { stream, served }
    }

    pub(super) fn send(&self, frame: &Frame) {
        write_frame(&mut &self.stream, frame).unwrap();
    }

    pub(super) fn send_bytes(&self, bytes: &[u8]) {
        (&self.stream).write_all(bytes).unwrap();
    }

    pub(super) fn receive(&self) -> Frame {
        let frame = read_frame(&mut &self.stream).unwrap();
        frame.expect("a frame and not the connection's end")
    }

    pub(super) fn ask(&self, frame: &Frame) -> Frame {
        self.send(frame);
        self.receive()
    }

    pub(super) fn dispatch(&self, id: &str, tool: &str, params: Value, deadline: Duration) {
        self.send(&Frame::ToolDispatch(ToolDispatch {
            command_id: id.to_owned(),
            tool: ToolName::new(tool).unwrap(),
            params,
            deadline_ms: deadline.as_millis().try_into().unwrap(),
        }));
    }

    /// The next result. The chunks before it are checked as its evidence.
    pub(super) fn result(&self) -> ToolResult {
        self.evidence().1
    }

    /// The next result, with its evidence.
    pub(super) fn evidence(&self) -> (Vec<EvidenceChunk>, ToolResult) {
        let mut chunks = Vec::new();
        let result = loop {
            match self.receive() {
                Frame::EvidenceChunk(chunk) => chunks.push(chunk),
                Frame::ToolResult(result) => break result,
                other => panic!("{other:?} is no result"),
            }
        };
        let mut chain = EvidenceChain::default();
        let mut output = Vec::new();
        for (at, chunk) in chunks.iter().enumerate() {
            assert_eq!(chunk.command_id, result.command_id);
            assert_eq!(chunk.seq, at as u64 + 1);
            assert_eq!(chunk.is_terminal, at + 1 == chunks.len());
            chain.append(chunk);
            output.extend(&chunk.chunk_data);
        }
        assert_eq!(result.evidence_hash, Some(chain.last_link()));
        match result.details {
            Some(details) => {
                assert!(details.stdout_kept <= details.stdout_total, "{details:?}");
                assert!(details.stderr_kept <= details.stderr_total, "{details:?}");
                let kept = details.stdout_kept + details.stderr_kept;
                assert_eq!(kept, output.len() as u64);
                let (stdout, stderr) = output.split_at(details.stdout_kept as usize);
                assert!(String::from_utf8_lossy(stdout) == result.stdout);
                assert!(String::from_utf8_lossy(stderr) == result.stderr);
            }
            None => {
                let told = [result.stdout.as_str(), &result.stderr].concat();
                assert!(String::from_utf8_lossy(&output) == told, "{result:?}");
            }
        }
        (chunks, result)
    }

    pub(super) fn run(&self, tool: &str, params: Value) -> ToolResult {
        self.dispatch("the-command", tool, params, LIMIT);
        let result = self.result();
        assert_eq!(result.command_id, "the-command");
        result
    }

    pub(super) fn script(&self, script: &str) -> ToolResult {
        self.run("sh", serde_json::json!({ "script": script }))
    }

    /// Ends the connection between two frames and returns how the dispatcher took it.
    pub(super) fn close(self) -> Result<(), ServeError> {
        self.stream.shutdown(Shutdown::Write).unwrap();
        assert!(read_frame(&mut &self.stream).unwrap().is_none());
        self.served.join().unwrap()
    }

    /// Waits until the dispatcher ends the connection, and returns its error.
    pub(super) fn closed(self) -> ServeError {
        assert!(read_frame(&mut &self.stream).unwrap().is_none());
        self.served.join().unwrap().unwrap_err()
    }
}

/// A stand-in for the guest's system: records the changes that it is asked for, and returns fixed readings.
#[derive(Clone, Default)]
pub(super) struct FakeSystem {
    pub(super) changes: Arc<Mutex<Vec<String>>>,
    pub(super) fails: bool,
}

impl FakeSystem {
    fn change(&self, change: String) -> io::Result<()> {
        self.answer(())?;
        self.changes.lock().unwrap().push(change);
        Ok(())
    }

    fn answer<T>(&self, answer: T) -> io::Result<T> {
        match self.fails {
            true => Err(io::Error::other("as the test asked")),
            false => Ok(answer),
        }
    }
}

impl System for FakeSystem {
    fn open_fd_count(&self) -> io::Result<u64> {
        self.answer(7)
    }

    fn mem_usage(&self) -> io::Result<MemUsage> {
        self.answer(MemUsage {
            bytes_used: 1,
            bytes_total: 2,
        })
    }

    fn process_list(&self) -> io::Result<Vec<GuestProcess>> {
        self.answer(vec![GuestProcess {
            name: "init".to_owned(),
            pid: 1.try_into().unwrap(),
        }])
    }

    fn reseed(&self, seed: &[u8; 32]) -> io::Result<()> {
        self.change(format!("reseed {}", seed[0]))
    }

    fn set_clock(&self, now: Duration) -> io::Result<()> {
        self.change(format!("set clock {}", now.as_nanos()))
    }

    fn clock(&self) -> Duration {
        Duration::from_millis(5_000)
    }
}

/// Whether the process ends within the limit. A process that is gone, or is a zombie, has ended.
pub(super) fn ends(pid: i32) -> bool {
    let Ok(pidfd) = rustix::process::pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty())
    else {
        return true;
    };
    let limit = Timespec::try_from(LIMIT).unwrap();
    let mut polled = [PollFd::new(&pidfd, PollFlags::IN)];
    rustix::event::poll(&mut polled, Some(&limit)).unwrap() == 1
}
