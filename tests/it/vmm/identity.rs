//! The process that answers on the api-socket must be the one that was started.

use std::os::unix::net::UnixListener;

use chv_sandbox::vmm::IdentityError;

use super::*;

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

/// The name of the api-socket doesn't matter, because the socket itself has none.
#[tokio::test]
async fn another_process_cannot_take_the_place_of_the_api_socket() {
    let (_root, vmm) = spawn("").await;
    let name = vmm.client().socket().to_owned();
    assert!(!name.exists());
    let other = UnixListener::bind(&name).unwrap();
    other.set_nonblocking(true).unwrap();
    // A new connection of another client.
    let client = Client::new(vmm.client().address().clone()).unwrap();
    client.release().await.unwrap();
    vmm.prove_identity().unwrap().unwrap();
    let error = other.accept().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn a_vmm_that_became_another_program_is_found() {
    let (_root, vmm) = spawn("turncoat").await;
    vmm.prove_identity().unwrap().unwrap();
    // The VMM becomes another program and gives no answer.
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
async fn a_vmm_of_another_program_is_not_proved_and_does_not_fail() {
    let (_root, vmm) = spawn_with_names().await;
    let attached = Vmm::attach(vmm.client().socket()).await.unwrap();
    assert!(attached.prove_identity().unwrap().is_none());
}
