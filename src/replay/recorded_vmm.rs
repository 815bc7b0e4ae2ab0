//! [`RecordedVmm`] plays back a whole recorded session, with the files of the VM and a stand-in for its guest.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use super::{
    Answer, Cassette, Error, Exchange, HookError, Played, Player, PlayerOptions, RequestBody,
};
use crate::client::Release;
use crate::files::create_private_directory;
use crate::golden::{MintConfig, MintProgress};
use crate::guest::dispatcher::Toolbox;
use crate::guest::protocol::DEFAULT_PORT;
use crate::guest::stand_in::{Behaviour, StandIn};
use crate::limits::TimeLimits;
use crate::machine::{
    Disk, DiskFormat, DiskRole, GuestMemory, MachineConfig, SNAPSHOT_FILES, VmShape, VmmFiles,
    VmmSource,
};

/// The recorded session. `fixtures/README.md` says how it was recorded.
const CASSETTE: &[u8] = include_bytes!("../../fixtures/demo.json");

/// The parts of the recording: making a golden snapshot, booting from it, one reset, the additional call after a reset
/// that was not verified, and the shutdown.
const MINT: std::ops::Range<usize> = 0..16;
const BOOT: std::ops::Range<usize> = 16..21;
const RESET: std::ops::Range<usize> = 21..25;
const HALT: std::ops::Range<usize> = 29..30;
const SHUTDOWN: std::ops::Range<usize> = 30..31;

/// The number of restores before the first reset: two while the golden snapshot is made, and one by the boot.
const RESTORES_BEFORE: usize = 3;

/// The number of descriptors that a diverging guest has open in addition to those of its golden snapshot.
const SURPLUS: u64 = 1;

/// The session that a [`RecordedVmm`] plays: a golden snapshot is made, a sandbox boots from it, is reset a number of
/// times, and is shut down.
///
/// The VMM answers exactly these calls, in this order.
#[derive(Clone, Debug)]
pub struct RecordedSession {
    resets: usize,
    failure: Option<ResetFailure>,
    root_bytes: u64,
    overlay_bytes: u64,
    toolbox: Toolbox,
    files: Option<PathBuf>,
}

impl Default for RecordedSession {
    fn default() -> Self {
        RecordedSession::new()
    }
}

impl RecordedSession {
    /// Creates a session without a reset. The guest has the built-in tools. The disks have 64 KiB (root) and 1 MiB
    /// (overlay).
    pub fn new() -> RecordedSession {
        RecordedSession {
            resets: 0,
            failure: None,
            root_bytes: 64 << 10,
            overlay_bytes: 1 << 20,
            toolbox: Toolbox::built_in(),
            files: None,
        }
    }

    /// Sets the number of resets.
    #[must_use]
    pub fn resets(self, resets: usize) -> RecordedSession {
        RecordedSession { resets, ..self }
    }

    /// Adds one more reset, which fails. The recording ends with it and the shutdown.
    #[must_use]
    pub fn then_a_failure(self, failure: ResetFailure) -> RecordedSession {
        RecordedSession {
            failure: Some(failure),
            ..self
        }
    }

    /// Sets the sizes of the root disk and of the overlay, in bytes. The root disk is filled with a pattern. The
    /// overlay has one line of text and is a hole otherwise.
    #[must_use]
    pub fn disks(self, root_bytes: u64, overlay_bytes: u64) -> RecordedSession {
        RecordedSession {
            root_bytes,
            overlay_bytes,
            ..self
        }
    }

    /// Sets the tools of the guest.
    #[must_use]
    pub fn toolbox(self, toolbox: Toolbox) -> RecordedSession {
        RecordedSession { toolbox, ..self }
    }

    /// Sets the directory of this machine that files are pushed into and pulled from, in place of that of the tools. A
    /// reset doesn't empty it. Without one, each reset empties the folder `files` in the VMM's directory.
    #[must_use]
    pub fn files(self, directory: impl Into<PathBuf>) -> RecordedSession {
        RecordedSession {
            files: Some(directory.into()),
            ..self
        }
    }
}

/// How the last reset of a [`RecordedSession`] fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResetFailure {
    /// The guest reports one open descriptor too many, so the reset is not verified.
    Descriptors,
    /// The caller causes a divergence, for example by changing a byte of a disk.
    ByCaller,
    /// The guest accepts connections and sends nothing, so that the reset is made twice and not verified.
    SilentGuest,
    /// The VMM closes the connection at the reset's first call, so that nothing is reset.
    VmmCloses,
}

impl ResetFailure {
    /// The calls of the reset.
    fn exchanges(self, recorded: &[Exchange]) -> Vec<Exchange> {
        let (reset, halt) = (&recorded[RESET], &recorded[HALT]);
        match self {
            ResetFailure::Descriptors | ResetFailure::ByCaller => [reset, halt].concat(),
            ResetFailure::SilentGuest => [reset, reset, halt].concat(),
            ResetFailure::VmmCloses => {
                let mut first = reset[..1].to_vec();
                first.iter_mut().for_each(|it| it.answer = Answer::Closed);
                first
            }
        }
    }
}

