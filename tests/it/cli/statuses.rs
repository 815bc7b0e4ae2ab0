//! The exit statuses, which mean the same for every command.

use std::fs;
use std::path::Path;

use super::{check_output, run};

/// Every command, including those that only hold subcommands.
const COMMANDS: &[&[&str]] = &[
    &[],
    &["demo"],
    &["doctor"],
    &["golden"],
    &["golden", "mint"],
    &["golden", "verify"],
    &["golden", "compare"],
    &["run"],
    &["latency"],
    &["redteam"],
    &["hash"],
    &["image"],
    &["api"],
    &["record"],
    &["spec"],
    &["spec", "import"],
    &["spec", "check"],
    &["spec", "show"],
    &["compat"],
    &["compat", "diff"],
    &["compat", "check"],
    &["compat", "probe"],
];

#[test]
fn the_list_of_commands_is_complete() {
    for command in COMMANDS {
        let (_, help, _) = run([command, &["--help"][..]].concat());
        let list = help.split("Commands:\n").nth(1).unwrap_or_default();
        let names = list
            .lines()
            .take_while(|line| line.starts_with("  "))
            // Further lines of a description are indented deeper.
            .filter(|line| !line.starts_with("   "))
            .filter_map(|line| line.split_whitespace().next())
            .filter(|name| *name != "help");
        for name in names {
            let named = [command, &[name][..]].concat();
            assert!(COMMANDS.contains(&&named[..]), "{named:?}");
        }
    }
}

#[test]
fn help_is_0_and_lists_the_statuses() {
    for command in COMMANDS {
        for flag in ["-h", "--help"] {
            let arguments = [command, &[flag][..]].concat();
            let (status, help, said) = run(&arguments);
            assert_eq!((status, said.as_str()), (Some(0), ""), "{arguments:?}");
            let statuses = help.split("\nExit status:\n").nth(1);
            let statuses = statuses.unwrap_or_else(|| panic!("{arguments:?}: {help}"));
            // `run` ends with 125 instead of 2, because a tool may end with 2 itself.
            let undecided = if *command == ["run"] { "125 " } else { "2 " };
            for status in ["0 ", undecided, "64 ", "130 ", "143 "] {
                let listed = statuses
                    .lines()
                    .any(|line| line.trim_start().starts_with(status));
                assert!(listed, "{arguments:?}: no {status}in {statuses}");
            }
            // The statuses of the retired table of `mint`.
            let retired = ["3 ", "4 ", "5 "];
            let retired = |line: &str| retired.iter().any(|old| line.trim_start().starts_with(old));
            assert!(!statuses.lines().any(retired), "{arguments:?}: {statuses}");
        }
    }
    let (_, help, _) = run(["--help"]);
    assert!(help.contains("RUST_LOG"), "{help}");
    let (status, version, _) = run(["--version"]);
    assert_eq!(status, Some(0));
    assert!(version.starts_with("chv-sandbox "), "{version}");
}

#[test]
fn wrong_usage_is_64() {
    for command in COMMANDS {
        let arguments = [command, &["--no-such-flag"][..]].concat();
        let (status, printed, said) = run(&arguments);
        assert_eq!((status, printed.as_str()), (Some(64), ""), "{arguments:?}");
        assert!(said.contains("Usage: chv-sandbox"), "{arguments:?}: {said}");
    }
    for arguments in [
        &[][..],
        &["golden"],
        &["frobnicate"],
        &["golden", "verify"],
        &["hash", "one", "two"],
        &["spec", "show", "not-a-release"],
        &[
            "golden", "mint", "--image", "i", "--out", "o", "--memory", "0",
        ],
        &[
            "record", "--socket", "s", "--listen", "l", "--out", "o", "--stable", "x",
        ],
    ] {
        let (status, printed, _) = run(arguments);
        assert_eq!((status, printed.as_str()), (Some(64), ""), "{arguments:?}");
    }
}

#[test]
fn a_command_that_cannot_do_its_work_ends_with_2() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    let missing = missing.to_str().unwrap();
    let inside = format!("{missing}/inside");
    for arguments in [
        &["hash", missing][..],
        &["golden", "verify", missing],
        &["golden", "compare", missing, missing],
        &["golden", "mint", "--image", missing, "--out", &inside],
        &["demo", "--image", missing],
        &["demo", "--directory", &inside],
        &[
            "image",
            "--kernel",
            missing,
            "--busybox",
            missing,
            "--out",
            missing,
        ],
        &["api", "--socket", missing, "vmm.ping"],
        &[
            "record", "--socket", missing, "--listen", missing, "--out", &inside,
        ],
        &["spec", "import", missing, "--release", "v53.0"],
        &["spec", "check", "--from", missing],
        &["compat", "diff", "v53.0", missing],
        &["compat", "check", missing],
        &["compat", "probe", "--vmm", missing],
    ] {
        let (status, printed, said) = run(arguments);
        assert_eq!(status, Some(2), "{arguments:?}: {said}");
        assert_eq!(printed.trim(), "", "{arguments:?}");
        assert!(said.starts_with("error: "), "{arguments:?}: {said}");
    }
}

#[test]
fn output_that_cannot_be_written_ends_with_2() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let specs = package.join("api-spec");
    let specs = specs.to_str().unwrap();
    let contract = format!("{specs}/v53.0.json");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "abc").unwrap();
    let file = file.to_str().unwrap();
    for (arguments, status) in [
        (&["--help"][..], 0),
        (&["--version"], 0),
        (&["golden", "mint", "--help"], 0),
        (&["hash", file], 0),
        (&["hash", file, "--json", "--fsverity"], 0),
        (&["api", "--list"], 0),
        (&["spec", "show", "v53.0", "--from", specs], 0),
        (&["spec", "check", "--from", specs], 0),
        (&["compat", "diff", "v53.0", "v53.0"], 0),
        (&["compat", "diff", "v50.2", "v53.0"], 1),
        (&["compat", "check", &contract], 0),
        (&["demo"], 0),
        (&["demo", "--json"], 0),
    ] {
        check_output(arguments, status);
    }
}
