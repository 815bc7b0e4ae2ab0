//! The configurations that are refused: the place and the message of each error.

use std::time::Duration;

use super::read;
use crate::causes::Causes;
use crate::limits::TimeLimits;
use crate::sandbox::{ConfigError, SandboxConfig};

/// Checks that the configuration is refused with this message.
#[track_caller]
fn refused(toml: &str, message: &str) {
    let error = SandboxConfig::from_toml(toml).expect_err(toml);
    assert_eq!(Causes(&error).to_string(), message, "{toml}");
}

/// Checks that the configuration is refused as malformed at this line and column, with a message that contains `part`.
#[track_caller]
fn refused_at(toml: &str, place: (usize, usize), part: &str) {
    match SandboxConfig::from_toml(toml) {
        Err(ConfigError::Malformed {
            line,
            column,
            message,
        }) => {
            assert_eq!((line, column), place, "{toml}: {message}");
            assert!(message.contains(part), "{toml}: {message}");
        }
        other => panic!("{toml}: {other:?}"),
    }
}

#[test]
fn a_configuration_without_exactly_one_origin_is_refused() {
    let missing = "the configuration's golden is missing: give a golden snapshot's directory, or a table [scaffold] to \
                   run without verification";
    refused("", missing);
    refused("vmm = '/v'", missing);
    let both = "the configuration's golden and scaffold exclude each other: remove one of them";
    refused(
        "golden = '/g'\n[scaffold]\nkernel = '/k'\nroot_disk = '/r'",
        both,
    );
    refused("[golden]\ndirectory = '/g'\n[scaffold]", both);
    refused_at(
        "scaffold = true",
        (1, 12),
        "expected a table with `kernel` and `root_disk`",
    );
    refused_at(
        "golden = 5",
        (1, 10),
        "expected the golden snapshot's directory, or a table with `directory`",
    );
    refused_at("[golden]\nspares = 1", (1, 1), "missing field `directory`");
}

#[test]
fn the_error_names_the_field_with_the_illegal_value() {
    let golden = |line: &str| format!("[golden]\ndirectory = '/g'\n{line}");
    let scaffold = |line: &str| format!("[scaffold]\nkernel = '/k'\nroot_disk = '/r'\n{line}");
    let other = |line: &str| format!("golden = '/g'\n{line}");
    for (toml, fault) in [
        (other("vmm = ''"), "vmm is missing or empty"),
        ("golden = ''".into(), "golden.directory is missing or empty"),
        (
            "golden = \"/g\\u0000\"".into(),
            "golden.directory has a NUL character in it",
        ),
        (golden("spares = 65"), "golden.spares is 65, more than 64"),
        (
            golden("memory_limit_mib = 17592186044416"),
            "golden.memory_limit_mib does not fit into a number of bytes",
        ),
        (
            golden("evidence_dir = ''"),
            "golden.evidence_dir is missing or empty",
        ),
        (
            golden("public_key = ''"),
            "golden.public_key is missing or empty",
        ),
        ("[scaffold]".into(), "scaffold.kernel is missing or empty"),
        (
            "[scaffold]\nkernel = '/k'".into(),
            "scaffold.root_disk is missing or empty",
        ),
        (
            scaffold("initramfs = ''"),
            "scaffold.initramfs is missing or empty",
        ),
        (
            scaffold("overlay = ''"),
            "scaffold.overlay is missing or empty",
        ),
        (
            scaffold("overlay_format = 'qcow2'"),
            "scaffold.overlay_format is set, and scaffold.overlay is not",
        ),
        (
            scaffold("cmdline = \"a\\u0000b\""),
            "scaffold.cmdline has a NUL character in it",
        ),
        (scaffold("vcpus = 0"), "scaffold.vcpus is 0"),
        (
            scaffold("memory_mib = 15"),
            "scaffold.memory_mib is 15, less than 16",
        ),
        (
            scaffold("memory_mib = 17592186044416"),
            "scaffold.memory_mib does not fit into a number of bytes",
        ),
        (
            scaffold("cid = 2"),
            "scaffold.cid is 2; 0 to 2 are reserved",
        ),
        (
            scaffold("cid = 4294967295"),
            "scaffold.cid is 4294967295, which means any CID and is reserved",
        ),
        (
            other("confinement = { require = ['landlock'], without = ['landlock'] }"),
            "confinement requires landlock and leaves it out",
        ),
        (
            other("vmm_programs = ['/p', '']"),
            "vmm_programs is missing or empty",
        ),
        (
            other("cgroup = { parent = '' }"),
            "cgroup.parent is missing or empty",
        ),
        (other("run_root = ''"), "run_root is missing or empty"),
        (
            other("limits.query = '0s'"),
            "limits.query is zero: this step needs some time",
        ),
        (
            other("limits.settle = '25h'"),
            "limits.settle is longer than 24h",
        ),
    ] {
        refused(&toml, &format!("the configuration's {fault}"));
    }
    let code = SandboxConfig::golden("/g").limits(TimeLimits::default().vmm_kill(Duration::MAX));
    assert!(matches!(
        code.check(),
        Err(ConfigError::Invalid {
            field: "limits.vmm_kill",
            ..
        })
    ));
}