/// A VMM that plays a [`RecordedSession`], with real disk files and a [stand-in](StandIn) for the guest. The dispatcher
/// of the guest is the real one, running in this process.
///
/// Like a [`Player`], it reports in [`finish`](Self::finish) whether exactly the calls of the session came.
#[derive(Debug)]
pub struct RecordedVmm {
    player: Player,
    guest: StandIn,
    release: String,
    directory: PathBuf,
    shape: VmShape,
}

impl RecordedVmm {
    /// Creates the disks in `directory`, an empty folder, and starts to play. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// - [`Error::Files`] if a file can't be made in `directory`, or its path is not UTF-8.
    /// - [`Error::Listen`] if the socket can't be bound there, for example because the path is too long.
    pub async fn start(directory: &Path, session: &RecordedSession) -> Result<RecordedVmm, Error> {
        let files = |source| Error::Files {
            directory: directory.to_owned(),
            source,
        };
        create_files(directory, session).map_err(files)?;
        let mut cassette = recording();
        let config = created_vm(&cassette);
        let texts = [("WORK", directory), ("IMAGE", &directory.join("image"))].map(
            |(name, path)| -> io::Result<(&str, String)> { Ok((name, text(path)?.to_owned())) },
        );
        let [work, image] = texts;
        let placeholders = [work.map_err(files)?, image.map_err(files)?];
        let mut config = config.to_string();
        for (name, value) in &placeholders {
            config = config.replace(&format!("${{{name}}}"), value);
        }
        let config: Value = serde_json::from_str(&config).map_err(|error| files(error.into()))?;
        let shape =
            shape(&config).expect("the recorded `vm.create` has every field of a VM's shape");

        let own_files = directory.join("files");
        let guest_files = session.files.as_deref().unwrap_or(&own_files);
        let toolbox = text(guest_files).and_then(|directory| {
            let toolbox = session.toolbox.clone().with_files_directory(directory);
            toolbox.map_err(io::Error::other)
        });
        let toolbox = toolbox.map_err(|source| Error::Files {
            directory: guest_files.to_owned(),
            source,
        })?;
        let socket = directory.join("machine/vsock.sock");
        let guest = StandIn::with_toolbox(socket, toolbox).map_err(files)?;
        let recorded = &cassette.exchanges;
        let mut exchanges = [&recorded[MINT], &recorded[BOOT]].concat();
        for _ in 0..session.resets {
            exchanges.extend_from_slice(&recorded[RESET]);
        }
        if let Some(failure) = session.failure {
            exchanges.extend(failure.exchanges(recorded));
        }
        exchanges.extend_from_slice(&recorded[SHUTDOWN]);
        cassette.exchanges = exchanges;
        let release = cassette.release;

        let machine = Behind {
            guest: guest.clone(),
            snapshot: directory.join("golden/snapshot"),
            config,
            files: session.files.is_none().then_some(own_files),
            restores: AtomicUsize::new(0),
            failing: session
                .failure
                .map(|failure| (RESTORES_BEFORE + session.resets + 1, failure)),
        };
        let mut options = PlayerOptions::new(directory.join("api.sock"));
        for (name, value) in placeholders {
            options = options.substitute(name, value);
        }
        let options = options.on_exchange(move |played| {
            let done = machine.act(&played);
            async move { done }
        });
        Ok(RecordedVmm {
            player: Player::start(cassette, options).await?,
            guest,
            release: release.to_string(),
            directory: directory.to_owned(),
            shape,
        })
    }

    /// The release of the recorded VMM.
    pub fn release(&self) -> &str {
        &self.release
    }

    /// How a machine reaches this VMM.
    pub fn vmm_source(&self) -> VmmSource {
        VmmSource::Attach {
            api_socket: self.player.socket().to_owned(),
            directory: self.directory.join("machine"),
        }
    }

    /// The stand-in for the guest, which can be told to misbehave.
    pub fn guest(&self) -> &StandIn {
        &self.guest
    }

    /// The configuration of the recorded VM.
    pub fn shape(&self) -> &VmShape {
        &self.shape
    }

    /// The disks of the VM: the root disk and the overlay.
    pub fn disks(&self) -> Vec<Disk> {
        let disk = |role, name, readonly| Disk {
            role,
            origin: self.directory.join(name),
            readonly,
            format: DiskFormat::Raw,
        };
        vec![
            disk(DiskRole::Root, "root.img", true),
            disk(DiskRole::Overlay, "image/overlay.img", false),
        ]
    }

