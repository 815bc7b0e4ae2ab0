//! Tools that warm a guest before its snapshot is taken.

use std::fs;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use chv_sandbox::golden::{Golden, MintError, MintStep, WarmTool, compare_manifests, mint};
use chv_sandbox::guest::dispatcher::Toolbox;
use chv_sandbox::guest::frame::encode;
use chv_sandbox::guest::protocol::{Extension, Frame, Hello, ToolName, ToolOutcomeKind};
use chv_sandbox::guest::stand_in::{Behaviour, StandIn};
use chv_sandbox::machine::DiskRole;
use serde_json::{Value, json};

use super::script::Act;
use super::{PATIENCE, Scene, assert_echoed, chain, echo, flip_a_bit};

fn warm_tool(tool: &str, params: Value) -> WarmTool {
    WarmTool {
        tool: ToolName::new(tool).unwrap(),
        params,
        deadline_ms: PATIENCE.as_millis() as u64,
    }
}

async fn warmed(scene: &Scene, tools: Vec<WarmTool>) -> Result<Golden, MintError> {
    let mut config = scene.mint_config();
    config.warm = tools;
    mint(config).await
}

/// Checks that a mint with this tool fails and leaves nothing. Returns its error.
async fn failure(scene: &Scene, tool: WarmTool) -> MintError {
    let error = warmed(scene, vec![tool]).await.unwrap_err();
    assert!(!scene.path("golden").exists(), "{error}");
    scene.assert_machine_is_empty();
    error
}

#[tokio::test]
async fn a_warm_golden_snapshot_differs_from_a_cold_one_in_what_it_says_of_the_tools() {
    let ran = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&ran);
    let toolbox = Toolbox::built_in().with_function("count", move |run| {
        counting.fetch_add(1, Ordering::Relaxed);
        u8::from(run.params["by"] != json!(1))
    });
    let scene = Scene::of(toolbox);
    let tools = vec![
        warm_tool("count", json!({ "by": 1 })),
        warm_tool("echo", json!({ "message": "warm" })),
    ];
    let mut config = scene.mint_config();
    config.warm = tools.clone();
    let progress = config.progress.clone();
    let warm = mint(config).await.unwrap();
    assert_eq!(ran.load(Ordering::Relaxed), 1);
    assert_eq!(warm.manifest().warmed_by, tools);
    let step = |tool: &str, number| MintStep::Warm {
        tool: ToolName::new(tool).unwrap(),
        number,
        of: 2,
    };
    assert_eq!(
        progress.steps(),
        [
            MintStep::Boot,
            step("count", 1),
            step("echo", 2),
            MintStep::Settle,
            MintStep::Snapshot,
            MintStep::FreeZeros,
            MintStep::KeepDisks,
            MintStep::Digest,
            MintStep::FirstRevert,
            MintStep::SecondRevert,
        ]
    );
    assert_eq!(progress.written(), (16 << 20, 16 << 20));

    let sandbox = scene.sandbox();
    chv_sandbox::sandbox::Sandbox::boot(&sandbox).await.unwrap();
    assert_echoed(echo(&sandbox, "restored").await, "restored");
    assert!(
        chv_sandbox::sandbox::Sandbox::reset(&sandbox)
            .await
            .unwrap()
            .is_verified()
    );
    chv_sandbox::sandbox::Sandbox::shutdown(&sandbox).await;

    let mut config = scene.mint_config();
    config.into = scene.path("cold");
    let cold = mint(config).await.unwrap();
    assert_eq!(
        cold.manifest().baselines.fs_hash,
        warm.manifest().baselines.fs_hash
    );
    let text = fs::read_to_string(scene.path("cold/manifest.json")).unwrap();
    assert!(!text.contains("warmed_by"), "{text}");
    let differences = compare_manifests(cold.manifest(), warm.manifest());
    let unexpected: Vec<_> = differences.iter().filter(|it| !it.expected).collect();
    assert_eq!(unexpected.len(), 1, "{unexpected:?}");
    assert_eq!(unexpected[0].field, "warmed_by");
}

