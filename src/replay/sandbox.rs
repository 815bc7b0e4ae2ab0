//! [`ReplaySandbox`]: a sandbox on recorded answers, for tests of an agent.

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

use super::{Error, RecordedSession, RecordedVmm, ResetFailure};
use crate::causes::Causes;
use crate::golden::mint;
use crate::guest::dispatcher::{FunctionRun, Toolbox};
use crate::sandbox::{ChvSandbox, Sandbox, SandboxConfig};

/// A sandbox for tests where there is no KVM: a [`ChvSandbox`] on the recorded answers of a real VMM. The test supplies
/// its tools.
///
/// The state machine, the channel, the disks and the verification of resets are those of any sandbox. The dispatcher of
/// the guest is the real one, running in this process; its descriptor count, clock and random pool are simulated.
/// Checks that need a VMM process do not apply. A reset uses [`Strategy::InPlace`](crate::sandbox::Strategy::InPlace).
///
/// ```
/// use std::io::Write;
///
/// use chv_sandbox::replay::ReplaySandbox;
/// use chv_sandbox::sandbox::{Sandbox, ToolInvocation};
/// use serde_json::json;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let replay = ReplaySandbox::verified()
///     .resets(1)
///     .tool("greet", |run| {
///         let name = run.params["name"].as_str().unwrap_or("world");
///         writeln!(run.stdout, "hello, {name}")?;
///         Ok(0)
///     })
///     .start()
///     .await?;
///
/// // In place of these lines stands the code under test, with this sandbox.
/// let sandbox = replay.sandbox();
/// sandbox.boot().await?;
/// let ran = sandbox.run_once(ToolInvocation::new("greet", json!({ "name": "Ada" }))).await?;
/// assert_eq!(ran.execution.stdout.text(), "hello, Ada\n");
/// assert!(ran.reset.is_verified());
///
/// replay.finish().await?; // fails if there was no reset, or a second one
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct ReplaySandbox {
    sandbox: Arc<ChvSandbox>,
    vmm: RecordedVmm,
    /// Declared last, so that it is removed after the sandbox and the VMM.
    directory: TempDir,
}

impl ReplaySandbox {
    /// Returns a builder for a sandbox that is [booted](Sandbox::boot) once, whose resets are verified, and that is
    /// shut down.
    pub fn verified() -> ReplayBuilder {
        ReplayBuilder {
            session: RecordedSession::new(),
            toolbox: Toolbox::built_in(),
            configure: Box::new(|config| config),
        }
    }

    /// The sandbox, which is not booted yet.
    pub fn sandbox(&self) -> Arc<ChvSandbox> {
        Arc::clone(&self.sandbox)
    }

    /// The temporary folder with the disks, the golden snapshot and the evidence of a reset that was not verified.
    /// [`finish`](Self::finish), or dropping this value, removes the folder.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Shuts the sandbox down, and reports whether it was booted once and reset as often as
    /// [`resets`](ReplayBuilder::resets) said.
    ///
    /// # Errors
    ///
    /// [`Error::Mismatch`] if the VMM received other calls, and [`Error::Leftover`] if it received fewer.
    pub async fn finish(self) -> Result<(), Error> {
        self.sandbox.shutdown().await;
        let finished = self.vmm.finish().await;
        drop(self.directory);
        finished
    }
}

/// The settings of a [`ReplaySandbox`]. [`ReplaySandbox::verified`] makes one with the defaults, and
/// [`start`](Self::start) makes the sandbox.
pub struct ReplayBuilder {
    session: RecordedSession,
    toolbox: Toolbox,
    configure: Box<dyn FnOnce(SandboxConfig) -> SandboxConfig + Send>,
}

impl fmt::Debug for ReplayBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplayBuilder")
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}

impl ReplayBuilder {
    /// Sets the number of resets. The default is 0.
    #[must_use]
    pub fn resets(mut self, resets: usize) -> ReplayBuilder {
        self.session = self.session.resets(resets);
        self
    }

    /// Adds one more reset after these, in which the guest reports one open descriptor too many. It fails with
    /// [`Error::ResetDivergence`](crate::sandbox::Error::ResetDivergence), and the sandbox halts.
    ///
    /// The recording ends there: this sandbox can't be booted again. A test of code that gives a halted sandbox up and
    /// takes another hands it a second `ReplaySandbox`.
    #[must_use]
    pub fn then_a_divergence(self) -> ReplayBuilder {
        self.then(ResetFailure::Descriptors)
    }

