//! The program inside the guest. As the guest's first process it prepares the system and starts itself again as the
//! dispatcher; as any other process it is the dispatcher.
//!
//! It is linked statically, since the initramfs contains no libraries:
//! `cargo rustc --release --bin chv-guest -- -C target-feature=+crt-static`

use std::convert::Infallible;
use std::error::Error;
use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use chv_sandbox::causes::Causes;
use chv_sandbox::guest::dispatcher::{
    Confinement, Dispatcher, LinuxSystem, Toolbox, VsockListener,
};
use chv_sandbox::guest::protocol::DEFAULT_PORT;
use chv_sandbox::guest::{self, init};
use tracing::field::{Field, Visit};
use tracing::{Event, Metadata, Subscriber, span};

/// Identifies this build to the program that packs an image, which searches the executable for it.
#[used]
static BUILD_ID: [u8; guest::MARKED_BUILD_ID.len()] = guest::MARKED_BUILD_ID;

fn main() -> ExitCode {
    // This fails only if a subscriber is set already.
    let _ = tracing::subscriber::set_global_default(Console);
    if std::process::id() == 1 {
        init::run();
    }
    let Err(error) = serve();
    tracing::error!("{}", Causes(&*error));
    ExitCode::FAILURE
}

/// Runs the dispatcher. It returns only an error.
fn serve() -> Result<Infallible, Box<dyn Error>> {
    // The first process starts this program as /proc/self/exe, so the kernel would list it as "exe".
    rustix::thread::set_name(c"chv-guest")?;
    let options = Options::parse(std::env::args_os().skip(1))?;
    let toolbox = match &options.tools {
        Some(file) => Toolbox::load(file)?,
        None => Toolbox::built_in(),
    };
    let confinement = if rustix::process::geteuid().is_root() {
        let guest = Confinement::for_guest(options.root);
        Confinement {
            limits: toolbox.limits().clone(),
            user: toolbox.user().or(guest.user),
            ..guest
        }
    } else {
        Confinement::in_process()
    };
    let dispatcher = Dispatcher::new(toolbox, &confinement, LinuxSystem::new())?;
    if let Err(error) = dispatcher.create_files_directory() {
        tracing::warn!(error = %Causes(&error), "the directory for files could not be created: transfers of files fail");
    }
    let listener = VsockListener::bind(options.port)?;
    writeln!(std::io::stderr(), "CHV-GUEST READY")?;
    Ok(listener.serve(&dispatcher)?)
}

/// The options of the command line; see [`USAGE`].
struct Options {
    port: u32,
    root: Option<PathBuf>,
    tools: Option<PathBuf>,
}

impl Options {
    fn parse(
        mut arguments: impl Iterator<Item = std::ffi::OsString>,
    ) -> Result<Options, Box<dyn Error>> {
        let mut options = Options {
            port: DEFAULT_PORT,
            root: None,
            tools: None,
        };
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or(USAGE)?;
            match name.to_str() {
                Some("--port") => options.port = value.to_str().ok_or(USAGE)?.parse()?,
                Some("--root") => options.root = Some(value.into()),
                Some("--tools") => options.tools = Some(value.into()),
                _ => return Err(USAGE.into()),
            }
        }
        Ok(options)
    }
}

const USAGE: &str = "usage: chv-guest [--port PORT] [--root DIRECTORY] [--tools FILE]";

/// Writes events to standard error, which is the guest's console.
struct Console;

impl Subscriber for Console {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::INFO
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(format!("chv-guest: {}:", event.metadata().level()));
        event.record(&mut line);
        // If the console can't be written, there is no other place for this error.
        let _ = writeln!(std::io::stderr(), "{}", line.0);
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// An event's message, then its fields as `name=value`.
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string doesn't fail.
        let _ = match field.name() {
            "message" => write!(self.0, " {value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}
