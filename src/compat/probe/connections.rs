//! How many connections a server takes.

use std::path::Path;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::Error;
use super::session::request;
use crate::replay::wire::Reader;

/// As many as every recorded release takes (micro_http, `server.rs`, from v44.0 to v53.0).
pub(super) const RECORDED: usize = 10;

/// Where counting stops.
const MOST: usize = 64;

/// How long a connection may take to be served.
const LIMIT: Duration = Duration::from_secs(5);

/// Opens connections until one is turned away; how many were served, [`MOST`] at most.
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
        // One that is turned away may be closed before this is sent; its answer tells.
        let _ = stream.write_all(&ping).await;
        let mut reader = Reader::new(stream);
        match timeout(LIMIT, reader.answer()).await {
            Ok(Ok(Some(answer))) if answer.status == 200 => open.push(reader),
            _ => break,
        }
    }
    Ok(open.len())
}
