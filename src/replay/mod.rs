//! Records the exchanges with a real VMM and replays them, for tests where there is no KVM.
//!
//! ```text
//!   client --> Recorder --> api-socket of a real VMM        record once, where there is KVM
//!                 |
//!                 v
//!             Cassette  (a JSON file: release, exchanges in order)
//!                 |
//!                 v
//!   client --> Player                                       replay anywhere
//! ```
//!
//! A [`Cassette`] holds the requests to a real VMM and its answers, in order. A [`Recorder`] makes a cassette: it is a
//! proxy in front of a real api-socket. A [`Player`] serves a cassette on a Unix socket of its own, with the bytes that
//! a real VMM would send. It can be told to misbehave at a step ([`Fault`]).
//!
//! There is one matching rule, [`Script`]: requests come in strict order, with the same method, path, body and number
//! of open files. A request that does not match is answered with status 500 and recorded as a [`Mismatch`];
//! [`Player::finish`] then fails. It also fails if recorded steps were not played. So a test that replays can't pass
//! with other requests than the recorded ones.
//!
//! A cassette holds nothing that differs from run to run. Path prefixes are written as placeholders (`${RUN}`), which
//! the player replaces with its own paths. The process id in the answer to `vmm.ping` is always 1.
//!
//! # Example
//!
//! A downstream test drives its own code against a recording:
//!
//! ```
//! use chv_sandbox::replay::{Cassette, Player, PlayerOptions};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let cassette: Cassette = r#"{
//!     "format": 1,
//!     "release": "v53.0",
//!     "exchanges": [{
//!         "request": { "method": "PUT", "path": "/api/v1/vm.snapshot",
//!                      "body": { "destination_url": "file://${RUN}/snapshot" } },
//!         "response": { "status": 204 }
//!     }]
//! }"#
//! .parse()?;
//!
//! let folder = tempfile::tempdir()?;
//! let options = PlayerOptions::new(folder.path().join("api.sock")).substitute("RUN", "/tmp/run-7");
//! let player = Player::start(cassette, options).await?;
//!
//! // In place of these lines stands the code under test, with `player.socket()` as its api-socket.
//! let mut stream = tokio::net::UnixStream::connect(player.socket()).await?;
//! let body = r#"{"destination_url":"file:///tmp/run-7/snapshot"}"#;
//! let head = format!("PUT /api/v1/vm.snapshot HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len());
//! stream.write_all((head + body).as_bytes()).await?;
//! let mut status = [0; 12];
//! stream.read_exact(&mut status).await?;
//! assert_eq!(&status, b"HTTP/1.1 204");
//!
//! player.finish().await?; // fails if something else was asked, or not everything
//! # Ok(())
//! # }
//! ```

mod cassette;
mod descriptors;
mod error;
mod file_format;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod json_text;
mod matching;
mod placeholder;
mod player;
mod recorded_vmm;
mod recorder;
mod recording;
mod response;
mod sandbox;
pub(crate) mod vmm_connection;
pub(crate) mod wire;

pub use cassette::{
    Answer, Cassette, CassetteError, Exchange, RecordedRequest, RecordedResponse, RequestBody,
    ResponseBody,
};
pub use error::Error;
pub use matching::{Mismatch, Script};
pub use player::{Fault, HookError, Played, Player, PlayerOptions};
pub use recorded_vmm::{RecordedSession, RecordedVmm, ResetFailure, recorded_release};
pub use recorder::{Recorder, RecorderOptions};
pub use sandbox::{ReplayBuilder, ReplaySandbox};