#[tokio::test]
async fn descriptors_that_a_warm_tool_leaves_open_count_into_the_baseline() {
    let guest: Arc<std::sync::OnceLock<StandIn>> = Arc::default();
    let leaking = Arc::clone(&guest);
    let toolbox = Toolbox::built_in().with_function("leak", move |_| {
        leaking.get().unwrap().set_open_files(31);
        0
    });
    let scene = Scene::of(toolbox);
    guest.set(scene.guest.clone()).unwrap();
    let golden = warmed(&scene, vec![warm_tool("leak", Value::Null)]).await;
    assert_eq!(golden.unwrap().manifest().baselines.open_fd_count, 31);
    // The guest and the function that it was given hold each other; this ends the cycle.
    scene.guest.stop();
}

#[tokio::test]
async fn a_warm_tool_that_fails_fails_the_mint_with_its_end_and_its_last_words() {
    let toolbox = Toolbox::built_in()
        .with_function("fail", |run| {
            let long = "x".repeat(5000);
            run.stdout.write_all(long.as_bytes()).unwrap();
            run.stdout.write_all(b"the end\x1b[2J").unwrap();
            run.stderr.write_all("kaputt \u{e4}\n".as_bytes()).unwrap();
            7
        })
        .with_function("hang", |run| {
            while !run.is_cancelled() {
                std::thread::yield_now();
            }
            0
        })
        .with_function("panic", |_| panic!("as the test asked"));
    let scene = Scene::of(toolbox);
    let check = async |tool: WarmTool, outcome: ToolOutcomeKind, said: &[&str]| {
        let name = tool.tool.clone();
        let error = failure(&scene, tool).await;
        let text = chain(&error);
        let MintError::Warm { tool, failure } = error else {
            panic!("{text}");
        };
        assert_eq!((tool, failure.outcome), (name, Some(outcome)), "{text}");
        for said in said {
            assert!(text.contains(said), "no {said:?} in {text}");
        }
        assert!(text.len() < 6000 && !text.contains('\x1b'), "{text}");
    };
    check(
        warm_tool("fail", Value::Null),
        ToolOutcomeKind::Exited,
        &[
            "the tool fail",
            "ended with the exit code 7",
            "the end",
            "kaputt \u{e4}",
        ],
    )
    .await;
    let hasty = WarmTool {
        deadline_ms: 20,
        ..warm_tool("hang", Value::Null)
    };
    check(
        hasty,
        ToolOutcomeKind::DeadlineExceeded,
        &["the tool hang", "exceeded its deadline"],
    )
    .await;
    let unknown = warm_tool("python3", Value::Null);
    let words = &["python3", "not on the guest's list"][..];
    check(unknown, ToolOutcomeKind::NoSuchTool, words).await;
    let wrong = warm_tool("echo", json!({ "massage": "x" }));
    check(wrong, ToolOutcomeKind::Refused, &["massage"]).await;
    let endless = WarmTool {
        deadline_ms: u64::MAX,
        ..warm_tool("whoami", Value::Null)
    };
    check(
        endless,
        ToolOutcomeKind::Refused,
        &["the deadline is above"],
    )
    .await;
    let panics = warm_tool("panic", Value::Null);
    check(
        panics,
        ToolOutcomeKind::GuestFailed,
        &["failed in the guest"],
    )
    .await;
}

