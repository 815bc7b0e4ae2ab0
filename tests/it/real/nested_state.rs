//! Makes snapshots possible on a machine whose KVM can't give the state of nested virtualisation.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use chv_sandbox::api;
use chv_sandbox::api::types::VmSnapshotConfig;
use chv_sandbox::client::Error;
use chv_sandbox::vmm::{Grants, Vmm, VmmConfig};
use tokio::sync::OnceCell;

use super::{idle_vm, say};

/// The environment variables with which the VMM can take snapshots on this machine. There are none if its KVM can give
/// all state.
///
/// `CLOUD_HYPERVISOR_PRELOAD` decides, if it is set. Otherwise this function tries a snapshot once, and builds a
/// library that answers in KVM's place if it fails.
pub(crate) async fn environment(binary: &Path) -> Vec<(OsString, OsString)> {
    static LIBRARY: OnceCell<Option<OsString>> = OnceCell::const_new();
    let find = || async {
        if let Some(library) = std::env::var_os("CLOUD_HYPERVISOR_PRELOAD") {
            return Some(library);
        }
        let refused = snapshot(binary, Vec::new()).await.err()?;
        // A backtrace may follow this text.
        let text = refused.messages().join(": ");
        let text = text.lines().next().unwrap_or_default();
        assert!(
            text.to_lowercase().contains("nested"),
            "the VMM can't take a snapshot: {refused}"
        );
        let library = build();
        say(format!(
            "this machine's KVM has no nested state to give ({text}), so the VMM runs with {}, which was built to help",
            library.display()
        ));
        Some(library.into())
    };
    let library = LIBRARY.get_or_init(find).await;
    let preload = library.iter().cloned();
    preload
        .map(|library| ("LD_PRELOAD".into(), library))
        .collect()
}

/// Lets a VMM make its files in `folder`.
pub(crate) fn grants(folder: &Path) -> Grants {
    Grants {
        writes: vec![folder.to_owned()],
        ..Grants::default()
    }
}

/// Takes a snapshot of an idle VM.
async fn snapshot(binary: &Path, env: Vec<(OsString, OsString)>) -> Result<(), Error> {
    let folder = tempfile::tempdir().unwrap();
    let config = VmmConfig {
        binary: binary.to_owned(),
        env,
        run_root: folder.path().join("run"),
        ..VmmConfig::default()
    };
    let vmm = Vmm::spawn_with(&config, grants(folder.path()))
        .await
        .unwrap();
    let client = vmm.client();
    client
        // Older releases ignore the type of an image, and detect it.
        .send(api::vm_create(&idle_vm::config(folder.path())).unchecked())
        .await?;
    client.vm_boot().await?;
    client.vm_pause().await?;
    let into = idle_vm::snapshot_folder(folder.path());
    let taken = client.vm_snapshot(&VmSnapshotConfig::new(into)).await;
    vmm.shutdown().await;
    taken
}

/// Builds the library in the folder of the other build outputs.
fn build() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    fs::create_dir_all(folder).unwrap();
    let library = folder.join("nested_state.so");
    // The compiler writes to another name first, because another run may have the library loaded.
    let fresh = folder.join(format!("nested_state.{}.so", std::process::id()));
    let mut compiler = Command::new("cc")
        .args(["-x", "c", "-shared", "-fPIC", "-O1", "-o"])
        .arg(&fresh)
        .arg("-")
        .stdin(Stdio::piped())
        .spawn()
        .expect("a C compiler, which Rust needs too");
    let mut source = compiler.stdin.take().unwrap();
    source.write_all(include_bytes!("nested_state.c")).unwrap();
    drop(source);
    assert!(compiler.wait().unwrap().success());
    fs::rename(&fresh, &library).unwrap();
    library
}
