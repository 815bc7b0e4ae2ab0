//! The confinement of one VMM: the layers that limit the VMM to its own files and descriptors ([`Layer`]), and which of
//! them are in force ([`LayerReport`]).
//!
//! If a guest takes its VMM over, it can run any code with the rights of the VMM's process. Each layer takes some of
//! these rights away. All layers are set between clone and exec, before the VMM's first instruction runs.
//!
//! - [`Environment`](Layer::Environment): the VMM gets an allow-list of the agent's environment, and so none of its
//!   secrets.
//! - [`Descriptors`](Layer::Descriptors): the VMM inherits only the descriptors that are handed over. Needs Linux 5.9.
//! - [`NoNewPrivs`](Layer::NoNewPrivs): set-user-id programs and file capabilities give no privileges.
//! - [`Rlimits`](Layer::Rlimits): no core dumps, a limited number of descriptors, no file larger than the largest that
//!   the VMM has to write.
//! - [`Capabilities`](Layer::Capabilities): the VMM has no capability, also if the agent runs as root.
//! - [`Landlock`](Layer::Landlock): the VMM can open only its own files, and can't use TCP, or signal, trace or reach
//!   by abstract sockets a process outside. Needs Linux 5.13; the limits of TCP need 6.7, those of signals and abstract
//!   sockets 6.12.
//! - [`Namespaces`](Layer::Namespaces): the VMM has no network and no System V IPC, and can't see other processes. Its
//!   forks end with it. Needs user namespaces.
//! - [`Cgroup`](Layer::Cgroup): memory, processes and CPU time can be limited. The VMM's forks end with it. Needs
//!   cgroup v2 and a configured or delegated parent.
//!
//! No layer limits the kernel's interfaces that a VMM needs, above all `/dev/kvm`; CPU time and memory where there is
//! no control group; or what the VMM does with the descriptors that it was given.

mod cgroup;
mod grants;
mod landlock;
mod namespaces;
mod rlimits;

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

pub use cgroup::CgroupConfig;
pub(super) use cgroup::{Cgroup, kill as kill_cgroup, remove as remove_cgroup};
pub use grants::Grants;
pub(super) use landlock::{Domain, Held};
pub(super) use namespaces::{FLAGS as NAMESPACES, IdMaps};
pub(super) use rlimits::rlimits;

/// One layer of a VMM's confinement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Layer {
    /// The VMM's environment has only the variables of an allow-list.
    Environment,
    /// All descriptors except those that are handed over are closed before the VMM is executed. Needs Linux 5.9.
    Descriptors,
    /// The VMM and its children can't gain privileges by running a program.
    NoNewPrivs,
    /// The VMM's resources are limited: core dumps, descriptors, the length of files.
    Rlimits,
    /// The VMM has no capability, and none in its bounding set.
    Capabilities,
    /// A Landlock domain limits the files that the VMM may open. Needs Linux 5.13.
    Landlock,
    /// The VMM has its own user, network, IPC and process namespaces. A VM with network devices of the host needs a VMM
    /// without this layer.
    Namespaces,
    /// The VMM has its own control group.
    Cgroup,
}

impl Layer {
    /// Every layer, in the order of the reports.
    pub const ALL: [Layer; 8] = [
        Layer::Environment,
        Layer::Descriptors,
        Layer::NoNewPrivs,
        Layer::Rlimits,
        Layer::Capabilities,
        Layer::Landlock,
        Layer::Namespaces,
        Layer::Cgroup,
    ];

    /// The layer's name in configurations and reports.
    pub fn name(self) -> &'static str {
        match self {
            Layer::Environment => "environment",
            Layer::Descriptors => "descriptors",
            Layer::NoNewPrivs => "no_new_privs",
            Layer::Rlimits => "rlimits",
            Layer::Capabilities => "capabilities",
            Layer::Landlock => "landlock",
            Layer::Namespaces => "namespaces",
            Layer::Cgroup => "cgroup",
        }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The layers that a VMM gets. The default is best effort: every layer that this host has.
///
/// In a configuration file: `"best_effort"`, `"off"`, or a table such as `{ require = ["landlock", "namespaces"] }` or
/// `{ without = ["namespaces"] }`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Confinement {
    /// Layers that must be in force. If this host lacks one of them, no VMM is started.
    pub require: Vec<Layer>,
    /// Layers that are left out even if this host has them.
    pub without: Vec<Layer>,
}

impl Confinement {
    /// A confinement that leaves out every layer.
    pub fn off() -> Self {
        Confinement {
            require: Vec::new(),
            without: Layer::ALL.to_vec(),
        }
    }

    /// Whether the layer is not left out.
    pub(crate) fn wants(&self, layer: Layer) -> bool {
        !self.without.contains(&layer)
    }

    /// Returns the first layer that is both required and left out, which no VMM can satisfy.
    pub(crate) fn contradiction(&self) -> Option<Layer> {
        let mut required = self.require.iter();
        required.find(|layer| !self.wants(**layer)).copied()
    }
}

