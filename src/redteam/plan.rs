//! The plan of an attack: the sandbox, the probes, the number of dispatches.

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

/// What is attacked, with what.
pub struct Plan {
    pub(super) make: Box<dyn Fn() -> Made + Send + Sync>,
    pub(super) substrate: Option<Box<dyn Substrate>>,
    pub(super) probes: Vec<&'static Probe>,
    /// How many dispatches look for the markers of those before them, 1,000 unless set. Fewer than 2 can't find any.
    pub dispatches: u64,
    /// Multiplies the deadlines of tools; 1 unless set. An emulated guest needs 10 or so.
    pub patience: u32,
    /// What is attacked, for the report.
    pub subject: Subject,
    /// The command line, for the report.
    pub command_line: Vec<String>,
}

/// What is attacked, for the report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// The golden snapshot's directory.
    pub golden: Option<String>,
    /// The VMM's release, as `v53.0`.
    pub release: Option<String>,
    /// How the sandbox is reset, as `fresh`.
    pub strategy: Option<String>,
}

/// There is no such probe.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is neither a probe nor a family {name:?}")]
pub struct UnknownProbe {
    /// What was asked for.
    pub name: String,
}

impl Plan {
    /// Every probe, on sandboxes that `make` makes. It is called once, and again after each sandbox that did not come back
    /// from a reset.
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

    /// The same with a substrate that tells the lies which a reset has to find. Without one their probes are skipped.
    #[must_use]
    pub fn with_substrate(self, substrate: impl Substrate + 'static) -> Plan {
        Plan {
            substrate: Some(Box::new(substrate)),
            ..self
        }
    }

    /// The same with these probes alone, each by its name or that of its family.
    ///
    /// # Errors
    ///
    /// [`UnknownProbe`] with the first name that is neither.
    pub fn only(mut self, names: &[impl AsRef<str>]) -> Result<Plan, UnknownProbe> {
        let is_named = named(names)?;
        self.probes.retain(|probe| is_named(probe));
        Ok(self)
    }

    /// The same without these probes.
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

/// Which probes these names stand for.
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