#[tokio::test]
async fn a_guest_that_cannot_throw_writes_away_is_not_warmed() {
    for missing in [Extension::Warm, Extension::Nonce] {
        let scene = Scene::new();
        let older = move |frame: &Frame| {
            let mut hello = Hello::of_this_build();
            hello.extensions.retain(|name| name != missing.name());
            match frame {
                Frame::Hello(_) => Some(encode(&Frame::Hello(hello)).unwrap()),
                Frame::WarmDispatch(_) => panic!("it was sent all the same"),
                _ => None,
            }
        };
        scene.guest.behave(Behaviour::Intercepted(Arc::new(older)));
        let error = failure(&scene, warm_tool("whoami", Value::Null)).await;
        let MintError::CannotWarm { extension } = error else {
            panic!("{error:?}");
        };
        assert_eq!(extension, missing.name());
    }
}

#[tokio::test]
async fn a_warm_tool_whose_writes_reach_a_disk_fails_the_mint() {
    let overlay = Arc::new(std::sync::OnceLock::<std::path::PathBuf>::new());
    let written = Arc::clone(&overlay);
    let toolbox = Toolbox::built_in().with_function("write", move |_| {
        flip_a_bit(written.get().unwrap());
        0
    });
    let scene = Scene::of(toolbox);
    overlay.set(scene.path("machine/overlay.img")).unwrap();
    let error = failure(&scene, warm_tool("write", Value::Null)).await;
    let MintError::WarmLeft {
        role,
        before,
        after,
    } = error
    else {
        panic!("{error:?}");
    };
    assert_eq!(role, DiskRole::Overlay);
    assert_ne!(before, after);
}

#[tokio::test]
async fn a_disk_that_does_not_come_to_rest_is_not_warmed_on() {
    let scene = Scene::new();
    let overlay = scene.path("machine/overlay.img");
    let done = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&done);
    let writer = Arc::new(std::sync::Mutex::new(None));
    let started = Arc::clone(&writer);
    // A process writes to the disk from the boot on.
    let write = Act::Then(Box::new(move || {
        let thread = std::thread::spawn(move || {
            let mut count = 0_u64;
            let file = fs::File::options().write(true).open(&overlay).unwrap();
            while !stop.load(Ordering::Relaxed) {
                count += 1;
                std::os::unix::fs::FileExt::write_all_at(&file, &count.to_ne_bytes(), 0).unwrap();
            }
        });
        *started.lock().unwrap() = Some(thread);
    }));
    scene.vmm.on("vm.boot", 1, write);
    let mut config = scene.mint_config();
    config.warm = vec![warm_tool("whoami", Value::Null)];
    config.settle = Duration::from_millis(300);
    let error = mint(config).await.unwrap_err();
    done.store(true, Ordering::Relaxed);
    writer.lock().unwrap().take().unwrap().join().unwrap();
    assert!(
        matches!(
            error,
            MintError::RestlessDisk {
                role: DiskRole::Overlay,
                ..
            }
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_guest_that_does_not_report_how_a_warm_tool_ended_is_not_minted() {
    let unasked = |frame: &Frame| match frame {
        Frame::WarmDispatch(_) => Some(encode(&Frame::Hello(Hello::of_this_build())).unwrap()),
        _ => None,
    };
    let scene = Scene::new();
    scene
        .guest
        .behave(Behaviour::Intercepted(Arc::new(unasked)));
    let error = failure(&scene, warm_tool("whoami", Value::Null)).await;
    assert!(
        matches!(error, MintError::WarmUnanswered { .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn the_steps_of_a_mint_are_told_when_they_begin() {
    let scene = Scene::new();
    let config = scene.mint_config();
    let progress = config.progress.clone();
    assert_eq!((progress.step(), progress.written()), (None, (0, 0)));
    for (operation, nth, step) in [
        ("vm.boot", 1, MintStep::Boot),
        ("vm.snapshot", 1, MintStep::Snapshot),
        ("vm.restore", 1, MintStep::FirstRevert),
        ("vm.restore", 2, MintStep::SecondRevert),
    ] {
        let progress = progress.clone();
        let look = move || assert_eq!(progress.step(), Some(step));
        scene.vmm.on(operation, nth, Act::First(Box::new(look)));
    }
    mint(config).await.unwrap();
}
