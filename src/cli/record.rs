//! `chv-sandbox record`: records the exchanges between a client and a VMM as a cassette.

use std::fs;
use std::future::ready;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::pin::pin;

use chv_sandbox::causes::Causes;
use chv_sandbox::replay::{self, Cassette, Recorder, RecorderOptions};
use tempfile::NamedTempFile;

use super::interrupt::Interrupt;
use super::status::{self, Status};
use super::{Failure, usage};

/// Records the API exchanges between a client and a real VMM as a cassette, for replay without KVM.
///
/// Listens on --listen for the client, forwards each request to the VMM on --socket, and records both directions.
/// Writes the cassette when Ctrl-C is pressed or the VMM ends. Give each path that differs from run to run with
/// --stable, so that the cassette has ${NAME} in its place.
#[derive(clap::Args)]
#[command(after_help = status::help(&[
    (Status::Yes, "the VMM ended or a signal (Ctrl-C) ended the recording, and the cassette is written"),
    (Status::Undecided, "nothing was recorded, or the recording is incomplete or in another place, as the error says"),
    (Status::Interrupted, "interrupted (SIGINT) before the recording began, or a second time"),
    (Status::Terminated, "terminated (SIGTERM) before the recording began, or a second time"),
]))]
pub(crate) struct Args {
    /// The api-socket of the VMM to record.
    #[arg(long)]
    socket: PathBuf,
    /// The socket to listen on for the client; the path must not exist yet.
    #[arg(long)]
    listen: PathBuf,
    /// The cassette file to write. An existing file is replaced; the directory must exist.
    #[arg(long)]
    out: PathBuf,
    /// Replace this text by ${NAME} in the cassette, for example /tmp/run-7=RUN; may be repeated.
    #[arg(long, value_name = "PREFIX=NAME", value_parser = stable)]
    stable: Vec<(String, String)>,
    /// A note for readers of the cassette.
    #[arg(long)]
    notes: Option<String>,
}

/// Runs `chv-sandbox record`.
pub(crate) async fn run(args: Args) -> Result<Status, Failure> {
    let interrupt = Interrupt::catch()?;
    let out = writable(&args.out)?;
    let mut options = RecorderOptions::new(args.socket, &args.listen);
    for (text, name) in args.stable {
        options = options.placeholder(text, name);
    }
    if let Some(notes) = args.notes {
        options = options.notes(notes);
    }
    let recorder = match interrupt.race(Recorder::start(options)).await? {
        Err(error @ replay::Error::PlaceholderName { .. }) => {
            return Err(usage("record", format_args!("--stable: {error}")));
        }
        started => started?,
    };
    eprintln!(
        "recording {} on {}; Ctrl-C ends it",
        recorder.release(),
        args.listen.display()
    );
    let why = match interrupt.race(recorder.ended()).await {
        Ok(()) => "the VMM ended".to_owned(),
        Err(signalled) => signalled.to_string(),
    };
    let (cassette, failure) = finish(recorder, &why).await;
    write(&cassette, &out)?;
    let exchanges = cassette.exchanges.len();
    eprintln!("{why}; {exchanges} exchanges in {}", out.display());
    match failure {
        None => Ok(Status::Yes),
        Some(source) => Err(Incomplete { exchanges, source }.into()),
    }
}

/// Ends the recording. Waits for an exchange that is under way, and prints a note about it, because it may take as long
/// as a snapshot.
async fn finish(recorder: Recorder, why: &str) -> (Cassette, Option<replay::Error>) {
    let mut finished = pin!(recorder.finish_incomplete());
    tokio::select! {
        biased;
        finished = &mut finished => finished,
        () = ready(()) => {
            eprintln!("{why}; waiting for the answer to an exchange under way; press Ctrl-C to abandon the recording");
            finished.await
        }
    }
}

/// The path to write the cassette to: `out`, or its target if it is a symbolic link. Fails, before anything is
/// recorded, if no cassette can be written there.
fn writable(out: &Path) -> Result<PathBuf, Unwritable> {
    let refused = |source| Unwritable {
        out: out.to_owned(),
        source,
    };
    let path = match fs::canonicalize(out) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => out.to_owned(),
        resolved => resolved.map_err(refused)?,
    };
    if fs::symlink_metadata(&path).is_ok_and(|metadata| !metadata.is_file()) {
        return Err(refused(io::Error::other(
            "it exists and is not a regular file",
        )));
    }
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    // A cassette is written to a temporary file in the same directory and then renamed, so the directory must allow new
    // files.
    NamedTempFile::new_in(directory)
        .map(drop)
        .map_err(refused)?;
    Ok(path)
}

/// No cassette can be written to the given path. Nothing was recorded.
#[derive(Debug, thiserror::Error)]
#[error("the cassette cannot be written to {}: name a file in a directory that exists and is writable", out.display())]
struct Unwritable {
    out: PathBuf,
    source: io::Error,
}

/// An exchange could not be recorded, so the cassette ends before it.
#[derive(Debug, thiserror::Error)]
#[error("the cassette is not complete: it ends after {exchanges} exchanges")]
struct Incomplete {
    exchanges: usize,
    source: replay::Error,
}

/// The cassette could not be written to the given path at the end, and was written elsewhere.
#[derive(Debug, thiserror::Error)]
#[error("the recording is kept {elsewhere}, not in the file given by --out")]
struct Elsewhere {
    elsewhere: String,
    source: replay::Error,
}

/// Writes the cassette to `out`. If that fails, writes it to the directory for temporary files, and if that fails too,
/// to standard output, because the exchanges may be hard to repeat.
fn write(cassette: &Cassette, out: &Path) -> Result<(), Elsewhere> {
    let Err(source) = cassette.write(out) else {
        return Ok(());
    };
    let elsewhere = match write_temporary(cassette) {
        Ok(path) => format!("in {}", path.display()),
        Err(error) => {
            tracing::warn!(error = %Causes(&error), "the cassette could not be written to a temporary file either");
            print!("{cassette}");
            "on standard output".to_owned()
        }
    };
    Err(Elsewhere { elsewhere, source })
}

fn write_temporary(cassette: &Cassette) -> io::Result<PathBuf> {
    let named = tempfile::Builder::new()
        .prefix("chv-recording-")
        .suffix(".json")
        .tempfile();
    let mut file = named?;
    file.write_all(cassette.to_string().as_bytes())?;
    file.as_file().sync_all()?;
    let (_, path) = file.keep().map_err(|error| error.error)?;
    Ok(path)
}

/// Splits at the last `=`: a path may contain one, a name can't.
fn stable(text: &str) -> Result<(String, String), String> {
    match text.rsplit_once('=') {
        Some((text, name)) => Ok((text.to_owned(), name.to_owned())),
        None => Err("expected PREFIX=NAME".to_owned()),
    }
}
