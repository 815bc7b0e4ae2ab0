//! A shutdown while a call hangs whose future is held and no longer polled: the shutdown ends the call within its limit
//! and leaves nothing. Dropping the handle or the runtime does the same.

mod dropped;
mod released;
mod shutdown;

use std::future::{Future, poll_fn};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use chv_sandbox::guest::protocol::Frame;
use chv_sandbox::guest::stand_in::{Behaviour, Intercept};
use chv_sandbox::sandbox::{
    ChvSandbox, Error, Event, GoldenOrigin, Sandbox, SandboxConfig, Strategy, ToolsPerReset,
    WireState,
};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::script::Act;
use super::stage::Stage;
use super::{PATIENCE, Scene, assert_echoed, echo, told};

/// The kind of VMMs that a sandbox has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Vmms {
    /// One VMM that another program runs.
    Attached,
    /// VMMs that are processes. The same one goes on after a reset.
    InPlace,
    /// VMMs that are processes, and this number of spares.
    Fresh(u32),
}

use Vmms::{Attached, Fresh, InPlace};

const EACH: [Vmms; 4] = [Attached, InPlace, Fresh(0), Fresh(1)];

/// The call that is held.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Call {
    Boot,
    Reset,
    /// A reset that waits for a spare which is being made.
    ResetBehindRefill,
    /// A tool whose guest gives no answer.
    Tool,
    /// A tool whose guest gives no answer, while making a spare hangs.
    ToolBesideRefill,
}

/// A call, the operation at which the VMM hangs, and which call of that operation.
#[derive(Clone, Copy, Debug)]
struct Case {
    vmms: Vmms,
    call: Call,
    hang: Option<(&'static str, usize)>,
}

/// Every call with every operation that it sends to a VMM.
fn cases(of: &[Call]) -> Vec<Case> {
    let mut cases = Vec::new();
    for (vmms, call) in EACH
        .into_iter()
        .flat_map(|it| of.iter().map(move |of| (it, *of)))
    {
        let operations: &[_] = match (call, vmms) {
            (Call::Boot, Attached) => &[
                ("vmm.ping", 1),
                ("vm.delete", 1),
                ("vm.restore", 1),
                ("vm.resume", 1),
                ("vm.info", 1),
            ],
            (Call::Boot, _) => &[
                ("vmm.ping", 1),
                ("vm.restore", 1),
                ("vm.resume", 1),
                ("vm.info", 1),
            ],
            // The last operation goes to the next VMM, after the one that served has ended.
            (Call::Reset, InPlace) => &[
                ("vm.delete", 1),
                ("vm.restore", 1),
                ("vm.resume", 1),
                ("vm.info", 1),
                ("vmm.ping", 1),
            ],
            (Call::Reset, Attached) => &[
                ("vm.delete", 1),
                ("vm.restore", 1),
                ("vm.resume", 1),
                ("vm.info", 1),
            ],
            (Call::Reset, Fresh(0)) => &[("vm.restore", 1), ("vm.resume", 1), ("vm.info", 1)],
            // The first call goes to the waiting spare.
            (Call::Reset, Fresh(_)) => &[("vm.info", 1), ("vm.resume", 1), ("vm.info", 2)],
            // The first call of each operation belongs to the boot.
            (Call::ResetBehindRefill | Call::ToolBesideRefill, Fresh(1..)) => &[
                ("vmm.ping", 2),
                ("vm.restore", 2),
                ("vm.resume", 2),
                ("vm.pause", 1),
            ],
            (Call::ResetBehindRefill | Call::ToolBesideRefill, Fresh(0)) => &[("vmm.ping", 2)],
            (Call::ResetBehindRefill | Call::ToolBesideRefill, _) => &[],
            (Call::Tool, _) => {
                cases.push(Case {
                    vmms,
                    call,
                    hang: None,
                });
                &[]
            }
        };
        let operations = operations.iter();
        cases.extend(operations.map(|&operation| Case {
            vmms,
            call,
            hang: Some(operation),
        }));
    }
    cases
}

/// The future of a call. It is not polled until it is awaited.
type Held<'a> = Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'a>>;

/// A sandbox with a call that hangs.
struct Hanging {
    scene: Scene,
    stage: Option<Stage>,
    sandbox: Arc<ChvSandbox>,
    held: Held<'static>,
}

impl Case {
    /// Starts the call and brings it to the point where it hangs.
    async fn hold(self) -> Hanging {
        let (scene, tool_arrives) = scene().await;
        let script = Arc::clone(scene.vmm.script());
        let stage = (self.vmms != Attached).then(|| scene.stage());
        let config = self.vmms.config(&scene);
        let sandbox = Arc::new(match &stage {
            Some(stage) => stage.sandbox(config),
            None => scene.sandbox_of(config),
        });
        let mut events = sandbox.subscribe();
        let hang = || {
            if let Some((operation, nth)) = self.hang {
                script.on(operation, nth, Act::Hang);
            }
        };
        match self.call {
            Call::Boot => hang(),
            Call::Reset => {
                sandbox.boot().await.unwrap();
                match (&stage, self.vmms, self.hang) {
                    (_, Fresh(1..), _) => {
                        let ready =
                            |event: &Event| matches!(event, Event::SpareReady).then_some(());
                        told(&mut events, ready).await;
                    }
                    (Some(stage), InPlace, Some(("vmm.ping", _))) => {
                        stage.serving().kill();
                        until(|| sandbox.state().wire() == WireState::Failed).await;
                    }
                    _ => {}
                }
                hang();
            }
            Call::Tool => sandbox.boot().await.unwrap(),
            Call::ResetBehindRefill | Call::ToolBesideRefill => {
                hang();
                sandbox.boot().await.unwrap();
                script.hangs(1).await;
            }
        }
        let of = Arc::clone(&sandbox);
        let mut held: Held = match self.call {
            Call::Boot => Box::pin(async move { of.boot().await }),
            Call::Reset | Call::ResetBehindRefill => {
                Box::pin(async move { of.reset().await.map(drop) })
            }
            Call::Tool | Call::ToolBesideRefill => {
                Box::pin(async move { echo(&*of, "held").await.map(drop) })
            }
        };
        let hangs = async {
            match self.call {
                Call::Boot | Call::Reset => script.hangs(1).await,
                Call::ResetBehindRefill => {
                    until(|| sandbox.state().wire() == WireState::Resetting).await
                }
                Call::Tool | Call::ToolBesideRefill => tool_arrives.notified().await,
            }
        };
        let hangs = async {
            tokio::select! {
                biased;
                result = &mut held => panic!("{self:?} doesn't hang: {result:?}"),
                () = hangs => {}
            }
        };
        timeout(PATIENCE, hangs)
            .await
            .unwrap_or_else(|_| panic!("{self:?} is not reached"));
        Hanging {
            scene,
            stage,
            sandbox,
            held,
        }
    }
}

impl Vmms {
    pub(super) fn config(self, scene: &Scene) -> SandboxConfig {
        scene.config_of(self.of(scene.golden()))
    }

