//! The dependencies between the modules of `src/` run one way.

use super::scan::modules_used;
use super::{SourceFile, assert_none, rust_files};

/// The layers from top to bottom. A layer uses the layers below it, and none beside or above it.
const LAYERS: &[&[&str]] = &[
    &["cli"],
    &["doctor", "blocking"],
    &["sandbox"],
    &["golden"],
    &["machine"],
    &["vmm"],
    &["vsock", "client"],
    &["overlay"],
    &["api", "guest"],
    &["archive", "files"],
    &[
        "broadcast",
        "causes",
        "digest",
        "limits",
        "offload",
        "sanitize",
        "socket",
    ],
    &["duration", "hex", "mutex"],
];

/// The modules beside the layers, each with the modules that it may use. Of the layers only `cli` may use these.
const BESIDE: &[(&str, &[&str])] = &[
    ("spec", &["files", "hex"]),
    (
        "replay",
        &[
            "sandbox", "golden", "machine", "guest", "api", "client", "files", "causes", "limits",
            "socket",
        ],
    ),
    ("image", &["guest", "files", "causes", "digest"]),
    (
        "fuzzing",
        &[
            "archive", "client", "golden", "guest", "image", "machine", "overlay", "replay",
            "sandbox", "sanitize", "spec", "vmm", "vsock",
        ],
    ),
    (
        "latency",
        &[
            "replay",
            "sandbox",
            "golden",
            "vmm",
            "guest",
            "causes",
            "host_facts",
            "interruption",
            "report_json",
            "limits",
            "sanitize",
            "duration",
        ],
    ),
    (
        "redteam",
        &[
            "sandbox",
            "vsock",
            "guest",
            "causes",
            "host_facts",
            "interruption",
            "report_json",
            "sanitize",
            "duration",
        ],
    ),
    ("host_facts", &["vmm"]),
    ("interruption", &[]),
    ("report_json", &[]),
    (
        "compat",
        &[
            "spec", "replay", "api", "client", "vmm", "files", "causes", "limits", "sanitize",
        ],
    ),
];

/// The program that runs inside the guest. It uses the dispatcher and no module of the host.
const GUEST_PROGRAM: &str = "src/bin/chv-guest.rs";

fn is_module(name: &str) -> bool {
    LAYERS.concat().contains(&name) || BESIDE.iter().any(|(beside, _)| *beside == name)
}

fn may_use(user: &str, used: &str) -> bool {
    let layer_of = |name| LAYERS.iter().position(|layer| layer.contains(&name));
    match (layer_of(user), layer_of(used)) {
        _ if user == used => true,
        (Some(user), Some(used)) => user < used,
        (Some(_), None) => user == "cli",
        (None, _) => BESIDE
            .iter()
            .any(|(beside, uses)| *beside == user && uses.contains(&used)),
    }
}

/// The module that a file belongs to. A program counts as part of the module that it starts.
fn module_of(path: &str) -> Option<&str> {
    match path {
        "src/lib.rs" => None,
        "src/main.rs" => Some("cli"),
        GUEST_PROGRAM => Some("guest"),
        _ => path.strip_prefix("src/")?.split(['/', '.']).next(),
    }
}

fn depth_of(path: &str) -> usize {
    let parts = path.matches('/').count();
    match path.ends_with("/mod.rs") {
        true => parts - 1,
        false => parts,
    }
}

fn wrong_uses(file: &SourceFile) -> Vec<String> {
    let Some(user) = module_of(&file.path) else {
        return Vec::new();
    };
    modules_used(&file.text, depth_of(&file.path))
        .into_iter()
        .filter(|used| is_module(used) && !may_use(user, used))
        .map(|used| format!("{}: {user} must not use {used}", file.path))
        .collect()
}

#[test]
fn dependencies_run_one_way() {
    let files = rust_files(&["src"]);
    assert!(files.len() > 20, "the sources were not found");
    let wrong = files.iter().flat_map(wrong_uses).collect();
    assert_none(wrong, "move what is shared down, or the user up");
}

#[test]
fn each_module_has_its_place() {
    let homeless = rust_files(&["src"])
        .iter()
        .filter_map(|file| module_of(&file.path))
        .filter(|module| !is_module(module))
        .map(str::to_owned)
        .collect();
    assert_none(homeless, "say in LAYERS or BESIDE where these belong");
}

#[test]
fn a_use_in_the_wrong_direction_is_found() {
    let check = |path: &str, text: &str, expected: &[&str]| {
        let file = SourceFile {
            path: path.to_owned(),
            text: text.to_owned(),
        };
        assert_eq!(wrong_uses(&file), expected, "{path}: {text}");
    };
    check("src/vmm/mod.rs", "use crate::client::Client;", &[]);
    check("src/main.rs", "use chv_sandbox::image;", &[]);
    check(
        "src/vmm/mod.rs",
        "use crate::sandbox::State;",
        &["src/vmm/mod.rs: vmm must not use sandbox"],
    );
    check(
        "src/client/transport.rs",
        "use super::super::vsock;",
        &["src/client/transport.rs: client must not use vsock"],
    );
    check(
        "src/overlay/copy/sparse.rs",
        "mod tests { use crate::{api, vmm}; }",
        &["src/overlay/copy/sparse.rs: overlay must not use vmm"],
    );
    check(
        "src/replay/mod.rs",
        "fn f(g: crate::vsock::Channel) {}",
        &["src/replay/mod.rs: replay must not use vsock"],
    );
    check(
        "src/golden/mod.rs",
        "use crate::image::Image;",
        &["src/golden/mod.rs: golden must not use image"],
    );
    check(
        "src/bin/chv-guest.rs",
        "use chv_sandbox::vsock;",
        &["src/bin/chv-guest.rs: guest must not use vsock"],
    );
}
