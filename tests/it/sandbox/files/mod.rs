//! Files that are pushed into and pulled out of a guest.

mod hostile;

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chv_sandbox::archive::{Account, pack};
use chv_sandbox::digest::Digest;
use chv_sandbox::guest::frame::encode;
use chv_sandbox::guest::protocol::{Extension, Frame, Hello, Opened};
use chv_sandbox::guest::stand_in::{Behaviour, Intercept};
use chv_sandbox::sandbox::{
    Advice, ChvSandbox, EntryKind, Error, Event, FileCode, FileEntry, Sandbox, StubSandbox,
    ToolsPerReset, TransferError, TransferLimits, TransferOptions, TransferProgress,
    TransferReport, WireState,
};
use futures_util::FutureExt;
use serde_json::json;
use tokio::time::timeout;

use super::hanging::{poll_once, until};
use super::{PATIENCE, Scene, assert_echoed, echo};

/// Makes a tree of files in the scene's directory.
fn tree(scene: &Scene) -> PathBuf {
    let root = scene.path("tree");
    fs::create_dir_all(root.join("d")).unwrap();
    fs::write(root.join("d/large"), vec![7; 1 << 20]).unwrap();
    fs::write(root.join("line\nfeed"), "small").unwrap();
    symlink("d/large", root.join("link")).unwrap();
    root
}

fn usual() -> TransferOptions {
    TransferOptions::default()
}

fn packed(path: &Path) -> Vec<u8> {
    let mut stream = Vec::new();
    let root = File::open(path).unwrap().into();
    pack(root, &mut stream, &mut Account::default()).unwrap();
    stream
}

/// The names in the guest's directory for files, and the entries of `local`'s directory that a transfer could have
/// left.
fn left(scene: &Scene) -> Vec<String> {
    [scene.path("work"), scene.path("out")]
        .iter()
        .flat_map(|folder| fs::read_dir(folder).unwrap())
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

async fn booted() -> (Scene, ChvSandbox) {
    let (scene, sandbox) = Scene::booted().await;
    fs::create_dir(scene.path("out")).unwrap();
    (scene, sandbox)
}

fn paths(files: &[FileEntry]) -> Vec<&str> {
    files
        .iter()
        .map(|file| file.path.to_str().unwrap())
        .collect()
}

#[tokio::test]
async fn a_tree_goes_in_and_comes_out() {
    let (scene, sandbox) = booted().await;
    let mut events = sandbox.subscribe();
    let root = tree(&scene);
    let stream = packed(&root);
    let progress = TransferProgress::default();
    let options = usual().progress(progress.clone());
    let pushed = sandbox.push(&root, "in", &options).await.unwrap();
    assert_eq!(pushed.totals.sha256, Digest::of(&stream));
    assert_eq!(
        (pushed.totals.entries, pushed.totals.bytes),
        (5, (1 << 20) + 5)
    );
    assert_eq!((progress.entries(), progress.bytes()), (5, (1 << 20) + 5));
    assert_eq!(
        paths(&pushed.files),
        ["", "d", "d/large", "line\nfeed", "link"]
    );
    let large = &pushed.files[2];
    assert_eq!((large.kind, large.size), (EntryKind::File, 1 << 20));
    assert_eq!(large.sha256, Some(Digest::of(&[7; 1 << 20])));
    assert!(packed(&scene.path("work/in")) == stream);

    let pulled = sandbox
        .pull("in", &scene.path("out/got"), &usual())
        .await
        .unwrap();
    assert_eq!(pulled.totals, pushed.totals);
    assert_eq!(pulled.files, pushed.files);
    assert!(packed(&scene.path("out/got")) == stream);

    let mut told = Vec::new();
    while let Some(Ok(event)) = events.recv().now_or_never() {
        told.extend(match &event {
            Event::FilesPushed(_) | Event::FilesPulled(_) => {
                let mut event = serde_json::to_value(&event).unwrap();
                let fields = event.as_object_mut().unwrap();
                fields.remove("transfer_id").unwrap();
                fields.remove("took_us").unwrap();
                Some(event)
            }
            _ => None,
        });
    }
    let event = |name| {
        json!({
            "event": name, "path": "in", "entries": 5, "bytes": (1 << 20) + 5,
            "sha256": Digest::of(&stream).to_string()
        })
    };
    assert_eq!(told, [event("files_pushed"), event("files_pulled")]);
    sandbox.shutdown().await;
}

#[tokio::test]
async fn files_come_in_the_one_tool_runs_and_files_go_out() {
    let scene = Scene::minted().await;
    fs::create_dir(scene.path("out")).unwrap();
    let sandbox = scene.sandbox_of(scene.config().tools_per_reset(ToolsPerReset::default()));
    let root = tree(&scene);
    let early = sandbox.push(&root, "in", &usual()).await.unwrap_err();
    assert!(matches!(early, Error::NotReady { .. }), "{early}");
    sandbox.boot().await.unwrap();
    sandbox.push(&root, "in", &usual()).await.unwrap();
    assert_echoed(echo(&sandbox, "the tool").await, "the tool");
    let late = sandbox.push(&root, "in2", &usual()).await.unwrap_err();
    assert!(matches!(late, Error::NeedsReset { .. }), "{late}");
    sandbox
        .pull("in/d", &scene.path("out/got"), &usual())
        .await
        .unwrap();
    assert!(sandbox.reset().await.unwrap().is_verified());
    assert_echoed(echo(&sandbox, "goes on").await, "goes on");
    sandbox.shutdown().await;
    let error = sandbox
        .pull("in", &scene.path("out/late"), &usual())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::NotReady { .. }), "{error}");
}

