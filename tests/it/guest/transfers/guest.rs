//! A guest with a directory for files, and the host's end of its transfers.

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread::JoinHandle;

use chv_sandbox::archive::TransferLimits;
use chv_sandbox::digest::Digest;
use chv_sandbox::guest::dispatcher::{Confinement, Dispatcher, ServeError, Toolbox};
use chv_sandbox::guest::frame::{read_frame, write_frame};
use chv_sandbox::guest::protocol::{Frame, JsonRecord, OpenPull, OpenPush, Opened, TransferEnd};
use chv_sandbox::guest::record::{MAX_RECORD, RECORD_HEADER, RecordHeader, RecordKind};
use tempfile::TempDir;
use uuid::Uuid;

use crate::guest::host::{FakeSystem, LIMIT};

/// A guest that takes files into, and gives files from, a temporary directory.
pub(super) struct Guest {
    pub(super) dispatcher: Dispatcher,
    pub(super) folder: TempDir,
}

/// The connection of one transfer.
pub(super) struct Transfer {
    pub(super) stream: UnixStream,
    pub(super) served: JoinHandle<Result<(), ServeError>>,
}

impl Guest {
    pub(super) fn new() -> Guest {
        let folder = tempfile::tempdir().unwrap();
        let files = folder.path().canonicalize().unwrap().join("work");
        fs::create_dir(&files).unwrap();
        let toolbox = Toolbox::built_in().with_files_directory(files.to_str().unwrap());
        let confinement = Confinement::in_process();
        Guest {
            dispatcher: Dispatcher::new(toolbox.unwrap(), &confinement, FakeSystem::default())
                .unwrap(),
            folder,
        }
    }

    pub(super) fn files(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    /// The names in the guest's directory for files.
    pub(super) fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.files()).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    pub(super) fn open(&self, frame: &Frame) -> Transfer {
        let (stream, guest) = UnixStream::pair().unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let dispatcher = self.dispatcher.clone();
        let served = std::thread::spawn(move || dispatcher.serve(guest));
        write_frame(&mut &stream, frame).unwrap();
        let answer = read_frame(&mut &stream).unwrap();
        assert_eq!(answer, Some(Frame::Opened(Opened {})));
        Transfer { stream, served }
    }

    pub(super) fn push(&self, path: &str) -> Transfer {
        self.push_within(path, TransferLimits::default())
    }

    pub(super) fn push_within(&self, path: &str, limits: TransferLimits) -> Transfer {
        self.open(&Frame::OpenPush(OpenPush {
            transfer_id: Uuid::new_v4(),
            path: path.to_owned(),
            limits,
        }))
    }

    pub(super) fn pull(&self, path: &str) -> Transfer {
        self.pull_within(path, TransferLimits::default())
    }

    pub(super) fn pull_within(&self, path: &str, limits: TransferLimits) -> Transfer {
        self.open(&Frame::OpenPull(OpenPull {
            transfer_id: Uuid::new_v4(),
            path: path.to_owned(),
            limits,
        }))
    }

    /// Checks that a push fails, and that it adds nothing to the directory.
    #[track_caller]
    pub(super) fn refuses_push(
        &self,
        path: &str,
        send: impl FnOnce(&Transfer),
        code: &str,
        why: &str,
    ) {
        let before = self.names();
        let transfer = self.push(path);
        send(&transfer);
        transfer.fails(code, why);
        assert_eq!(self.names(), before);
    }
}

impl Transfer {
    pub(super) fn send(&self, kind: RecordKind, body: &[u8]) {
        let header = RecordHeader::of(kind, body).unwrap().encode();
        (&self.stream).write_all(&[&header, body].concat()).unwrap();
    }

    pub(super) fn data(&self, stream: &[u8]) {
        for piece in stream.chunks(MAX_RECORD) {
            self.send(RecordKind::Data, piece);
        }
    }

    pub(super) fn all(&self, stream: &[u8]) {
        self.data(stream);
        self.send(RecordKind::EndOfData, Digest::of(stream).as_bytes());
    }

    pub(super) fn receive(&self) -> (RecordKind, Vec<u8>) {
        let mut header = [0; RECORD_HEADER];
        (&self.stream).read_exact(&mut header).unwrap();
        let header = RecordHeader::decode(header).unwrap();
        let mut body = vec![0; header.length];
        (&self.stream).read_exact(&mut body).unwrap();
        (header.kind, body)
    }

    /// The last record, after which the connection ends.
    pub(super) fn end(self) -> TransferEnd {
        let (kind, body) = self.receive();
        assert_eq!(kind, RecordKind::End);
        assert_eq!((&self.stream).read(&mut [0]).unwrap(), 0);
        self.stream.shutdown(Shutdown::Both).unwrap();
        self.served.join().unwrap().unwrap();
        TransferEnd::decode(&body).unwrap()
    }

    #[track_caller]
    pub(super) fn succeeds(self) -> TransferEnd {
        let end = self.end();
        assert_eq!((&end.code, &end.message), (&None, &None));
        end
    }

    #[track_caller]
    pub(super) fn fails(self, code: &str, why: &str) {
        let end = self.end();
        let message = end.message.unwrap_or_default();
        assert_eq!(end.code.as_deref(), Some(code), "{message}");
        assert!(message.contains(why), "{message}");
        assert_eq!(end.sha256, Digest::OF_NOTHING);
    }
}
