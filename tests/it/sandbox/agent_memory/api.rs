//! Attacks by a VMM, through the answers of its API.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;

use chv_sandbox::api::types::{VmConfig, VmInfo};
use chv_sandbox::api::{self, Operation, Request};
use chv_sandbox::client::{Client, Deadlines, Error, ErrorKind};
use chv_sandbox::limits::TimeLimits;
use serde_json::Value;

use super::runtime;

/// The longest answer to `vm.info` that the client reads.
const LONGEST: usize = 4 << 20;

/// The result of a request whose answer is written by `answer`.
fn asked<T>(
    request: Request<T>,
    answer: impl FnOnce(&mut UnixStream) + Send + 'static,
) -> Result<T, Error> {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("api.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        for line in BufReader::with_capacity(1, stream.try_clone().unwrap()).lines() {
            if line.unwrap().is_empty() {
                break;
            }
        }
        answer(&mut stream);
    });
    // The bodies are long for a client that isn't optimised.
    let deadlines = Deadlines::from(TimeLimits::default().scaled(10));
    let client = Client::new(socket).unwrap().with_deadlines(deadlines);
    runtime().block_on(client.send(request))
}

/// Writes an answer whose body begins with `begin`, ends with `end`, and has as many items between them as make it
/// `length` bytes long. The body is never held in memory as a whole.
fn write(
    stream: &mut UnixStream,
    status: u16,
    length: usize,
    begin: &str,
    item: impl Fn(usize) -> String,
    end: &str,
) {
    let items = (length - begin.len() - end.len()) / item(0).len();
    let whole = begin.len() + items * item(0).len() + end.len();
    // The client may close before it has read everything.
    let _ = write!(
        stream,
        "HTTP/1.1 {status} \r\nContent-Length: {whole}\r\n\r\n{begin}"
    );
    for at in 0..items {
        if stream.write_all(item(at).as_bytes()).is_err() {
            return;
        }
    }
    let _ = stream.write_all(end.as_bytes());
}

const BEGIN: &str = r#"{"state":"Running","memory_actual_size":1,"config":{"payload":{}},"#;

fn answered(
    length: usize,
    begin: &str,
    item: &'static str,
    end: &'static str,
) -> Result<VmInfo, Error> {
    let begin = format!("{BEGIN}{begin}");
    asked(api::vm_info(), move |stream| {
        write(stream, 200, length, &begin, |_| item.to_owned(), end);
    })
}

fn is_refused<T>(answer: Result<T, Error>) {
    let Err(error) = answer else {
        panic!("it was read");
    };
    assert_eq!(*error.kind(), ErrorKind::Decode, "{error}");
}

pub(super) fn too_long() {
    is_refused(answered(16 << 20, "\"x\":[", "{\"a\":1},", "0]}"));
}

/// As many unknown fields as the client allows, each with a name of its own.
pub(super) fn unknown_fields() {
    let answer = asked(api::vm_info(), |stream| {
        let item = |at: usize| format!("\"{at:08}\":\"{}\",", "x".repeat(20));
        write(stream, 200, LONGEST, BEGIN, item, "\"z\":0}");
    });
    let info = answer.unwrap();
    assert!(info.unknown.get("00012345").is_some() && info.unknown.get("z").is_some());
    drop(info.clone());
}

pub(super) fn unknown_tree() {
    is_refused(answered(LONGEST, "\"x\":[", "{\"a\":[]},", "0]}"));
    let text = answered(LONGEST, "\"x\":\"", "[{}],\\n", "\"}").unwrap();
    assert!(text.unknown.get("x").is_some());
}

/// Lists of known types, whose values take more memory than their text: an empty disk is a large struct.
pub(super) fn known_lists() {
    let lists = [r#""disks":["#, r#""net":["#, r#""fs":["#];
    for list in lists {
        let begin = format!(
            r#"{{"state":"Running","memory_actual_size":1,"config":{{"payload":{{}},{list}"#
        );
        let item = if list.contains("fs") {
            r#"{"tag":"","socket":""},"#
        } else {
            "{},"
        };
        let last = &item[..item.len() - 1];
        for (items, taken) in [(16_000, true), (100_000, false)] {
            let body = format!("{begin}{}{last}]}}}}", item.repeat(items));
            let answer = asked(api::vm_info(), move |stream| {
                let length = body.len();
                let _ = write!(
                    stream,
                    "HTTP/1.1 200 \r\nContent-Length: {length}\r\n\r\n{body}"
                );
            });
            match taken {
                true => assert!(answer.unwrap().config != VmConfig::default()),
                false => is_refused(answer),
            }
        }
    }
}

pub(super) fn chunks_of_one_byte() {
    let answer = asked(api::vmm_ping(), |stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n");
        let chunks = "1\r\n \r\n".repeat(10_000);
        while stream.write_all(chunks.as_bytes()).is_ok() {}
    });
    // A slow machine may reach the deadline before the limit.
    let error = answer.unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::Decode | ErrorKind::Deadline { .. }),
        "{error}"
    );
}

/// An answer that is decoded as a tree, because the caller asks for one.
pub(super) fn raw_answer() {
    let answer: Value = asked(Request::raw(Operation::VmInfo, None), |stream| {
        let item = |at: usize| format!("\"{at:08}\":\"{}\",", "x".repeat(20));
        write(stream, 200, LONGEST, "{", item, "\"z\":0}");
    })
    .unwrap()
    .unwrap();
    assert_eq!(answer["z"], 0);
}

pub(super) fn error_chain() {
    let error = asked(api::vm_info(), |stream| {
        write(
            stream,
            500,
            LONGEST,
            "[",
            |_| "\"\\u001b[2J\\u202e\\n\",".to_owned(),
            "\"\"]",
        );
    })
    .unwrap_err();
    let said = error.to_string();
    assert!(
        said.chars().count() < 200_000 && !said.contains(['\u{1b}', '\n']),
        "{said:.200}"
    );
}
