//! Fuzz targets.

use std::cell::RefCell;

use bytes::Bytes;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::runtime::Runtime;

use super::event_monitor::Decoder;
use super::transport::Connection;
use super::{kind_of, messages_in};
use crate::api::Operation;

thread_local! {
    static RUNTIME: RefCell<Runtime> = RefCell::new(
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime"),
    );
}

/// The answer of a VMM. The first byte says to which operation. Each message of an error is a line of printable text.
pub(crate) fn http_answer(bytes: &[u8]) {
    let Some((&operation, answer)) = bytes.split_first() else {
        return;
    };
    let operation = Operation::ALL[usize::from(operation) % Operation::ALL.len()];
    let exchange = async {
        let (ours, mut theirs) = tokio::io::duplex(answer.len() + (64 << 10));
        theirs.write_all(answer).await.expect("there is room");
        theirs.shutdown().await.expect("shut down");
        let mut connection = Connection::on(TokioIo::new(ours))
            .await
            .expect("a connection");
        connection.exchange(operation, Bytes::new()).await
    };
    if let Ok(answer) = RUNTIME.with_borrow_mut(|runtime| runtime.block_on(exchange)) {
        let _ = kind_of(operation, answer.status, &answer.body);
        for message in messages_in(&answer.body) {
            assert!(!message.chars().any(char::is_control), "{message:?}");
        }
    }
}

/// The bytes of an event monitor. The first byte says in what pieces they come. Pieces of any size give the same
/// events.
pub(crate) fn event_monitor(bytes: &[u8]) {
    let Some((&piece, stream)) = bytes.split_first() else {
        return;
    };
    let read = |size: usize| {
        let mut decoder = Decoder::default();
        let mut events = Vec::new();
        for piece in stream.chunks(size) {
            decoder.push(piece, |event| events.push(event));
        }
        events
    };
    assert_eq!(read(usize::from(piece) + 1), read(stream.len().max(1)));
}
