//! The boundary around one VMM: the layers that keep it to what it was given, and which of them are in force.
//!
//! A VMM that its guest has taken over runs any code that it likes with the rights of its process. Each layer takes some
//! of those rights away between clone and exec, before the first instruction of the VMM runs:
//!
//! | layer | takes away | needs |
//! |---|---|---|
//! | [`Environment`](Layer::Environment) | the agent's environment, secrets included, but for an allow-list | - |
//! | [`Descriptors`](Layer::Descriptors) | every descriptor of the agent that was not handed over | Linux 5.11 |
//! | [`NoNewPrivs`](Layer::NoNewPrivs) | set-user-id programs and file capabilities | - |
//! | [`Rlimits`](Layer::Rlimits) | core dumps, descriptors without end, files larger than its disks | - |
//! | [`Capabilities`](Layer::Capabilities) | every capability, root's included | - |
//! | [`Landlock`](Layer::Landlock) | every file but its own, TCP, signals, abstract sockets and `ptrace` of others | Linux 5.13; TCP 6.7, signals and abstract sockets 6.12 |
//! | [`Namespaces`](Layer::Namespaces) | the network, System V IPC, the sight of other processes; its forks end with it | user namespaces |
//! | [`Cgroup`](Layer::Cgroup) | memory, processes and CPU time without end; its forks end with it | cgroup v2 and a delegated parent |
//!
//! What none of them takes away: the kernel's own interfaces that a VMM needs, `/dev/kvm` above all; CPU time and memory
//! where there is no cgroup; whatever it does with the descriptors that it was given.

mod cgroup;
mod domain;
mod grants;
mod namespaces;
mod rlimits;

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

pub use cgroup::CgroupConfig;
pub(super) use cgroup::{Cgroup, kill as kill_cgroup, remove as remove_cgroup};
pub(super) use domain::{Domain, Held};
pub use grants::Grants;
pub(super) use namespaces::{FLAGS as NAMESPACES, IdMaps};
pub(super) use rlimits::rlimits;

/// One layer of the boundary around a VMM. The module's table says what each takes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Layer {
    /// The environment holds an allow-list alone.
    Environment,
    /// All descriptors are closed at exec but those that are handed over.
    Descriptors,
    /// The process and its children can gain no privilege.
    NoNewPrivs,
    /// Limits of the process's resources.
    Rlimits,
    /// No capability, and none in the bounding set.
    Capabilities,
    /// One Landlock domain.
    Landlock,
    /// A user, network, IPC and process namespace of its own. A VM with network devices of the host's needs a VMM without
    /// this layer.
    Namespaces,
    /// A control group of its own.
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

    /// The name in configurations and reports.
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

/// Which layers a VMM gets. The default is best effort: every layer that this host has.
///
/// In a configuration file: `"best_effort"`, `"off"`, or a table such as `{ require = ["landlock", "namespaces"] }` or
/// `{ without = ["namespaces"] }`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Confinement {
    /// Layers without which no VMM is started.
    pub require: Vec<Layer>,
    /// Layers that are left out.
    pub without: Vec<Layer>,
}

impl Confinement {
    /// No layer at all.
    pub fn off() -> Self {
        Confinement {
            require: Vec::new(),
            without: Layer::ALL.to_vec(),
        }
    }

    /// Whether the layer is wanted.
    pub fn wants(&self, layer: Layer) -> bool {
        !self.without.contains(&layer)
    }

    /// A layer that is required and left out, which can't be.
    pub fn contradiction(&self) -> Option<Layer> {
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

/// What became of one layer at the start of a VMM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LayerReport {
    /// The layer.
    pub layer: Layer,
    /// What became of it.
    #[serde(flatten)]
    pub state: LayerState,
}

/// What became of a layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
#[non_exhaustive]
pub enum LayerState {
    /// It is in force.
    InForce {
        /// How much of it this host has.
        detail: String,
    },
    /// This host doesn't have it, or didn't allow it.
    Missing {
        /// Why.
        reason: String,
    },
    /// The configuration leaves it out.
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

/// Whether the forks of a VMM end with it, by what these layers say.
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
    fn a_layer_is_not_required_and_left_out() {
        let both = Confinement {
            require: vec![Layer::Rlimits, Layer::Cgroup],
            without: vec![Layer::Cgroup],
        };
        assert_eq!(both.contradiction(), Some(Layer::Cgroup));
        assert_eq!(Confinement::off().contradiction(), None);
    }
}
