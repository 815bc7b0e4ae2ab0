//! Boot and shutdown: states, events, and calls that end each other.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use chv_sandbox::sandbox::{Backend, Error, Event, ResetVerdict, Sandbox, WireState};
use tokio::time::timeout;

use super::script::Act;
use super::{PATIENCE, Scene, assert_echoed, echo, states, told};
use WireState::{Booting, Failed, NotBooted, Ready, Resetting};

#[tokio::test]
async fn a_sandbox_boots_once_and_goes_through_its_states_in_order() {
    let scene = Scene::minted().await;
    let sandbox: Box<dyn Sandbox> = Box::new(scene.sandbox());
    let mut events = sandbox.subscribe();
    assert_eq!(sandbox.backend(), Backend::Chv);
    assert_eq!(sandbox.state().wire(), NotBooted);

    sandbox.boot().await.unwrap();
    assert_eq!(states(&mut events), [Booting, Ready]);
    let asked = scene.vmm.take_asked();
    assert!(asked.contains(&"vm.restore".to_owned()), "{asked:?}");

    sandbox.boot().await.unwrap();
    assert!(
        scene.vmm.take_asked().is_empty(),
        "a second boot does nothing"
    );
    assert!(events.is_empty());

    assert_echoed(echo(&*sandbox, "one").await, "one");
    sandbox.reset().await.unwrap();
    assert_eq!(states(&mut events), [Resetting, Ready]);
    assert_echoed(echo(&*sandbox, "two").await, "two");

    sandbox.shutdown().await;
    assert_eq!(states(&mut events), [NotBooted]);
    scene.assert_machine_is_empty();

    sandbox.shutdown().await;
    assert!(events.is_empty(), "a second shutdown does nothing");
    sandbox.boot().await.unwrap();
    assert_echoed(echo(&*sandbox, "three").await, "three");
    sandbox.shutdown().await;
}

#[tokio::test]
async fn subscribers_are_told_of_a_reset() {
    let (_scene, sandbox) = Scene::booted().await;
    let mut events = sandbox.subscribe();
    let reset = sandbox.reset().await.unwrap();
    loop {
        if let Event::Reset(told) = events.recv().await.unwrap() {
            assert_eq!(told.state, reset.outcome().state);
            assert_eq!(told.verdict(), ResetVerdict::Verified);
            break;
        }
    }
    sandbox.shutdown().await;
}

#[tokio::test]
async fn a_sandbox_that_was_never_booted_takes_a_shutdown_and_nothing_else() {
    let scene = Scene::minted().await;
    let sandbox = scene.sandbox();
    let mut events = sandbox.subscribe();
    sandbox.shutdown().await;
    let refused = [
        echo(&sandbox, "early").await.unwrap_err(),
        sandbox.reset().await.unwrap_err(),
    ];
    for error in refused {
        let not_booted = Error::NotReady {
            action: "",
            state: NotBooted,
        };
        assert_eq!(
            std::mem::discriminant(&error),
            std::mem::discriminant(&not_booted)
        );
        assert!(error.to_string().contains("not_booted"), "{error}");
        assert_eq!(error.code(), "SANDBOX_NOT_READY");
    }
    assert!(events.try_recv().is_err(), "nothing has happened");
    assert!(scene.vmm.take_asked().is_empty());
}

/// Makes the next call of `operation` hang.
fn hang(scene: &Scene, operation: &'static str) {
    scene.vmm.take_asked();
    scene.vmm.on(operation, 1, Act::Hang);
}

/// Waits until the VMM was asked for `operation`.
async fn asked_for(scene: &Scene, operation: &str) {
    let asked = async {
        while !scene
            .vmm
            .take_asked()
            .iter()
            .any(|asked| asked == operation)
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, asked).await.unwrap();
}

#[tokio::test]
async fn a_shutdown_ends_a_boot_that_hangs() {
    let scene = Scene::minted().await;
    for operation in [
        "vmm.ping",
        "vm.delete",
        "vm.restore",
        "vm.resume",
        "vm.info",
    ] {
        hang(&scene, operation);
        let sandbox = Arc::new(scene.sandbox());
        let boot = tokio::spawn({
            let sandbox = Arc::clone(&sandbox);
            async move { sandbox.boot().await }
        });
        asked_for(&scene, operation).await;
        timeout(PATIENCE, sandbox.shutdown()).await.unwrap();
        let error = boot.await.unwrap().unwrap_err();
        assert!(matches!(error, Error::ShutDown), "{operation}: {error}");
        assert_eq!(sandbox.state().wire(), NotBooted, "{operation}");
        sandbox.boot().await.unwrap();
        assert_echoed(echo(&*sandbox, "after").await, "after");
        sandbox.shutdown().await;
        scene.assert_machine_is_empty();
    }
}

#[tokio::test]
async fn a_shutdown_ends_a_reset_that_hangs() {
    let scene = Scene::minted().await;
    for operation in ["vm.delete", "vm.restore", "vm.resume", "vm.info"] {
        let sandbox = scene.sandbox();
        sandbox.boot().await.unwrap();
        let mut events = sandbox.subscribe();
        hang(&scene, operation);
        let sandbox = Arc::new(sandbox);
        let reset = tokio::spawn({
            let sandbox = Arc::clone(&sandbox);
            async move { sandbox.reset().await }
        });
        asked_for(&scene, operation).await;
        timeout(PATIENCE, sandbox.shutdown()).await.unwrap();
        let error = reset.await.unwrap().unwrap_err();
        assert!(matches!(error, Error::ShutDown), "{operation}: {error}");
        assert_eq!(states(&mut events), [Resetting, NotBooted], "{operation}");
        scene.assert_machine_is_empty();
    }
}

