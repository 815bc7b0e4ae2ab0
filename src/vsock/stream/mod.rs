//! [`RecordStream`]: the connection of a run with streams or of a transfer of files. See
//! [`protocol`](crate::guest::protocol#streams).
//!
//! ```text
//!          connect, handshake, first frame        Opened           End, a bad record, the guest closes,
//!   (nothing) ---------------------------> opening ------> records ---------------------------------> ended
//!                                             |                        either half closes it
//!                                             +-- ErrorEvent, no answer in time --> (refused)
//! ```
//!
//! A connection is opened through the socket of its [`Channel`](super::Channel). The guest has booted by then, so a
//! failed attempt isn't repeated. The limit `handshake` applies to connecting and the answer together. Once open, the
//! connection stays open even if the channel is closed. If the guest breaks the protocol on it, only this connection
//! ends.
//!
//! The two halves are independent: [`RecordReader`] can read while [`RecordWriter`] waits for a guest that doesn't
//! read, and the other way round. Neither holds more than one record.

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

/// An open connection, as its two halves.
#[derive(Debug)]
#[non_exhaustive]
pub struct RecordStream {
    /// Reads the records that the guest sends.
    pub reader: RecordReader,
    /// Sends records to the guest.
    pub writer: RecordWriter,
}

impl RecordStream {
    /// One end of an open connection. The other end may send records of the kinds in `admitted`. `come` are bytes of
    /// records that were read already.
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

    /// A handle that can close the connection while its halves are in use.
    pub(crate) fn closer(&self) -> StreamCloser {
        StreamCloser(Arc::clone(&self.reader.stream))
    }
}

/// Closes the connection of a run or transfer, for both halves.
#[derive(Clone)]
pub(crate) struct StreamCloser(Arc<UnixStream>);

impl StreamCloser {
    pub(super) fn stream(&self) -> Arc<UnixStream> {
        Arc::clone(&self.0)
    }

    /// Closes the connection in both directions. Records that the guest had sent before can still be read; after them
    /// the reader gets [`Error::Closed`](super::Error::Closed). The writer fails.
    pub(crate) fn close(&self) {
        // This fails if the connection has ended already.
        let _ = rustix::net::shutdown(&*self.0, Shutdown::Both);
    }
}

impl fmt::Debug for StreamCloser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StreamCloser")
    }
}
