//! Recording and replaying of exchanges with a VMM, for tests where there is no KVM.
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
//! A [`Cassette`] is what a real VMM was asked and what it answered, in order. A [`Recorder`] makes one: it
//! stands in front of a real api-socket. A [`Player`] serves one on a Unix socket of its own, with the bytes
//! that a real VMM would send, and can be told to misbehave at a step ([`Fault`]).
//!
//! There is one matching rule, [`Script`]: strict order, and the same method, path, body and number of open files
//! sent with it. A request that was not recorded is answered 500 and remembered; [`Player::finish`] then fails, and also if steps are left over.
//! So a test that replays can't pass by asking for something else than what was recorded.
//!
//! What differs from run to run is not in a cassette: path prefixes stand as placeholders (`${RUN}`), which the
//! player replaces by its own paths, and the process id of `vmm.ping` is always 1.
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
mod file;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod layout;
mod player;
mod recorded_vmm;
mod recorder;
mod response;
mod sandbox;
mod script;
mod substitution;
mod tape;
pub(crate) mod upstream;
pub(crate) mod wire;

pub use cassette::{
    Answer, Cassette, CassetteError, Exchange, RecordedRequest, RecordedResponse, RequestBody,
    ResponseBody,
};
pub use error::Error;
pub use player::{Fault, HookError, Played, Player, PlayerOptions};
pub use recorded_vmm::{Divergence, RecordedSession, RecordedVmm, recorded_release};
pub use recorder::{Recorder, RecorderOptions};
pub use sandbox::{ReplayBuilder, ReplaySandbox};
pub use script::{Mismatch, Script};
