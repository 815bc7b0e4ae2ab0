//! Counts the connections that a server accepts at once.

use std::path::Path;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::Error;
use super::session::request;
use crate::replay::wire::Reader;

/// The number of connections that every recorded release accepts (`micro_http`, `server.rs`, from v44.0 to v53.0).
pub(super) const RECORDED: usize = 10;

/// The number at which counting stops.
const MOST: usize = 64;

/// The time within which a connection has to be served.
const LIMIT: Duration = Duration::from_secs(5);

/// Opens connections until the server closes one. Returns how many were served, at most [`MOST`].
pub(super) async fn count(socket: &Path) -> Result<usize, Error> {
    let mut open = Vec::new();
    while open.len() < MOST {
        let failed = |source| Error::Connection {
            asked: "GET /api/v1/vmm.ping".to_owned(),
            socket: socket.to_owned(),
            source,
        };
        let mut stream = UnixStream::connect(socket).await.map_err(failed)?;
        let ping = request("GET", "/api/v1/vmm.ping", b"");
        // A connection that the server refuses may be closed before this is sent. Reading the answer shows it.
        let _ = stream.write_all(&ping).await;
        let mut reader = Reader::new(stream);
        match timeout(LIMIT, reader.answer()).await {
            Ok(Ok(Some(answer))) if answer.status == 200 => open.push(reader),
            _ => break,
        }
    }
    Ok(open.len())
}