#[track_caller]
fn assert_files(error: &Error, code: &str, why: &str) {
    assert_eq!(error.code(), code, "{error:?}");
    let shown = chv_sandbox::causes::Causes(error).to_string();
    assert!(shown.contains(why), "{shown}");
}

#[tokio::test]
async fn each_side_refuses_what_it_cannot_have() {
    let (scene, sandbox) = booted().await;
    let root = tree(&scene);
    let push = async |local: &Path, path: &str, limits: TransferLimits| {
        let options = usual().limits(limits);
        let error = sandbox.push(local, path, &options).await.unwrap_err();
        assert!(left(&scene).is_empty(), "{:?}", left(&scene));
        error
    };
    let pull =
        async |path: &str, local: &Path| sandbox.pull(path, local, &usual()).await.unwrap_err();
    let limits = TransferLimits::default();
    let error = push(&scene.path("nothing"), "in", limits).await;
    assert_files(&error, "SANDBOX_FILE_NAME", "is not there");
    assert_eq!(error.advice(), Advice::SkipTool);
    let error = push(&root, "../in", limits).await;
    assert_files(
        &error,
        "SANDBOX_FILE_NAME",
        "the guest cannot transfer \"../in\"",
    );
    let few = TransferLimits {
        entries: 4,
        ..limits
    };
    assert_files(
        &push(&root, "in", few).await,
        "SANDBOX_FILE_LIMIT",
        "4 entries",
    );
    let small = TransferLimits { bytes: 9, ..limits };
    assert_files(
        &push(&root, "in", small).await,
        "SANDBOX_FILE_LIMIT",
        "9 bytes of files",
    );
    symlink("/etc/passwd", root.join("out")).unwrap();
    let error = push(&root, "in", limits).await;
    assert_files(&error, "SANDBOX_FILE_NAME", "absolute target");
    fs::remove_file(root.join("out")).unwrap();

    let error = pull("nothing", &scene.path("out/got")).await;
    assert_files(&error, "SANDBOX_FILE_NAME", "is not there");
    sandbox.push(&root, "in", &usual()).await.unwrap();
    let taken = pull("in", &root).await;
    assert_files(&taken, "SANDBOX_FILE_NAME", "is there already");
    let error = pull("in", &scene.path("nowhere/got")).await;
    assert_files(&error, "SANDBOX_FILE_NAME", "is not there");
    let error = pull("in", Path::new("/")).await;
    assert_files(&error, "SANDBOX_FILE_NAME", "ends in no name");
    let again = sandbox.push(&root, "in", &usual()).await.unwrap_err();
    assert_files(&again, "SANDBOX_FILE_NAME", "is there already");
    assert_eq!(left(&scene), ["in"]);
    // Nothing of the transfers went through the channel.
    assert_echoed(echo(&sandbox, "goes on").await, "goes on");
    sandbox.shutdown().await;
}

#[tokio::test]
async fn an_older_guest_is_asked_for_no_files() {
    let (scene, sandbox) = booted().await;
    let without: Intercept = Arc::new(|frame| match frame {
        Frame::Hello(_) => {
            let mut hello = Hello::of_this_build();
            // The guest also lacks the nonce: a guest without one can't tell the nonce that the dispatcher keeps.
            let missing = [Extension::Files.name(), Extension::Nonce.name()];
            hello
                .extensions
                .retain(|name| !missing.contains(&name.as_str()));
            Some(encode(&Frame::Hello(hello)).unwrap())
        }
        Frame::OpenPush(_) | Frame::OpenPull(_) => panic!("it was asked"),
        _ => None,
    });
    let old = Scene::new();
    old.guest.behave(Behaviour::Intercepted(without));
    old.mint().await.unwrap();
    let older = old.sandbox();
    older.boot().await.unwrap();
    let root = tree(&scene);
    let error = older.push(&root, "in", &usual()).await.unwrap_err();
    assert_files(&error, "SANDBOX_TOOL_REFUSED", "files/1");
    let error = older
        .pull("in", &scene.path("out/got"), &usual())
        .await
        .unwrap_err();
    assert_files(&error, "SANDBOX_TOOL_REFUSED", "files/1");
    assert_echoed(echo(&older, "goes on").await, "goes on");
    older.shutdown().await;
    sandbox.shutdown().await;
}

