//! Checks the layers of confinement around a VMM.

use super::{CheckId, CheckStatus, Host, HostCheck, Remedy, within_limit};
use crate::vmm::{CgroupConfig, Layer, LayerReport, LayerState, available};

/// Returns a check for each layer. An absent layer is `missing` if it is required, otherwise a warning.
pub(super) async fn checks(host: &Host, require: &[Layer]) -> Vec<HostCheck> {
    let tried = within_limit(|| available(&CgroupConfig::default())).await;
    match tried.map(|tried| tried.map_err(|error| error.to_string())) {
        Ok(Ok(available)) => judge(host, available, require),
        Ok(Err(why)) | Err(why) => Layer::ALL
            .into_iter()
            .map(|layer| not_found_out(layer, &why, require))
            .collect(),
    }
}

fn judge(host: &Host, available: Vec<LayerReport>, require: &[Layer]) -> Vec<HostCheck> {
    let tried: Vec<Layer> = available.iter().map(|report| report.layer).collect();
    let told = available.into_iter().map(|LayerReport { layer, state }| {
        let id = CheckId::Layer(layer);
        match state {
            LayerState::InForce { detail } => HostCheck::good(id, detail),
            LayerState::LeftOut => not_found_out(layer, "it was not tried", require),
            LayerState::Missing { reason } => {
                let remedy = remedy(host, layer);
                let mut check = HostCheck::lacking(id, reason, lost(layer), remedy);
                if require.contains(&layer) {
                    check.status = CheckStatus::Missing;
                }
                check
            }
        }
    });
    let untold = require.iter().filter(|layer| !tried.contains(layer));
    let untold = untold.map(|layer| not_found_out(*layer, "it was not tried", require));
    told.chain(untold).collect()
}

fn not_found_out(layer: Layer, why: &str, require: &[Layer]) -> HostCheck {
    let mut check = HostCheck::not_found_out(CheckId::Layer(layer), why);
    if require.contains(&layer) {
        check.status = CheckStatus::Undecided;
    }
    check
}

/// What a VMM that its guest has taken over can do if the layer is absent.
fn lost(layer: Layer) -> &'static str {
    match layer {
        Layer::Environment => "a hostile VMM reads this process's environment",
        Layer::Descriptors => "a hostile VMM has this process's open files",
        Layer::NoNewPrivs => "a hostile VMM gains rights by set-user-id programs",
        Layer::Rlimits => "a hostile VMM fills the disk",
        Layer::Capabilities => "a hostile VMM has root's capabilities",
        Layer::Landlock => "a hostile VMM reaches every file of this user",
        Layer::Namespaces => "a hostile VMM reaches the network, and its forks may outlive it",
        Layer::Cgroup => "a hostile VMM takes memory, processes and CPU at will",
    }
}

/// The command that gives this host the layer, if there is one.
pub(super) fn remedy(host: &Host, layer: Layer) -> Option<Remedy> {
    match layer {
        Layer::Landlock => Some(landlock(host)),
        Layer::Namespaces => Some(namespaces(host)),
        Layer::Cgroup => Some(cgroup(host)),
        Layer::Environment
        | Layer::Descriptors
        | Layer::NoNewPrivs
        | Layer::Rlimits
        | Layer::Capabilities => None,
    }
}

/// A container without a seccomp filter. A seccomp profile that allows the needed system calls suffices.
fn unfiltered() -> Remedy {
    Remedy::new("docker run --security-opt seccomp=unconfined ...")
        .note("on the host, or use a seccomp profile that allows it")
}

fn landlock(host: &Host) -> Remedy {
    if host.caller.container {
        return unfiltered();
    }
    let command = host
        .caller
        .as_root("grubby --update-kernel=ALL --args=lsm=landlock,$(cat /sys/kernel/security/lsm)");
    Remedy::new(command).note("then reboot; needs Linux 5.13 with CONFIG_SECURITY_LANDLOCK")
}

fn namespaces(host: &Host) -> Remedy {
    let set = |setting: &str| {
        let command = host.caller.as_root(&format!("sysctl -w {setting}"));
        match host.caller.container {
            true => Remedy::new(command).note("on the host"),
            false => Remedy::new(command),
        }
    };
    let is = |name: &str, value: &str| host.sysctl(name).as_deref() == Some(value);
    if is("user/max_user_namespaces", "0") {
        set("user.max_user_namespaces=15000")
    } else if is("kernel/unprivileged_userns_clone", "0") {
        set("kernel.unprivileged_userns_clone=1")
    } else if is("kernel/apparmor_restrict_unprivileged_userns", "1") {
        set("kernel.apparmor_restrict_unprivileged_userns=0")
    } else if host.caller.container {
        unfiltered()
    } else {
        Remedy::new("sysctl user.max_user_namespaces").note("needs CONFIG_USER_NS")
    }
}