impl<'de> Deserialize<'de> for Confinement {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "snake_case")]
        enum Word {
            BestEffort,
            Off,
        }
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            #[serde(default)]
            require: Vec<Layer>,
            #[serde(default)]
            without: Vec<Layer>,
        }
        #[derive(Deserialize)]
        #[serde(
            untagged,
            expecting = "\"best_effort\", \"off\", or a table with `require` or `without`, lists of layers"
        )]
        enum Form {
            Word(Word),
            Table(Table),
        }
        Ok(match Form::deserialize(deserializer)? {
            Form::Word(Word::BestEffort) => Confinement::default(),
            Form::Word(Word::Off) => Confinement::off(),
            Form::Table(Table { require, without }) => Confinement { require, without },
        })
    }
}

/// The state of one layer after the start of a VMM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LayerReport {
    /// The layer.
    pub layer: Layer,
    /// The layer's state.
    #[serde(flatten)]
    pub state: LayerState,
}

/// The state of a layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
#[non_exhaustive]
pub enum LayerState {
    /// The layer is in force.
    InForce {
        /// The extent to which it is in force, such as its limits or the version that this kernel has.
        detail: String,
    },
    /// This host lacks the layer, or did not allow it.
    Missing {
        /// Why the layer is missing.
        reason: String,
    },
    /// The configuration leaves the layer out.
    LeftOut,
}

impl LayerReport {
    pub(super) fn in_force(layer: Layer) -> Self {
        let detail = match layer {
            Layer::Environment => "an allow-list",
            Layer::Descriptors => "those handed over",
            Layer::NoNewPrivs => "set",
            Layer::Rlimits => "no core dump",
            Layer::Capabilities => "none",
            Layer::Landlock => "one domain",
            Layer::Namespaces => "user, process, network and IPC",
            Layer::Cgroup => "its own",
        };
        let state = LayerState::InForce {
            detail: detail.to_owned(),
        };
        LayerReport { layer, state }
    }

    pub(super) fn missing(layer: Layer, reason: String) -> Self {
        let state = LayerState::Missing { reason };
        LayerReport { layer, state }
    }

    pub(super) fn add_detail(&mut self, more: &str) {
        if let LayerState::InForce { detail } = &mut self.state {
            *detail = format!("{detail}, {more}");
        }
    }

    pub(super) fn left_out(layer: Layer) -> Self {
        LayerReport {
            layer,
            state: LayerState::LeftOut,
        }
    }

    /// Whether the layer is in force.
    pub fn is_in_force(&self) -> bool {
        matches!(self.state, LayerState::InForce { .. })
    }
}

impl fmt::Display for LayerReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.state {
            LayerState::InForce { detail } => write!(f, "{}: in force ({detail})", self.layer),
            LayerState::Missing { reason } => write!(f, "{}: missing, {reason}", self.layer),
            LayerState::LeftOut => write!(f, "{}: left out", self.layer),
        }
    }
}

/// Whether a layer is in force that makes the kernel end the VMM's forks with the VMM.
pub(super) fn catches_forks(layers: &[LayerReport]) -> bool {
    let catching = [Layer::Namespaces, Layer::Cgroup];
    let mut layers = layers.iter();
    layers.any(|report| catching.contains(&report.layer) && report.is_in_force())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_confinement_is_a_word_or_a_table() {
        fn check(toml: &str, expected: Option<Confinement>) {
            #[derive(Deserialize)]
            struct Config {
                confinement: Confinement,
            }
            let config: Result<Config, _> = toml::from_str(toml);
            assert_eq!(
                config.ok().map(|config| config.confinement),
                expected,
                "{toml}"
            );
        }

        let confinement = |require: &[Layer], without: &[Layer]| {
            Some(Confinement {
                require: require.to_vec(),
                without: without.to_vec(),
            })
        };
        check(r#"confinement = "best_effort""#, confinement(&[], &[]));
        check(r#"confinement = "off""#, confinement(&[], &Layer::ALL));
        check(
            r#"confinement = { require = ["landlock", "no_new_privs"] }"#,
            confinement(&[Layer::Landlock, Layer::NoNewPrivs], &[]),
        );
        check(
            r#"confinement = { without = ["namespaces"] }"#,
            confinement(&[], &[Layer::Namespaces]),
        );
        check(r#"confinement = "on""#, None);
        check(r#"confinement = { require = ["selinux"] }"#, None);
        check(r#"confinement = { requires = [] }"#, None);
    }

    #[test]
    fn the_names_are_those_of_the_configuration() {
        for layer in Layer::ALL {
            let name = serde_json::to_value(layer).unwrap();
            assert_eq!(name, layer.name());
        }
    }

    #[test]
    fn a_layer_that_is_required_and_left_out_is_a_contradiction() {
        let both = Confinement {
            require: vec![Layer::Rlimits, Layer::Cgroup],
            without: vec![Layer::Cgroup],
        };
        assert_eq!(both.contradiction(), Some(Layer::Cgroup));
        assert_eq!(Confinement::off().contradiction(), None);
    }
}