    /// The configuration with which [`mint`](crate::golden::mint) makes the recorded golden snapshot.
    pub fn mint_config(&self) -> MintConfig {
        let limits = TimeLimits::default();
        MintConfig {
            machine: MachineConfig {
                vmm: self.vmm_source(),
                disks: self.disks(),
                memory: GuestMemory::ByPath,
                port: DEFAULT_PORT,
                files: VmmFiles::default(),
                limits,
            },
            shape: self.shape.clone(),
            any_guest: false,
            container_image: None,
            sign_with: None,
            warm: Vec::new(),
            settle: limits.settle,
            into: self.golden(),
            progress: MintProgress::default(),
        }
    }

    /// The directory in which the golden snapshot has to be made.
    pub fn golden(&self) -> PathBuf {
        self.directory.join("golden")
    }

    /// Stops playing, and reports whether the session was played from its beginning to its end.
    ///
    /// # Errors
    ///
    /// As [`Player::finish`].
    pub async fn finish(self) -> Result<(), Error> {
        self.guest.stop();
        self.player.finish().await
    }
}

/// The actions of a VMM besides its answers.
struct Behind {
    guest: StandIn,
    snapshot: PathBuf,
    config: Value,
    /// The guest's directory for files, which each restore empties. `None` if it is not the VMM's own.
    files: Option<PathBuf>,
    restores: AtomicUsize,
    /// The number of the first restore of the reset that fails.
    failing: Option<(usize, ResetFailure)>,
}

impl Behind {
    /// Starts and stops the guest with its vsock socket, and writes the files of a snapshot.
    fn act(&self, played: &Played) -> Result<(), HookError> {
        match played.path.rsplit('/').next() {
            Some("vm.boot") => self.guest.start()?,
            Some("vm.restore") => {
                let number = self.restores.fetch_add(1, Ordering::Relaxed) + 1;
                match self.failing {
                    Some((first, ResetFailure::Descriptors)) if first == number => {
                        self.guest.set_open_files(self.guest.open_files() + SURPLUS);
                    }
                    Some((first, ResetFailure::SilentGuest)) if first == number => {
                        self.guest.behave(Behaviour::Silent);
                    }
                    _ => {}
                }
                if let Some(files) = &self.files {
                    fs::remove_dir_all(files)?;
                    create_private_directory(files)?;
                }
                self.guest.start()?;
            }
            Some("vm.delete") => self.guest.stop(),
            Some("vm.snapshot") => {
                for name in SNAPSHOT_FILES {
                    fs::write(self.snapshot.join(name), self.config.to_string())?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// The release of the VMM that was recorded for a [`RecordedSession`].
pub fn recorded_release() -> Release {
    recording().release
}

fn recording() -> Cassette {
    Cassette::from_slice(CASSETTE).expect("a test parses the recording")
}

/// Returns the body of the recorded `vm.create`.
fn created_vm(cassette: &Cassette) -> Value {
    let mut requests = cassette.exchanges.iter().map(|exchange| &exchange.request);
    let create = requests.find(|request| request.path.ends_with("/vm.create"));
    match create.map(|create| &create.body) {
        Some(RequestBody::Json(config)) => config.clone(),
        _ => unreachable!("a test checks that the recording has a `vm.create`"),
    }
}

/// Reads the VM's shape from the configuration in `vm.create`.
fn shape(config: &Value) -> Option<VmShape> {
    let payload = &config["payload"];
    Some(VmShape {
        kernel: payload["kernel"].as_str()?.into(),
        initramfs: payload["initramfs"].as_str().map(Into::into),
        cmdline: payload["cmdline"].as_str()?.to_owned(),
        vcpus: config["cpus"]["boot_vcpus"].as_u64()?.try_into().ok()?,
        memory_mib: config["memory"]["size"].as_u64()? >> 20,
        cid: config["vsock"]["cid"].as_u64()?.try_into().ok()?,
    })
}

fn create_files(directory: &Path, session: &RecordedSession) -> io::Result<()> {
    for folder in ["files", "image", "machine"] {
        create_private_directory(&directory.join(folder))?;
    }
    for name in ["kernel", "initramfs"] {
        fs::write(
            directory.join("image").join(name),
            "stands for a real one\n",
        )?;
    }
    let root = File::create_new(directory.join("root.img"))?;
    let mut root = io::BufWriter::new(root);
    for at in 0..session.root_bytes {
        root.write_all(&[(at / 4096 + at) as u8])?;
    }
    root.flush()?;
    let mut overlay = File::create_new(directory.join("image/overlay.img"))?;
    overlay.write_all(b"an overlay with one line and a large hole\n")?;
    overlay.set_len(session.overlay_bytes)
}

fn text(path: &Path) -> io::Result<&str> {
    let not_utf8 = || io::Error::new(io::ErrorKind::InvalidInput, "the path is not UTF-8");
    path.to_str().ok_or_else(not_utf8)
}