fn cgroup(host: &Host) -> Remedy {
    let unified = host.cgroups.join("cgroup.controllers").exists();
    if host.caller.container {
        let command = "docker run --cgroupns private -v /sys/fs/cgroup:/sys/fs/cgroup:rw ...";
        return Remedy::new(command).note("on the host, with cgroup v2");
    }
    match (unified, host.caller.root) {
        (false, _) => {
            let command = host
                .caller
                .as_root("grubby --update-kernel=ALL --args=systemd.unified_cgroup_hierarchy=1");
            Remedy::new(command).note("then reboot")
        }
        (true, true) => Remedy::new("systemd-run --scope -p Delegate=yes AGENT"),
        (true, false) => Remedy::new("systemd-run --user --scope -p Delegate=yes AGENT"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Place;
    use super::*;

    fn missing(layer: Layer) -> LayerReport {
        let reason = "no".to_owned();
        let state = LayerState::Missing { reason };
        LayerReport { layer, state }
    }

    #[test]
    fn a_layer_that_is_not_there_is_missing_only_if_it_is_required() {
        let host = Place::new().host();
        let status = |require: &[Layer], layer| {
            let state = LayerState::InForce {
                detail: "ABI 7".to_owned(),
            };
            let here = LayerReport {
                layer: Layer::Landlock,
                state,
            };
            let available = vec![here, missing(Layer::Namespaces)];
            let checks = judge(&host, available, require);
            let check = checks
                .into_iter()
                .find(|check| check.id == CheckId::Layer(layer));
            check.map(|check| check.status)
        };
        let (landlock, namespaces) = (Layer::Landlock, Layer::Namespaces);
        assert_eq!(status(&[], landlock), Some(CheckStatus::Good));
        assert_eq!(status(&[], namespaces), Some(CheckStatus::Warning));
        assert_eq!(
            status(&[namespaces], namespaces),
            Some(CheckStatus::Missing)
        );
        assert_eq!(status(&[landlock], namespaces), Some(CheckStatus::Warning));
        assert_eq!(status(&[], Layer::Cgroup), None);
        let untold = status(&[Layer::Cgroup], Layer::Cgroup);
        assert_eq!(untold, Some(CheckStatus::Undecided));
    }

    #[test]
    fn every_layer_says_what_is_lost() {
        let host = Place::new().host();
        for layer in Layer::ALL {
            let [check] = &judge(&host, vec![missing(layer)], &[])[..] else {
                panic!("{layer:?}");
            };
            assert!(check.lost.as_ref().is_some_and(|lost| !lost.is_empty()));
            assert_eq!(check.found, "no");
        }
    }

    #[test]
    fn the_setting_that_forbids_user_namespaces_is_named() {
        let place = Place::new();
        let found = || namespaces(&place.host()).command;
        assert_eq!(found(), "sysctl user.max_user_namespaces");
        let cases = [
            (
                "kernel/apparmor_restrict_unprivileged_userns",
                "1",
                "kernel.apparmor_restrict_unprivileged_userns=0",
            ),
            (
                "kernel/unprivileged_userns_clone",
                "0",
                "kernel.unprivileged_userns_clone=1",
            ),
            (
                "user/max_user_namespaces",
                "0",
                "user.max_user_namespaces=15000",
            ),
        ];
        for (name, value, expected) in cases {
            place.write(&format!("proc/sys/{name}"), &format!("{value}\n"));
            assert_eq!(found(), format!("sudo sysctl -w {expected}"));
        }
    }

    #[test]
    fn the_command_depends_on_root_user_or_container() {
        let place = Place::new();
        let mut host = place.host();
        assert!(cgroup(&host).command.starts_with("sudo grubby"));
        place.write("cgroups/cgroup.controllers", "cpu memory pids\n");
        assert!(cgroup(&host).command.starts_with("systemd-run --user"));
        assert!(landlock(&host).command.starts_with("sudo grubby"));
        host.caller.root = true;
        assert!(cgroup(&host).command.starts_with("systemd-run --scope"));
        assert!(landlock(&host).command.starts_with("grubby"));
        host.caller.container = true;
        for remedy in [cgroup(&host), landlock(&host), namespaces(&host)] {
            assert!(remedy.command.starts_with("docker run "), "{remedy}");
        }
    }
}