#[tokio::test]
async fn shutdowns_at_once_are_one() {
    let (scene, sandbox) = Scene::booted().await;
    let mut events = sandbox.subscribe();
    tokio::join!(sandbox.shutdown(), sandbox.shutdown(), sandbox.shutdown());
    assert_eq!(states(&mut events), [NotBooted]);
    scene.assert_machine_is_empty();
}

/// Makes the next call of `operation` wait until the returned sender sends.
fn hold(scene: &Scene, operation: &'static str) -> mpsc::Sender<()> {
    scene.vmm.take_asked();
    let (open, gate) = mpsc::channel();
    scene.vmm.before(operation, move || gate.recv().unwrap());
    open
}

#[tokio::test]
async fn a_reset_whose_caller_goes_away_goes_on_to_its_end() {
    let (scene, sandbox) = Scene::booted().await;
    for operation in ["vm.delete", "vm.restore", "vm.resume", "vm.info"] {
        let open = hold(&scene, operation);
        let mut events = sandbox.subscribe();
        tokio::select! {
            result = sandbox.reset() => panic!("{operation} waits: {result:?}"),
            () = asked_for(&scene, operation) => {}
        }
        assert_eq!(sandbox.state().wire(), Resetting, "{operation}");
        echo(&sandbox, "early").await.unwrap_err();
        open.send(()).unwrap();
        let verified = told(&mut events, |event| match event {
            Event::Reset(outcome) => Some(outcome.state.verification_passed),
            _ => None,
        });
        assert!(verified.await, "{operation}");
        assert_echoed(echo(&sandbox, "reset").await, "reset");
    }
    sandbox.shutdown().await;
}

#[tokio::test]
async fn a_boot_whose_caller_goes_away_goes_on_to_its_end() {
    let scene = Scene::minted().await;
    let sandbox = scene.sandbox();
    let open = hold(&scene, "vm.restore");
    tokio::select! {
        result = sandbox.boot() => panic!("it waits: {result:?}"),
        () = asked_for(&scene, "vm.restore") => {}
    }
    assert_eq!(sandbox.state().wire(), Booting);
    open.send(()).unwrap();
    // This boot waits for the other one, and does nothing itself.
    sandbox.boot().await.unwrap();
    let asked = scene.vmm.take_asked();
    assert!(!asked.contains(&"vm.restore".to_owned()), "{asked:?}");
    assert_echoed(echo(&sandbox, "booted").await, "booted");
    sandbox.shutdown().await;
}

#[tokio::test]
async fn a_reset_whose_caller_goes_away_before_its_turn_is_not_begun() {
    let (scene, sandbox) = Scene::booted().await;
    let open = hold(&scene, "vm.restore");
    let first = sandbox.reset();
    let mut first = std::pin::pin!(first);
    tokio::select! {
        result = &mut first => panic!("it waits: {result:?}"),
        () = asked_for(&scene, "vm.restore") => {}
    }
    let second = timeout(Duration::from_millis(50), sandbox.reset()).await;
    assert!(second.is_err(), "it waits for its turn");
    open.send(()).unwrap();
    first.await.unwrap();
    // This boot waits behind the second call in the queue.
    sandbox.boot().await.unwrap();
    let asked = scene.vmm.take_asked();
    assert!(!asked.contains(&"vm.restore".to_owned()), "{asked:?}");
    sandbox.shutdown().await;
}

#[tokio::test]
async fn a_shutdown_that_is_dropped_goes_on_to_its_end() {
    let (scene, sandbox) = Scene::booted().await;
    scene.vmm.take_asked();
    scene.vmm.before("vm.delete", || {
        std::thread::sleep(Duration::from_millis(100));
    });
    tokio::select! {
        () = sandbox.shutdown() => panic!("it takes longer"),
        () = asked_for(&scene, "vm.delete") => {}
    }
    // A call that is made now waits for the shutdown, and finds nothing running.
    sandbox.boot().await.unwrap();
    assert_echoed(echo(&sandbox, "booted again").await, "booted again");
    sandbox.shutdown().await;
    scene.assert_machine_is_empty();
}

#[tokio::test]
async fn a_sandbox_that_did_not_boot_can_be_booted_again() {
    let scene = Scene::minted().await;
    let sandbox = scene.sandbox();
    let mut events = sandbox.subscribe();
    scene.vmm.on("vm.restore", 1, Act::Refuse);
    let error = sandbox.boot().await.unwrap_err();
    assert_eq!(error.code(), "SANDBOX_BOOT_FAILED");
    assert_eq!(states(&mut events), [Booting, Failed]);
    scene.assert_machine_is_empty();
    assert!(matches!(sandbox.reset().await, Err(Error::NotReady { .. })));

    sandbox.boot().await.unwrap();
    assert_eq!(states(&mut events), [Booting, Ready]);
    sandbox.shutdown().await;
}
