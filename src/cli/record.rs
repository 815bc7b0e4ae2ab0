//! `chv-sandbox record`: makes a cassette of what a client and a VMM say to each other.

use std::path::PathBuf;
use std::process::ExitCode;

use chv_sandbox::replay::{Recorder, RecorderOptions};
use tokio::signal::unix::{SignalKind, signal};

use super::Failure;

/// Records the exchanges with a real VMM as a cassette.
///
/// Stands between a client and the VMM until it is interrupted or the VMM ends, then writes the cassette. Paths that
/// differ from run to run are given as --stable: they are written as ${NAME}.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The api-socket of the VMM to record.
    #[arg(long)]
    socket: PathBuf,
    /// The socket to listen on, for the client; nothing must be there yet.
    #[arg(long)]
    listen: PathBuf,
    /// The file to write; one that exists is replaced.
    #[arg(long)]
    out: PathBuf,
    /// A text and the name that stands for it in the cassette, such as /tmp/run-7=RUN.
    #[arg(long, value_name = "PREFIX=NAME", value_parser = stable)]
    stable: Vec<(String, String)>,
    /// What a reader of the cassette should know.
    #[arg(long)]
    notes: Option<String>,
}

/// Runs `chv-sandbox record`.
pub(crate) async fn run(args: Args) -> Result<ExitCode, Failure> {
    // From here on a signal ends the recording, not the process: what was recorded is to be written.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;

    let mut options = RecorderOptions::new(args.socket, &args.listen);
    for (text, name) in args.stable {
        options = options.placeholder(text, name);
    }
    if let Some(notes) = args.notes {
        options = options.notes(notes);
    }
    let recorder = Recorder::start(options).await?;
    eprintln!(
        "recording {} on {}; Ctrl-C ends it",
        recorder.release(),
        args.listen.display()
    );
    let why = tokio::select! {
        () = recorder.ended() => "the VMM ended",
        _ = interrupt.recv() => "interrupted",
        _ = terminate.recv() => "terminated",
    };
    let cassette = recorder.finish().await?;
    cassette.write(&args.out)?;
    eprintln!(
        "{why}; {} exchanges in {}",
        cassette.exchanges.len(),
        args.out.display()
    );
    Ok(ExitCode::SUCCESS)
}

/// Splits at the last `=`: a path may have one, a name can't.
fn stable(text: &str) -> Result<(String, String), String> {
    match text.rsplit_once('=') {
        Some((text, name)) => Ok((text.to_owned(), name.to_owned())),
        None => Err("expected PREFIX=NAME".to_owned()),
    }
}
