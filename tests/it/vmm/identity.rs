//! Whoever answers on the api-socket must be the process that was started.

use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use chv_sandbox::vmm::IdentityError;

use super::*;

/// After `tamper`, the VMM isn't the one that answers on its path, and says which fact isn't so.
async fn check(tamper: impl FnOnce(&Path), is_expected: fn(&IdentityError) -> bool) {
    let (_root, vmm) = spawn("").await;
    vmm.prove_identity().unwrap().expect("it was spawned");
    tamper(vmm.client().socket());
    let error = vmm.prove_identity().unwrap_err();
    assert!(is_expected(&error), "{error:?}");
}

#[tokio::test]
async fn the_vmm_that_was_started_is_known_again() {
    let (_root, vmm) = spawn("").await;
    let first = vmm.prove_identity().unwrap().unwrap();
    let process = vmm.process().unwrap();
    assert_eq!(
        (first.pid, first.start_time),
        (process.pid(), process.start_time())
    );
    assert!(first.executable.path.is_absolute());
    vmm.client().release().await.unwrap();
    assert_eq!(vmm.prove_identity().unwrap().unwrap(), first);
}

#[tokio::test]
async fn another_process_on_the_api_socket_is_found() {
    fn is_replaced(error: &IdentityError) -> bool {
        matches!(error, IdentityError::SocketReplaced { .. })
    }
    // Another listener at the same path. Again and again: an inode that is free is soon used again.
    for _ in 0..4 {
        let bind = |socket: &Path| {
            fs::remove_file(socket).unwrap();
            // The file stays although nobody listens on it any more.
            drop(UnixListener::bind(socket).unwrap());
        };
        check(bind, is_replaced).await;
    }
    let listening = |socket: &Path| {
        fs::remove_file(socket).unwrap();
        let other = UnixListener::bind(socket).unwrap();
        std::mem::forget(other);
    };
    check(listening, is_replaced).await;
    let nothing = |socket: &Path| fs::remove_file(socket).unwrap();
    check(nothing, is_replaced).await;
    // A link can be turned elsewhere at any time, so not even one to the VMM's own socket will do.
    let link = |socket: &Path| {
        let moved = socket.with_extension("moved");
        fs::rename(socket, &moved).unwrap();
        symlink(&moved, socket).unwrap();
    };
    check(link, is_replaced).await;
}

#[tokio::test]
async fn a_vmm_that_became_another_program_is_found() {
    let (_root, vmm) = spawn("turncoat").await;
    vmm.prove_identity().unwrap().unwrap();
    // It gives no answer to that.
    let _ = vmm
        .client()
        .send(Request::raw(Operation::VmBoot, None))
        .await;
    let error = timeout(GENEROUS, async {
        loop {
            match vmm.prove_identity() {
                Ok(_) => tokio::task::yield_now().await,
                Err(error) => break error,
            }
        }
    });
    let error = error.await.unwrap();
    let IdentityError::AnotherExecutable { found, .. } = &error else {
        panic!("{error:?}");
    };
    assert_ne!(*found, std::env::current_exe().unwrap());
}

#[tokio::test]
async fn a_vmm_that_has_ended_cannot_be_proved() {
    let (_root, vmm) = spawn("").await;
    vmm.shutdown().await;
    let error = vmm.prove_identity().unwrap_err();
    assert!(matches!(error, IdentityError::Unknown(_)), "{error:?}");
}

#[tokio::test]
async fn one_of_somebody_else_is_not_proved_and_does_not_fail() {
    let (_root, vmm) = spawn("").await;
    let attached = Vmm::attach(vmm.client().socket()).await.unwrap();
    assert!(attached.prove_identity().unwrap().is_none());
}