#[test]
fn the_error_of_a_malformed_file_has_line_and_column() {
    let duration = r#"expected a time with its unit in quotes, such as "5s", "250ms" or "1m 30s""#;
    for (toml, place, part) in [
        (
            "golden = '/g'\nmemmory = 3",
            (2, 1),
            "unknown field `memmory`",
        ),
        (
            "\n[golden]\ndirectory = '/g'\n  spare = 3",
            (4, 3),
            "unknown field `spare`",
        ),
        (
            "golden = { directory = '/g', cid = 3 }",
            (1, 30),
            "unknown field `cid`",
        ),
        (
            "[scaffold]\nkernel = '/k'\nspares = 3",
            (3, 1),
            "unknown field `spares`",
        ),
        (
            "golden = '/g'\nlimits = { boot_ms = 5 }",
            (2, 12),
            "unknown field `boot_ms`",
        ),
        (
            "golden = '/g'\ncgroup = { pids = 64 }",
            (2, 12),
            "unknown field `pids`",
        ),
        ("golden = '/g'\nlimits.query = 5", (2, 16), duration),
        ("golden = '/g'\nlimits.query = '5'", (2, 16), duration),
        ("golden = '/g'\nlimits.query = ''", (2, 16), duration),
        ("golden = '/g'\nlimits.query = '-1s'", (2, 16), duration),
        ("golden = '/g'\nlimits.query = '1e400s'", (2, 16), duration),
        (
            "golden = '/g'\nlimits.query = '999999999999999999999h'",
            (2, 16),
            duration,
        ),
        ("golden = ", (1, 10), "string values must be quoted"),
        ("golden = '/g'\ngolden = '/h'", (2, 1), "duplicate key"),
        (
            "[golden]\ndirectory = '/g'\n[golden]",
            (3, 2),
            "duplicate key",
        ),
        (
            "golden = '/g'\n[limits]\nboot = '5s'\n[limits]",
            (4, 2),
            "duplicate key",
        ),
        (
            "golden = '/g'\nlimits = 5",
            (2, 10),
            "expected a table of times, such as { boot = \"45s\" }",
        ),
        ("golden = '/g'\n\0", (2, 2), "key with no value"),
        (
            "golden = '/g'\n\"\\u001b[31m\" = 3",
            (2, 1),
            r"unknown field `\u{1b}[31m`",
        ),
        ("# ü\n'ü' = 'é', spares", (2, 10), ""),
        (
            "[golden]\ndirectory = '/g'\nstrategy = 'guess'",
            (3, 12),
            "guess",
        ),
        (
            "[golden]\ndirectory = '/g'\nmemory = 'lazy'",
            (3, 10),
            "lazy",
        ),
        (
            "[golden]\ndirectory = '/g'\ndigest = 'abc'",
            (3, 10),
            "sha256",
        ),
        (
            "[golden]\ndirectory = '/g'\nspares = -1",
            (3, 10),
            "integer `-1`",
        ),
        (
            "golden = '/g'\nconfinement = 'maybe'",
            (2, 15),
            "best_effort",
        ),
    ] {
        refused_at(toml, place, part);
    }
}

#[test]
fn no_debug_output_and_no_error_shows_a_value_of_the_environment() {
    let config = read("golden = '/g'\nvmm_env = { TOKEN = 'hush' }");
    let shown = format!("{config:?}{:?}", config.vmm_config());
    assert!(
        shown.contains("TOKEN") && !shown.contains("hush"),
        "{shown}"
    );
    assert_eq!(config.vmm_config().env, [("TOKEN".into(), "hush".into())]);

    for env in [
        "vmm_env = 'TOKEN=hush'",
        "vmm_env = ['TOKEN=hush']",
        "vmm_env = { TOKEN = ['hush'] }",
        "vmm_env = { TOKEN = { hush = 'hush' } }",
        "vmm_env = { TOKEN = 'hush', OTHER = 5 }",
        "vmm_env = { TOKEN = 'hush\n}",
        "vmm_env = { TOKEN = hush }",
        "vmm_env = { TOKEN = \"hush\\q\" }",
        "vmm_env = { TOKEN = 'hush', TOKEN = 'hush' }",
        "vmm_env = { TOKEN = 'hush' } spares = 3",
        "vmm_env = { 'TOKEN=hush' = '' }",
        "vmm_env = { TOKEN = \"hush\\u0000\" }",
        "vmm_env = { '' = 'hush' }",
        "[vmm_env]\nTOKEN = 'hush'\n[vmm_env.TOKEN]",
        "[vmm_env]\nTOKEN = 'hush'\n[vmm_env]",
        "[vmm_env]\nTOKEN = 'hush'\n[limits]\nboot = 5",
        "vmm_evn = { TOKEN = 'hush' }",
    ] {
        let error = SandboxConfig::from_toml(&format!("golden = '/g'\n{env}")).expect_err(env);
        let shown = format!("{}{error:?}{error:#?}", Causes(&error));
        assert!(!shown.contains("hush"), "{env}: {shown}");
    }
    for number in ["12345678", "1.2345678", "1979-05-27T07:32:00Z", "true"] {
        let env = format!("golden = '/g'\nvmm_env = {{ TOKEN = {number} }}");
        refused_at(
            &env,
            (2, 11),
            "expected a text in quotes as the value of `TOKEN`",
        );
        let error = SandboxConfig::from_toml(&env).expect_err(&env);
        assert!(!format!("{error:?}{error}").contains(number), "{error:?}");
    }
}
