//! Connections of their own: a run with streams, a transfer of files. See
//! [`protocol`](crate::guest::protocol#streams).
//!
//! ```text
//!          connect, handshake, first frame        Opened           End, a bad record, the guest closes,
//!   (nothing) ---------------------------> opening ------> records ---------------------------------> ended
//!                                             |                        either half closes it
//!                                             +-- ErrorEvent, no answer in time --> (refused)
//! ```
//!
//! A connection is opened through the socket of its [`Channel`](super::Channel), by a guest that is up: nothing is tried
//! again, and all of it has the time of one handshake. It then goes on when the channel is closed. What the guest does wrong on
//! it ends this connection alone.
//!
//! Its halves are independent: [`RecordReader`] reads while [`RecordWriter`] waits for a guest that doesn't read, and the other
//! way round. Neither holds more than one record.

mod open;
mod reader;
mod writer;

pub use reader::{Record, RecordReader};
pub use writer::RecordWriter;

use std::fmt;
use std::sync::Arc;

use rustix::net::Shutdown;
use tokio::net::UnixStream;

use super::Origin;
use crate::guest::record::RecordKind;

/// A connection that is open, before its halves go their ways.
#[derive(Debug)]
#[non_exhaustive]
pub struct RecordStream {
    /// What the guest sends.
    pub reader: RecordReader,
    /// What goes to the guest.
    pub writer: RecordWriter,
}

impl RecordStream {
    /// One end of a connection that is open: the other end sends records of the kinds that are `admitted`.
    pub(super) fn on(
        stream: UnixStream,
        origin: Origin,
        admitted: &'static [RecordKind],
        come: &[u8],
    ) -> RecordStream {
        let stream = Arc::new(stream);
        RecordStream {
            reader: RecordReader::new(origin.clone(), Arc::clone(&stream), admitted, come),
            writer: RecordWriter::new(origin, stream),
        }
    }

    /// A handle that closes the connection while its halves are in use elsewhere.
    pub fn closer(&self) -> StreamCloser {
        StreamCloser(Arc::clone(&self.reader.stream))
    }
}

/// Closes a connection for both of its halves.
#[derive(Clone)]
pub struct StreamCloser(Arc<UnixStream>);

impl StreamCloser {
    pub(super) fn stream(&self) -> Arc<UnixStream> {
        Arc::clone(&self.0)
    }

    /// Closes the connection: the guest takes and sends nothing more. What it had sent before can still be read; after that
    /// the reader finds the end, and the writer fails.
    pub fn close(&self) {
        // It has ended already where this fails.
        let _ = rustix::net::shutdown(&*self.0, Shutdown::Both);
    }
}

impl fmt::Debug for StreamCloser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StreamCloser")
    }
}
