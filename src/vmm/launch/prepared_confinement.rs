//! [`PreparedConfinement`]: the confinement of one VMM as it is prepared before the start, and the layers that are in
//! force after it.

use std::io;
use std::path::Path;

use rustix::process::{Pid, Resource};

use super::child_plan::{ChildPlan, Failure, Restrictions};
use super::environment;
use crate::causes::Causes;
use crate::vmm::beyond_streams;
use crate::vmm::confinement::{
    Cgroup, CgroupConfig, Confinement, Domain, Grants, Held, IdMaps, Layer, LayerReport, rlimits,
};
use crate::vmm::run_dir::RunDir;
use crate::vmm::{Error, VmmConfig};

/// The restrictions that a VMM is started with, and the state of each layer so far.
pub(super) struct PreparedConfinement {
    pub(super) restrictions: Restrictions,
    pub(super) cgroup: Option<Cgroup>,
    /// The files that the VMM may open, kept open while the VMM runs.
    pub(super) held: Held,
    pub(super) layers: Layers,
}

impl PreparedConfinement {
    /// Prepares every layer that the configuration wants and this host has.
    pub(super) fn prepare(
        binary: &Path,
        config: &VmmConfig,
        grants: &Grants,
        run_dir: &RunDir,
    ) -> Result<PreparedConfinement, Error> {
        let folders = run_dir.folders();
        let mut programs = config.programs.clone();
        programs.extend(environment::libraries(&config.env));
        let domain = || Domain::new(Some(binary), Some(folders), &programs, grants);
        let mut confinement =
            PreparedConfinement::common(&config.confinement, grants.largest_file, domain)?;
        confinement.make_cgroup(&config.cgroup, &run_dir.cgroup_name())?;
        Ok(confinement)
    }

    /// Prepares the confinement of the trial process, which opens no files.
    pub(super) fn trial(cgroup: &CgroupConfig) -> Result<PreparedConfinement, Error> {
        let domain = || Domain::new(None, None, &[], &Grants::default());
        let mut confinement = PreparedConfinement::common(&Confinement::default(), None, domain)?;
        let name = format!("chv-sandbox-trial-{}", uuid::Uuid::new_v4().simple());
        confinement.make_cgroup(cgroup, &name)?;
        Ok(confinement)
    }

    fn common(
        confinement: &Confinement,
        largest_file: Option<u64>,
        domain: impl FnOnce() -> io::Result<Option<Domain>>,
    ) -> Result<PreparedConfinement, Error> {
        let mut layers = Layers::new(confinement)?;
        let wants = |layer| confinement.wants(layer);
        let mut restrictions = Restrictions {
            descriptors: wants(Layer::Descriptors),
            no_new_privs: wants(Layer::NoNewPrivs),
            capabilities: wants(Layer::Capabilities),
            ..Restrictions::default()
        };
        if wants(Layer::Rlimits) {
            restrictions.rlimits = rlimits(largest_file);
            for (resource, limit) in &restrictions.rlimits {
                let limit = limit.current.unwrap_or(u64::MAX);
                match resource {
                    Resource::Nofile => {
                        layers.add_detail(Layer::Rlimits, &format!("{limit} descriptors"))
                    }
                    Resource::Fsize => {
                        layers.add_detail(Layer::Rlimits, &format!("files of {limit} bytes"))
                    }
                    _ => {}
                }
            }
        }
        if wants(Layer::Namespaces) {
            restrictions.namespaces = Some(IdMaps::of_this_process());
        }
        let mut held = Held::default();
        if wants(Layer::Landlock) {
            match domain().map_err(Error::Grant)? {
                Some(domain) => {
                    let ruleset = beyond_streams(domain.ruleset).map_err(Error::Grant)?;
                    restrictions.landlock = Some(ruleset);
                    held = domain.held;
                    layers.add_detail(Layer::Landlock, &domain.detail);
                }
                None => layers.miss(Layer::Landlock, "this kernel has no Landlock".to_owned())?,
            }
        }
        Ok(PreparedConfinement {
            restrictions,
            cgroup: None,
            held,
            layers,
        })
    }

    fn make_cgroup(&mut self, config: &CgroupConfig, name: &str) -> Result<(), Error> {
        if !self.layers.confinement.wants(Layer::Cgroup) {
            return Ok(());
        }
        match Cgroup::create(config, name) {
            Ok(cgroup) => {
                self.layers.add_detail(Layer::Cgroup, &cgroup.detail);
                let procs = cgroup.procs.try_clone().map_err(Error::Grant)?;
                self.restrictions.cgroup = Some(beyond_streams(procs).map_err(Error::Grant)?);
                self.cgroup = Some(cgroup);
                Ok(())
            }
            Err(reason) => self.layers.miss(Layer::Cgroup, reason),
        }
    }
}

/// The state of the layers so far.
pub(super) struct Layers {
    confinement: Confinement,
    reports: Vec<LayerReport>,
}

impl Layers {
    /// Reports every layer that is not left out as in force. [`miss`](Self::miss) changes that for a layer that turns
    /// out to be missing.
    fn new(confinement: &Confinement) -> Result<Self, Error> {
        if let Some(layer) = confinement.contradiction() {
            let reason = "the configuration also leaves it out".to_owned();
            return Err(Error::LayerMissing { layer, reason });
        }
        let report = |layer: Layer| match confinement.wants(layer) {
            true => LayerReport::in_force(layer),
            false => LayerReport::left_out(layer),
        };
        Ok(Layers {
            confinement: confinement.clone(),
            reports: Layer::ALL.map(report).to_vec(),
        })
    }

    fn add_detail(&mut self, layer: Layer, detail: &str) {
        if let Some(report) = self.report(layer) {
            report.add_detail(detail);
        }
    }

    fn report(&mut self, layer: Layer) -> Option<&mut LayerReport> {
        let mut reports = self.reports.iter_mut();
        reports.find(|report| report.layer == layer)
    }

    /// Reports a layer as missing.
    ///
    /// # Errors
    ///
    /// [`Error::LayerMissing`] if the layer is required.
    fn miss(&mut self, layer: Layer, reason: String) -> Result<(), Error> {
        if self.confinement.require.contains(&layer) {
            return Err(Error::LayerMissing { layer, reason });
        }
        if let Some(report) = self.report(layer) {
            *report = LayerReport::missing(layer, reason);
        }
        Ok(())
    }

    /// Starts the child of `plan` with all layers that this host allows: if setting up a layer fails, the start is
    /// repeated without that layer. The inner error is a failure that has nothing to do with a layer.
    pub(super) fn start(&mut self, plan: &mut ChildPlan) -> Result<io::Result<Pid>, Error> {
        loop {
            let Failure { step, error } = match plan.start() {
                Ok(child) => return Ok(Ok(child)),
                Err(failure) => failure,
            };
            let Some(layer) = step.layer() else {
                return Ok(Err(error));
            };
            if !plan.restrictions.leave_out(layer) {
                return Ok(Err(error));
            }
            self.miss(layer, Causes(&error).to_string())?;
        }
    }

    pub(super) fn into_reports(self) -> Vec<LayerReport> {
        self.reports
    }
}
