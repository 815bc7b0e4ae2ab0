//! What a configuration takes and refuses.

use super::*;
use crate::causes::Causes;

fn check(toml: &str, expected: Result<(), &str>) {
    let result = SandboxConfig::from_toml(toml).map(drop);
    match (result, expected) {
        (Ok(()), Ok(())) => {}
        (Err(error), Err(part)) => {
            let text = Causes(&error).to_string();
            assert!(text.contains(part), "{toml}: {text}");
        }
        (result, expected) => panic!("{toml}: {result:?}, expected {expected:?}"),
    }
}

#[test]
fn what_can_be_configured_and_what_not() {
    check("golden = '/g'", Ok(()));
    check("scaffold = true\nkernel = '/k'\nroot_disk = '/r'", Ok(()));
    check("golden = '/g'\ntimeouts = { query_ms = 5000 }", Ok(()));
    check("golden = '/g'\noverlay_format = 'qcow2'", Ok(()));
    check("golden = '/g'\noverlay_format = 'vhd'", Err("vhd"));
    check("", Err("golden is missing"));
    check("scaffold = true", Err("kernel is missing"));
    check(
        "scaffold = true\nkernel = '/k'",
        Err("root_disk is missing"),
    );
    check("golden = '/g'\nscaffold = true", Err("exclude each other"));
    check("golden = '/g'\ncid = 2", Err("cid is 2"));
    check("golden = '/g'\ncid = 4294967295", Err("reserved"));
    check("golden = '/g'\nvcpus = 0", Err("vcpus"));
    check("golden = '/g'\nmemory_mib = 1", Err("memory_mib"));
    check(
        "golden = '/g'\nmemory_mib = 18446744073709551",
        Err("memory_mib"),
    );
    check("golden = '/g'\nstrategy = 'fresh'\nspares = 64", Ok(()));
    check("golden = '/g'\nstrategy = 'in_place'", Ok(()));
    check(
        "golden = '/g'\nspares = 65",
        Err("spares is 65, more than 64"),
    );
    for gone in ["'respawn'", "'standby'", "{ standby = {} }"] {
        let config = format!("golden = '/g'\nstrategy = {gone}");
        check(&config, Err("is not understood"));
    }
    check("golden = '/g'\nconfinement = 'off'", Ok(()));
    check(
        "golden = '/g'\nconfinement = { require = ['landlock'] }",
        Ok(()),
    );
    check(
        "golden = '/g'\nconfinement = { require = ['landlock'], without = ['landlock'] }",
        Err("confinement requires landlock and leaves it out"),
    );
    check("golden = '/g'\nconfinement = 'maybe'", Err("best_effort"));
    check(
        "golden = '/g'\ncgroup = { parent = '/c', pids_max = 64 }",
        Ok(()),
    );
    check("golden = '/g'\ncgroup = { pids = 64 }", Err("pids"));
    check("golden = '/g'\nstrategy = 'guess'", Err("guess"));
    check(
        "scaffold = true\nkernel = '/k'\nroot_disk = '/r'\nstrategy = 'fresh'",
        Err("strategy needs a golden snapshot"),
    );
    let digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    check(
        &format!(
            "golden = '/g'\nmemory = 'copied'\ngolden_memory_limit_mib = 5\ngolden_digest = 'sha256:{digest}'"
        ),
        Ok(()),
    );
    check("golden = '/g'\nmemory = 'lazy'", Err("lazy"));
    check(
        &format!("golden = '/g'\ngolden_digest = '{digest}'"),
        Err("sha256"),
    );
    check(
        &format!(
            "scaffold = true\nkernel = '/k'\nroot_disk = '/r'\ngolden_digest = 'sha256:{digest}'"
        ),
        Err("golden_digest needs a golden snapshot"),
    );
    check("golden = '/g'\nmemmory = 3", Err("memmory"));
    check("golden = ", Err("is not understood"));
}

#[test]
fn the_environments_values_are_not_shown() {
    let config = SandboxConfig::from_toml("golden = '/g'\nvmm_env = { TOKEN = 'hush' }").unwrap();
    let shown = format!("{config:?}{:?}", config.vmm_config());
    assert!(
        shown.contains("TOKEN") && !shown.contains("hush"),
        "{shown}"
    );
    assert_eq!(config.vmm_config().env, [("TOKEN".into(), "hush".into())]);
}

#[test]
fn the_defaults_are_the_protocols() {
    let config = SandboxConfig::default();
    assert_eq!((config.vcpus, config.memory_mib), (2, 1024));
    assert_eq!((config.cid, config.port), (3, 1024));
    assert!(config.root_readonly);
    assert_eq!(config.vmm, Path::new("cloud-hypervisor"));
}
