//! The configurations that are accepted: the defaults, and a file and code that make the same configuration.

mod refusals;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;
use crate::causes::Causes;
use crate::golden::MemoryMode;
use crate::machine::{DiskFormat, VerificationLevel};
use crate::overlay::Digest;
use crate::sandbox::OlderGuest;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[track_caller]
fn read(toml: &str) -> SandboxConfig {
    match SandboxConfig::from_toml(toml) {
        Ok(config) => config,
        Err(error) => panic!("{toml}: {}", Causes(&error)),
    }
}

fn golden_of(config: &SandboxConfig) -> &GoldenOrigin {
    config.golden_origin().expect("a golden snapshot")
}

fn scaffold_of(config: &SandboxConfig) -> &ScaffoldOrigin {
    config.scaffold_origin().expect("scaffold mode")
}

/// Compares by `Debug`, which shows every field except the values of the environment, and those apart.
#[track_caller]
fn assert_same(read: &SandboxConfig, built: &SandboxConfig) {
    assert_eq!(format!("{read:#?}"), format!("{built:#?}"));
    assert_eq!(read.vmm_env, built.vmm_env);
}

#[test]
fn the_defaults() {
    let config = SandboxConfig::golden("/g");
    assert_eq!(config.vmm, Path::new("cloud-hypervisor"));
    assert_eq!(config.vmm_env, VmmEnv::default());
    assert_eq!(config.confinement, Confinement::default());
    assert_eq!(config.vmm_programs, Vec::<PathBuf>::new());
    assert_eq!(config.cgroup, CgroupConfig::default());
    assert!(!config.keep_socket_names);
    assert_eq!(config.run_root, None);
    assert_eq!(config.tools_per_reset, ToolsPerReset::One);
    assert_eq!(config.limits, TimeLimits::default());
    let golden = golden_of(&config);
    assert_eq!(golden.directory, Path::new("/g"));
    assert_eq!((golden.digest, &golden.public_key), (None, &None));
    assert_eq!(golden.memory, MemoryMode::Mapped);
    assert_eq!(golden.memory_limit_mib, None);
    assert_eq!(golden.verification, VerificationLevel::Fast);
    assert!(!golden.any_cpu);
    assert_eq!(golden.older_guest, OlderGuest::Accept);
    assert_eq!(golden.evidence_dir, None);
    assert_eq!((golden.strategy, golden.spares), (None, None));

    let config = SandboxConfig::scaffold("/k", "/r");
    let scaffold = scaffold_of(&config);
    assert_eq!(scaffold.kernel, Path::new("/k"));
    assert_eq!(scaffold.root_disk, Path::new("/r"));
    assert_eq!((&scaffold.initramfs, &scaffold.overlay), (&None, &None));
    assert_eq!(
        scaffold.cmdline,
        "console=hvc0 root=/dev/vda rootfstype=ext4 ro"
    );
    assert!(scaffold.root_readonly);
    assert_eq!(scaffold.root_format, DiskFormat::Raw);
    assert_eq!(scaffold.overlay_format, DiskFormat::Raw);
    assert_eq!((scaffold.vcpus, scaffold.memory_mib), (2, 1024));
    assert_eq!((scaffold.cid, scaffold.port), (3, 1024));
}

#[test]
fn a_file_and_code_make_the_same_golden_configuration() {
    assert_same(&read("golden = '/g'"), &SandboxConfig::golden("/g"));
    assert_same(
        &read("[golden]\ndirectory = '/g'"),
        &SandboxConfig::golden("/g"),
    );
    let toml = format!(
        "
        vmm = '/v'
        vmm_env = {{ TOKEN = 'hush', LANG = 'C' }}
        confinement = {{ require = ['landlock'] }}
        vmm_programs = ['/p', '/q']
        keep_socket_names = true
        run_root = '/run/x'
        tools_per_reset = 'many'

        [cgroup]
        parent = '/c'
        pids_max = 64

        [golden]
        directory = '/g'
        digest = '{DIGEST}'
        public_key = '/key'
        memory = 'copied'
        memory_limit_mib = 5
        verification = 'full'
        any_cpu = true
        older_guest = 'refuse'
        evidence_dir = '/e'
        strategy = 'fresh'
        spares = 64

        [limits]
        boot = '45s'
        query = '250ms'
        vmm_transfer = '1m 30s'
        "
    );
    let golden = GoldenOrigin::new("/g")
        .digest(DIGEST.parse::<Digest>().unwrap())
        .public_key("/key")
        .memory(MemoryMode::Copied)
        .memory_limit_mib(5)
        .verification(VerificationLevel::Full)
        .any_cpu(true)
        .older_guest(OlderGuest::Refuse)
        .evidence_dir("/e")
        .strategy(Strategy::Fresh)
        .spares(64);
    let limits = TimeLimits::default()
        .boot(Duration::from_secs(45))
        .query(Duration::from_millis(250))
        .vmm_transfer(Duration::from_secs(90));
    let built = SandboxConfig::new(golden)
        .vmm("/v")
        .vmm_env([("TOKEN", "hush"), ("LANG", "C")])
        .confinement(Confinement {
            require: vec![crate::vmm::Layer::Landlock],
            ..Confinement::default()
        })
        .vmm_programs(["/p", "/q"])
        .cgroup(CgroupConfig {
            parent: Some("/c".into()),
            pids_max: Some(64),
            ..CgroupConfig::default()
        })
        .keep_socket_names(true)
        .run_root("/run/x")
        .tools_per_reset(ToolsPerReset::Many)
        .limits(limits);
    built.check().unwrap();
    assert_same(&read(&toml), &built);
    let vmm = built.vmm_config();
    assert_eq!((vmm.binary, vmm.limits), ("/v".into(), limits));
}