    /// The same for a scene in this directory, which may be another process's.
    pub(super) fn config_at(self, directory: &Path) -> SandboxConfig {
        let golden = GoldenOrigin::new(directory.join("golden"));
        let golden = golden.evidence_dir(directory.join("evidence"));
        SandboxConfig::new(self.of(golden)).tools_per_reset(ToolsPerReset::Many)
    }

    fn of(self, golden: GoldenOrigin) -> GoldenOrigin {
        match self {
            Attached => golden,
            InPlace => golden.strategy(Strategy::InPlace),
            Fresh(spares) => golden.spares(spares),
        }
    }
}

impl Hanging {
    /// Checks that everything was released, and that the sandbox can be booted again.
    async fn ends(self, case: Case) {
        let Hanging {
            scene,
            stage,
            sandbox,
            held,
        } = self;
        assert_eq!(sandbox.state().wire(), WireState::NotBooted, "{case:?}");
        assert_nothing_is_left(&scene, stage.as_ref());
        let held = timeout(PATIENCE, held).await;
        let error = held.expect("it has ended").unwrap_err();
        if let Call::Boot | Call::Reset | Call::ResetBehindRefill = case.call {
            assert!(matches!(error, Error::ShutDown), "{case:?}: {error}");
        }
        works_again(&scene, stage.as_ref(), &sandbox).await;
    }
}

async fn works_again(scene: &Scene, stage: Option<&Stage>, sandbox: &ChvSandbox) {
    scene.vmm.script().forget_plans();
    scene.guest.behave(Behaviour::Dispatcher);
    sandbox.boot().await.unwrap();
    assert_echoed(echo(sandbox, "again").await, "again");
    timeout(PATIENCE, sandbox.shutdown()).await.unwrap();
    assert_nothing_is_left(scene, stage);
}

/// A scene whose guests accept tools and give no answer, with a notification for each tool that arrives.
async fn scene() -> (Scene, Arc<Notify>) {
    let scene = Scene::minted().await;
    let arrives = Arc::<Notify>::default();
    let arrived = Arc::clone(&arrives);
    let intercept: Intercept = Arc::new(move |frame| match frame {
        Frame::ToolDispatch(_) => {
            arrived.notify_one();
            Some(Vec::new())
        }
        _ => None,
    });
    scene.guest.behave(Behaviour::Intercepted(intercept));
    (scene, arrives)
}

#[track_caller]
fn assert_nothing_is_left(scene: &Scene, stage: Option<&Stage>) {
    match stage {
        Some(stage) => stage.assert_empty(),
        None => scene.assert_machine_is_empty(),
    }
}

/// Waits until the condition holds. Other tasks run meanwhile.
pub(super) async fn until(mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, waiting).await.expect("it is so in time");
}

/// Polls a future once.
pub(super) async fn poll_once<T>(future: &mut (impl Future<Output = T> + Unpin)) -> Option<T> {
    poll_fn(|context| {
        Poll::Ready(match Pin::new(&mut *future).poll(context) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        })
    })
    .await
}

/// A runtime of one thread, and one of two.
pub(super) fn runtimes() -> [Runtime; 2] {
    let mut multi_thread = Builder::new_multi_thread();
    multi_thread.worker_threads(2);
    [Builder::new_current_thread(), multi_thread]
        .map(|mut builder| builder.enable_all().build().unwrap())
}
