//! [`Plan`]: the sandbox under attack, the probes, and the number of dispatches.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use super::battery::probes;
use super::{Probe, Substrate};
use crate::sandbox::Sandbox;

/// Why a sandbox could not be made.
pub type MakeError = Box<dyn Error + Send + Sync>;

type Made = Pin<Box<dyn Future<Output = Result<Arc<dyn Sandbox>, MakeError>> + Send>>;

/// The sandbox under attack, and the probes.
pub struct Plan {
    pub(super) make: Box<dyn Fn() -> Made + Send + Sync>,
    pub(super) substrate: Option<Box<dyn Substrate>>,
    pub(super) probes: Vec<&'static Probe>,
    /// How many dispatches leave markers and look for those of earlier dispatches. A marker is a random text in a file,
    /// a process or another place that a reset must empty. The default is 1,000. With fewer than 2 the probes for
    /// markers are skipped.
    pub dispatches: u64,
    /// Multiplies the deadlines of tools. The default is 1. An emulated guest needs about 10.
    pub patience: u32,
    /// The description of the sandbox under attack, for the report.
    pub subject: Subject,
    /// The command line, for the report.
    pub command_line: Vec<String>,
}

/// A description of the sandbox under attack, for the report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// The golden snapshot's directory.
    pub golden: Option<String>,
    /// The VMM's release, such as `v53.0`.
    pub release: Option<String>,
    /// How the sandbox is reset: `fresh` or `in_place`.
    pub strategy: Option<String>,
}

/// A name is neither that of a probe nor that of a family.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is neither a probe nor a family {name:?}")]
#[non_exhaustive]
pub struct UnknownProbe {
    /// The unknown name.
    pub name: String,
}

impl Plan {
    /// A plan with every probe of [`probes`](super::probes), on sandboxes from `make`, with the defaults of the other
    /// fields.
    ///
    /// `make` returns a sandbox, which [`attack`](super::attack) boots and at last shuts down. `make` is called when
    /// the first sandbox is needed, and again after each sandbox whose boot or reset failed. If the first sandbox can't
    /// be made or booted, `make` is not called again, and every probe that needs a sandbox is skipped.
    pub fn new<F>(make: impl Fn() -> F + Send + Sync + 'static) -> Plan
    where
        F: Future<Output = Result<Arc<dyn Sandbox>, MakeError>> + Send + 'static,
    {
        Plan {
            make: Box::new(move || Box::pin(make())),
            substrate: None,
            probes: probes().collect(),
            dispatches: 1000,
            patience: 1,
            subject: Subject::default(),
            command_line: Vec::new(),
        }
    }

    /// Adds a substrate, which causes the false readings that a reset must detect. Without one, the probes of the
    /// family `substrate` are skipped.
    #[must_use]
    pub fn with_substrate(self, substrate: impl Substrate + 'static) -> Plan {
        Plan {
            substrate: Some(Box::new(substrate)),
            ..self
        }
    }

    /// Keeps only these probes, each given by its name or the name of its family.
    ///
    /// # Errors
    ///
    /// [`UnknownProbe`] with the first name that is neither that of a probe nor that of a family.
    pub fn only(mut self, names: &[impl AsRef<str>]) -> Result<Plan, UnknownProbe> {
        let is_named = named(names)?;
        self.probes.retain(|probe| is_named(probe));
        Ok(self)
    }

    /// Removes these probes, given in the same way.
    ///
    /// # Errors
    ///
    /// [`UnknownProbe`] with the first name that is neither that of a probe nor that of a family.
    pub fn without(mut self, names: &[impl AsRef<str>]) -> Result<Plan, UnknownProbe> {
        let is_named = named(names)?;
        self.probes.retain(|probe| !is_named(probe));
        Ok(self)
    }

    /// The probes, in the order in which they are tried.
    pub fn probes(&self) -> &[&'static Probe] {
        &self.probes
    }
}

/// Returns a test for the probes that these names refer to.
fn named<'a>(names: &'a [impl AsRef<str>]) -> Result<impl Fn(&Probe) -> bool + 'a, UnknownProbe> {
    let is_for = |name: &str, probe: &Probe| probe.name == name || probe.family.name() == name;
    for name in names {
        let name = name.as_ref();
        if !probes().any(|probe| is_for(name, probe)) {
            let name = name.to_owned();
            return Err(UnknownProbe { name });
        }
    }
    Ok(move |probe: &Probe| names.iter().any(|name| is_for(name.as_ref(), probe)))
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan")
            .field("subject", &self.subject)
            .field("probes", &self.probes)
            .field("dispatches", &self.dispatches)
            .field("patience", &self.patience)
            .field("has_substrate", &self.substrate.is_some())
            .finish_non_exhaustive()
    }
}