#[test]
fn a_file_and_code_make_the_same_scaffold_configuration() {
    assert_same(
        &read("[scaffold]\nkernel = '/k'\nroot_disk = '/r'"),
        &SandboxConfig::scaffold("/k", "/r"),
    );
    let toml = "
        [scaffold]
        kernel = '/k'
        initramfs = '/i'
        cmdline = 'quiet'
        root_disk = '/r'
        root_readonly = false
        root_format = 'qcow2'
        overlay = '/o'
        overlay_format = 'qcow2'
        vcpus = 4
        memory_mib = 16
        cid = 4294967294
        port = 9000
        ";
    let scaffold = ScaffoldOrigin::new("/k", "/r")
        .initramfs("/i")
        .cmdline("quiet")
        .root_readonly(false)
        .root_format(DiskFormat::Qcow2)
        .overlay("/o")
        .overlay_format(DiskFormat::Qcow2)
        .vcpus(4)
        .memory_mib(16)
        .cid(u32::MAX - 1)
        .port(9000);
    assert_same(&read(toml), &SandboxConfig::new(scaffold));
}

#[test]
fn the_configuration_of_the_guide_can_be_read() {
    let guide = include_str!("../../guide/after_trust_boundary.md");
    let mut blocks = guide.split("```toml\n").skip(1);
    let config = blocks
        .find(|block| block.contains("[golden]"))
        .expect("one");
    let config = read(config.split("```").next().unwrap());
    assert_eq!(golden_of(&config).spares, Some(2));
    assert_eq!(config.limits.query, Duration::from_millis(500));
}

#[test]
fn the_guide_lists_each_setting() {
    let guide = include_str!("../../guide/after_trust_boundary.md");
    let listed: BTreeSet<&str> = guide
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    // An error about an unknown key names the known ones.
    let known = |toml: &str| -> Vec<String> {
        let error = SandboxConfig::from_toml(toml).unwrap_err();
        let text = Causes(&error).to_string();
        let (_, names) = text.split_once("expected one of").expect(&text);
        names
            .split('`')
            .skip(1)
            .step_by(2)
            .map(str::to_owned)
            .collect()
    };
    let mut keys = known("nonsense = 1");
    keys.retain(|key| !["golden", "scaffold"].contains(&key.as_str()));
    let golden = known("[golden]\nnonsense = 1");
    keys.extend(golden.iter().map(|key| format!("golden.{key}")));
    assert!(keys.len() > 15, "{keys:?}");
    for key in &keys {
        assert!(listed.contains(key.as_str()), "{key} is not in the guide");
    }
    let gone = listed
        .iter()
        .filter(|key| key.contains('.') && !keys.iter().any(|it| it == *key));
    assert_eq!(gone.count(), 0, "the guide has a key that is gone");
}

#[test]
fn a_file_is_read_up_to_64_kib() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sandbox.toml");
    let mut text = "golden = '/g'\n#".to_owned();
    text.push_str(&"x".repeat(64 * 1024 - text.len()));
    std::fs::write(&path, &text).unwrap();
    assert_same(
        &SandboxConfig::load(&path).unwrap(),
        &SandboxConfig::golden("/g"),
    );
    let check = |bytes: &[u8], part: &str| {
        std::fs::write(&path, bytes).unwrap();
        let error = SandboxConfig::load(&path).unwrap_err();
        assert!(matches!(&error, ConfigError::Read { path: named, .. } if *named == path));
        let text = Causes(&error).to_string();
        assert!(text.contains(part), "{text}");
    };
    text.push('x');
    check(text.as_bytes(), "larger than 65536 bytes");
    check(&[b'#'; 65 * 1024], "larger than 65536 bytes");
    check(b"golden = '\xff'", "UTF-8");
    let missing = SandboxConfig::load(&folder.path().join("missing")).unwrap_err();
    assert!(matches!(missing, ConfigError::Read { .. }));
}

#[test]
fn a_configuration_inside_another_document_is_checked_too() {
    #[derive(Debug, Deserialize)]
    struct Agent {
        sandbox: SandboxConfig,
    }
    let agent: Agent =
        serde_json::from_str(r#"{ "sandbox": { "golden": { "directory": "/g", "spares": 2 } } }"#)
            .unwrap();
    assert_eq!(golden_of(&agent.sandbox).spares, Some(2));
    let error = toml::from_str::<Agent>("[sandbox.golden]\ndirectory = '/g'\nspares = 65");
    let message = error.unwrap_err().message().to_owned();
    assert_eq!(
        message,
        "the configuration's golden.spares is 65, more than 64"
    );
}

#[test]
fn the_strategy_follows_from_the_origin_the_configuration_and_the_vmm() {
    let spawn = VmmSource::Spawn(VmmConfig::default());
    let attach = VmmSource::Attach {
        api_socket: "/a".into(),
        directory: "/d".into(),
    };
    let golden = SandboxConfig::golden("/g");
    let in_place = SandboxConfig::new(GoldenOrigin::new("/g").strategy(Strategy::InPlace));
    let scaffold = SandboxConfig::scaffold("/k", "/r");
    for (config, source, expected) in [
        (&golden, &spawn, Strategy::Fresh),
        (&golden, &attach, Strategy::InPlace),
        (&in_place, &spawn, Strategy::InPlace),
        (&scaffold, &spawn, Strategy::InPlace),
        (&scaffold, &attach, Strategy::InPlace),
    ] {
        assert_eq!(config.strategy_on(source), expected, "{config:?}");
    }
}