    /// Adds one more reset after these, in which the guest sends nothing. The reset is made twice and fails with
    /// [`Error::ResetTimeout`](crate::sandbox::Error::ResetTimeout), and the sandbox halts. As after a
    /// [divergence](Self::then_a_divergence), the recording ends there.
    ///
    /// The test waits for the time limits of the guest's answers, so it is quicker with short ones:
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use chv_sandbox::limits::TimeLimits;
    /// use chv_sandbox::replay::ReplaySandbox;
    /// use chv_sandbox::sandbox::{Error, Sandbox};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let limits = TimeLimits::default().settle(Duration::from_secs(1));
    /// let replay = ReplaySandbox::verified()
    ///     .then_a_silent_guest()
    ///     .configure(move |config| config.limits(limits))
    ///     .start()
    ///     .await?;
    /// let sandbox = replay.sandbox();
    /// sandbox.boot().await?;
    /// assert!(matches!(sandbox.reset().await, Err(Error::ResetTimeout(_))));
    /// replay.finish().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn then_a_silent_guest(self) -> ReplayBuilder {
        self.then(ResetFailure::SilentGuest)
    }

    /// Adds one more reset after these, at whose first call the VMM closes the connection, as one that has died does.
    /// It fails with [`Error::ResetFailed`](crate::sandbox::Error::ResetFailed). The recording ends there, so a further
    /// reset of this sandbox fails too.
    #[must_use]
    pub fn then_the_vmm_ends(self) -> ReplayBuilder {
        self.then(ResetFailure::VmmCloses)
    }

    fn then(mut self, failure: ResetFailure) -> ReplayBuilder {
        self.session = self.session.then_a_failure(failure);
        self
    }

    /// Adds a tool to the guest, or replaces the built-in one of that name. `run` is called in a thread of its own and
    /// returns the exit code. If it returns an error, the error is written to the tool's standard error, and the exit
    /// code is 1.
    #[must_use]
    pub fn tool<F>(mut self, name: &str, run: F) -> ReplayBuilder
    where
        F: Fn(&mut FunctionRun) -> io::Result<u8> + Send + Sync + 'static,
    {
        self.toolbox = self
            .toolbox
            .with_function(name, move |tool| match run(tool) {
                Ok(code) => code,
                Err(error) => {
                    // The write fails if the run is over: it has no standard error any more.
                    let _ = writeln!(tool.stderr, "{}", Causes(&error));
                    1
                }
            });
        self
    }

    /// Replaces all tools of the guest, for example with those of an image's tools file, which run as processes of this
    /// machine.
    #[must_use]
    pub fn toolbox(mut self, toolbox: Toolbox) -> ReplayBuilder {
        self.toolbox = toolbox;
        self
    }

    /// Sets the directory of this machine that files are pushed into and pulled from: an absolute path in UTF-8 without
    /// `..`. A reset doesn't empty it.
    ///
    /// Without this call, the directory is the folder `files` in the sandbox's
    /// [directory](ReplaySandbox::directory), and each reset empties it. That folder is made by [`start`](Self::start).
    /// So a tool that reads pushed files or makes files to pull needs this call, with a path that the test and the
    /// tool's closure both know.
    #[must_use]
    pub fn files(mut self, directory: impl Into<PathBuf>) -> ReplayBuilder {
        self.session = self.session.files(directory);
        self
    }

    /// Changes the configuration of the sandbox, for example its limits or how many tools run before a reset.
    ///
    /// [`start`](Self::start) calls `configure` once, with the default configuration for the recorded golden snapshot.
    /// The result must be for the same golden snapshot. If this method is called several times, each function gets the
    /// result of the one before.
    #[must_use]
    pub fn configure<F>(mut self, configure: F) -> ReplayBuilder
    where
        F: FnOnce(SandboxConfig) -> SandboxConfig + Send + 'static,
    {
        let before = self.configure;
        self.configure = Box::new(|config| configure(before(config)));
        self
    }

    /// Makes the golden snapshot and the sandbox in a temporary folder. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// - [`Error::Files`] and [`Error::Listen`]: the temporary folder or the [directory for files](Self::files) can't
    ///   be used, for example because its path is too long.
    /// - [`Error::Mint`]: the golden snapshot could not be made.
    /// - [`Error::Config`]: the configuration of the sandbox is not valid.
    pub async fn start(self) -> Result<ReplaySandbox, Error> {
        let directory = tempfile::Builder::new().prefix("replay-").tempdir();
        let directory = directory.map_err(|source| Error::Files {
            directory: std::env::temp_dir(),
            source,
        })?;
        // `mint` resolves symbolic links, but the recording has the paths as they are given.
        let path = directory.path().canonicalize();
        let path = path.map_err(|source| Error::Files {
            directory: directory.path().to_owned(),
            source,
        })?;
        let session = self.session.toolbox(self.toolbox);
        let vmm = RecordedVmm::start(&path, &session).await?;
        let minted = mint(vmm.mint_config()).await;
        minted.map_err(|error| Error::Mint(Box::new(error)))?;
        let config = (self.configure)(SandboxConfig::golden(vmm.golden()));
        let sandbox = ChvSandbox::with_vmm(config, vmm.vmm_source()).map_err(Error::Config)?;
        Ok(ReplaySandbox {
            sandbox: Arc::new(sandbox),
            vmm,
            directory,
        })
    }
}