#[tokio::test]
async fn a_transfer_that_is_dropped_leaves_nothing() {
    let (scene, sandbox) = booted().await;
    let large = scene.path("large");
    File::create(&large).unwrap().set_len(512 << 20).unwrap();
    let options = usual();
    {
        let mut push = Box::pin(sandbox.push(&large, "in", &options));
        while left(&scene).is_empty() {
            assert!(
                poll_once(&mut push).await.is_none(),
                "it is not done before it began"
            );
            tokio::task::yield_now().await;
        }
    }
    until(|| left(&scene).is_empty()).await;
    fs::rename(&large, scene.path("work/large")).unwrap();
    let got = scene.path("out/got");
    {
        let mut pull = Box::pin(sandbox.pull("large", &got, &options));
        while fs::read_dir(scene.path("out")).unwrap().count() == 0 {
            assert!(
                poll_once(&mut pull).await.is_none(),
                "it is not done before it began"
            );
            tokio::task::yield_now().await;
        }
    }
    until(|| left(&scene) == ["large"]).await;
    assert_echoed(echo(&sandbox, "goes on").await, "goes on");
    sandbox.shutdown().await;
}

#[tokio::test]
async fn a_reset_and_a_shutdown_end_a_transfer() {
    let mut scene = Scene::minted().await;
    fs::create_dir(scene.path("out")).unwrap();
    scene.limits = scene.limits.frame_idle(PATIENCE).frame_total(PATIENCE);
    let opened: Intercept = Arc::new(|frame| match frame {
        Frame::OpenPush(_) | Frame::OpenPull(_) => Some(encode(&Frame::Opened(Opened {})).unwrap()),
        _ => None,
    });
    scene.guest.behave(Behaviour::Intercepted(opened));
    let sandbox = Arc::new(scene.sandbox());
    sandbox.boot().await.unwrap();
    let root = tree(&scene);
    let ends = async |end: &str| {
        let (options, out) = (usual(), scene.path("out/got"));
        let mut push = Box::pin(sandbox.push(&root, "in", &options));
        let mut pull = Box::pin(sandbox.pull("in", &out, &options));
        assert!(poll_once(&mut push).await.is_none());
        assert!(poll_once(&mut pull).await.is_none());
        match end {
            "reset" => assert!(sandbox.reset().await.unwrap().is_verified()),
            _ => sandbox.shutdown().await,
        }
        let both = async { [push.await.unwrap_err(), pull.await.unwrap_err()] };
        timeout(PATIENCE, both).await.unwrap()
    };
    for error in ends("reset").await {
        assert!(matches!(error, Error::ResetInterrupted), "{error:?}");
    }
    assert_eq!(sandbox.state().wire(), WireState::Ready);
    for error in ends("shutdown").await {
        assert!(matches!(error, Error::ShutDown), "{error:?}");
    }
    until(|| left(&scene).is_empty()).await;
}

#[tokio::test]
async fn a_stub_keeps_files_until_it_is_reset() {
    let scene = Scene::new();
    let (root, got) = (tree(&scene), scene.path("got"));
    let stub: Box<dyn Sandbox> = Box::new(StubSandbox::default());
    assert!(matches!(
        stub.push(&root, "in", &usual()).await,
        Err(Error::NotReady { .. })
    ));
    stub.boot().await.unwrap();
    let pushed = stub.push(&root, "in", &usual()).await.unwrap();
    let pulled = stub.pull("in", &got, &usual()).await.unwrap();
    assert_eq!(
        (pulled.totals, &pulled.files),
        (pushed.totals, &pushed.files)
    );
    assert!(packed(&got) == packed(&root));
    let code = |result: Result<TransferReport, Error>| match result.unwrap_err() {
        Error::Files(error) => match &*error {
            TransferError::Guest { code, .. } => *code,
            error => panic!("{error}"),
        },
        error => panic!("{error}"),
    };
    assert_eq!(code(stub.push(&root, "in", &usual()).await), FileCode::Name);
    stub.reset().await.unwrap();
    assert_eq!(code(stub.pull("in", &got, &usual()).await), FileCode::Name);
}
