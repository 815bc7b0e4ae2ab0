//! Random sequences of calls by several callers, with VMMs that refuse, hang, lie and die, and with disks and guests
//! that are tampered with. Checked: only documented states in the documented order, no call that hangs, no unverified
//! reset that passes, and nothing left.

mod steps;

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use chv_sandbox::broadcast::{Receiver, TryRecvError};
use chv_sandbox::machine::VmmSource;
use chv_sandbox::sandbox::{ChvSandbox, Error, Event, Reset, Sandbox, SandboxState};
use proptest::collection::vec;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::hanging::{Vmms, poll_once, runtimes};
use super::script::Act;
use super::stage::Stage;
use super::{PATIENCE, Scene, assert_echoed, echo, flip_a_bit};
use steps::{Call, Fault, Step, step};

/// The number of sequences for each kind of VMM on each runtime.
const CASES: u32 = 10;

/// The greatest number of steps in a sequence.
const STEPS: usize = 16;

const CALLERS: usize = 3;

/// The result of a call.
enum Given {
    Nothing,
    Boot(Result<(), Error>),
    Reset(Result<Box<Reset>, Error>),
    Tool(Result<(), Error>),
}

/// A call that is under way.
struct Pending {
    /// The step at which the call was begun.
    begun: usize,
    state: SandboxState,
    future: Pin<Box<dyn Future<Output = Given> + Send>>,
}

/// A sandbox, and what the test knows about it.
struct Model {
    scene: Scene,
    stage: Option<Stage>,
    sandbox: Arc<ChvSandbox>,
    events: Receiver<Event>,
    vmms: Vmms,
    /// Whether the sandbox makes progress only while the test waits: the runtime has one thread.
    alone: bool,
    pending: [Option<Pending>; CALLERS],
    /// The last state that was reported; `None` if some were lost.
    last: Option<SandboxState>,
    now: usize,
    /// The step since which no reset may be verified, because the guest is tampered with.
    guest_is_tampered: Option<usize>,
    disk_is_tampered: Option<usize>,
}

/// Whether the diagram in `src/sandbox/mod.rs` has a transition between these states.
fn follows(before: &SandboxState, after: &SandboxState) -> bool {
    use SandboxState::{Booting, Failed, Halted, NeedsReset, NotBooted, Ready, Resetting};
    match before {
        NotBooted => matches!(after, Booting),
        Booting => matches!(after, Ready | Failed { .. } | NotBooted),
        Ready => matches!(
            after,
            NeedsReset { .. } | Resetting | Failed { .. } | NotBooted
        ),
        NeedsReset { .. } => matches!(after, Resetting | Failed { .. } | NotBooted),
        Resetting => matches!(after, Ready | Failed { .. } | Halted { .. } | NotBooted),
        Failed { .. } => matches!(after, Booting | Resetting | NotBooted),
        Halted { .. } => matches!(after, NotBooted),
        other => panic!("{other:?} is not in the diagram"),
    }
}

fn same(one: &SandboxState, other: &SandboxState) -> bool {
    std::mem::discriminant(one) == std::mem::discriminant(other)
}

impl Model {
    async fn new(vmms: Vmms, alone: bool) -> Model {
        let mut scene = Scene::minted().await;
        // Calls that hang are given up soon.
        scene.limits.vmm_lifecycle = Duration::from_millis(700);
        scene.limits.vmm_transfer = Duration::from_millis(700);
        scene.limits.settle = Duration::from_millis(1500);
        if vmms != Vmms::Attached {
            scene.limits.vmm_start = Duration::from_millis(1500);
        }
        let stage = (vmms != Vmms::Attached).then(|| scene.stage());
        let config = vmms.config(&scene);
        let sandbox = match &stage {
            Some(stage) => {
                let vmm = VmmSource::Spawn(stage.config());
                ChvSandbox::with_vmm(config, vmm).unwrap()
            }
            None => scene.sandbox_of(config),
        };
        Model {
            events: sandbox.subscribe(),
            sandbox: Arc::new(sandbox),
            scene,
            stage,
            vmms,
            alone,
            pending: [const { None }; CALLERS],
            last: Some(SandboxState::NotBooted),
            now: 0,
            guest_is_tampered: None,
            disk_is_tampered: None,
        }
    }

    async fn run(mut self, steps: &[Step]) {
        for step in [&Step::Whole(0, Call::Boot)].into_iter().chain(steps) {
            self.now += 1;
            self.take(step).await;
            self.check_states();
            self.check_halted().await;
        }
        self.end().await;
    }

    async fn take(&mut self, step: &Step) {
        match *step {
            Step::Call(caller, call) => {
                self.finish(caller).await;
                self.begin(caller, call).await;
            }
            Step::Whole(caller, call) => {
                self.finish(caller).await;
                self.begin(caller, call).await;
                self.finish(caller).await;
            }
            Step::Drop(caller) => self.pending[caller] = None,
            Step::Finish(caller) => self.finish(caller).await,
            Step::Fault(operation, fault) => {
                let act = match fault {
                    Fault::Refuse => Act::Refuse,
                    Fault::Hang => Act::Hang,
                    Fault::Close => Act::Close,
                    Fault::Pretend => Act::Pretend,
                };
                self.scene.vmm.on(operation, 1, act);
            }
            Step::Kill(number) => {
                let running = self.stage.as_ref().map_or(Vec::new(), Stage::running);
                if let Some(vmm) = running.get(number % running.len().max(1)) {
                    vmm.kill();
                }
            }
            Step::TamperGuest => {
                self.scene.guest.set_open_files(13);
                self.guest_is_tampered.get_or_insert(self.now);
            }
            Step::TamperDisk if self.disk_is_tampered.is_none() => {
                flip_a_bit(&self.disk());
                self.disk_is_tampered = Some(self.now);
            }
            Step::TamperDisk => {}
            Step::Mend => self.mend(),
        }
    }

    /// A disk that every reset with these VMMs has to examine. A spare was filled from the golden copy earlier, so for
    /// spares this is the root.
    fn disk(&self) -> PathBuf {
        match self.vmms {
            Vmms::Fresh(1..) => self.scene.path("root.img"),
            _ => self.scene.path("golden/overlay.img"),
        }
    }

    fn mend(&mut self) {
        self.scene.guest.set_open_files(12);
        self.guest_is_tampered = None;
        if self.disk_is_tampered.take().is_some() {
            flip_a_bit(&self.disk());
        }
    }

    async fn begin(&mut self, caller: usize, call: Call) {
        let sandbox = Arc::clone(&self.sandbox);
        let message = format!("tool {}", self.now);
        let mut pending = Pending {
            begun: self.now,
            state: sandbox.state(),
            future: match call {
                Call::Boot => Box::pin(async move { Given::Boot(sandbox.boot().await) }),
                Call::Reset => {
                    Box::pin(async move { Given::Reset(sandbox.reset().await.map(Box::new)) })
                }
                Call::Tool => Box::pin(async move {
                    let execution = echo(&*sandbox, &message).await;
                    Given::Tool(execution.map(|execution| assert_echoed(Ok(execution), &message)))
                }),
                Call::Shutdown => Box::pin(async move {
                    sandbox.shutdown().await;
                    Given::Nothing
                }),
            },
        };
        match poll_once(&mut pending.future).await {
            Some(given) => self.check(&pending, &given),
            None => self.pending[caller] = Some(pending),
        }
    }

    async fn finish(&mut self, caller: usize) {
        if let Some(mut pending) = self.pending[caller].take() {
            let given = timeout(PATIENCE, &mut pending.future).await;
            let given = given.expect("no call hangs");
            self.check(&pending, &given);
        }
    }

    fn check(&self, pending: &Pending, given: &Given) {
        let begun = pending.begun;
        match given {
            Given::Reset(Ok(reset)) => {
                assert!(reset.is_verified());
                let tampered = self.guest_is_tampered.into_iter();
                let mut tampered = tampered.chain(self.disk_is_tampered);
                assert!(
                    !tampered.any(|since| since <= begun),
                    "verified, though it was tampered with before the reset: {:?}",
                    reset.outcome().report.checks
                );
            }
            // On a runtime with several threads the state may already have changed.
            Given::Tool(Ok(())) if self.alone => {
                assert!(
                    same(&pending.state, &SandboxState::Ready),
                    "{:?}",
                    pending.state
                );
            }
            Given::Reset(Err(error)) | Given::Boot(Err(error)) => {
                assert!(
                    !matches!(
                        error,
                        Error::ToolTimeout { .. }
                            | Error::ToolRefused(_)
                            | Error::NeedsReset { .. }
                    ),
                    "{error}"
                );
                assert!(!error.to_string().is_empty());
            }
            _ => {}
        }
    }

    /// Checks that each reported state may follow the one before it.
    fn check_states(&mut self) {
        loop {
            match self.events.try_recv() {
                Ok(Event::State(state)) => {
                    if let Some(last) = &self.last {
                        assert!(follows(last, &state), "{state:?} after {last:?}");
                    }
                    self.last = Some(state);
                }
                Ok(_) => {}
                Err(TryRecvError::Lagged(_)) => self.last = None,
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Closed) => panic!("the sandbox is there"),
            }
        }
        if self.alone
            && let Some(last) = &self.last
        {
            let state = self.sandbox.state();
            assert!(same(last, &state), "{state:?} was not told, but {last:?}");
        }
    }

    /// Checks that the sandbox refuses everything but a shutdown after a divergence.
    async fn check_halted(&self) {
        let at_rest = self.pending.iter().all(Option::is_none);
        if !at_rest || !self.sandbox.state().is_halted() {
            return;
        }
        let refused = [
            self.sandbox.boot().await.unwrap_err(),
            self.sandbox.reset().await.unwrap_err(),
            echo(&*self.sandbox, "halted").await.unwrap_err(),
        ];
        for error in refused {
            assert!(matches!(error, Error::Halted { .. }), "{error}");
        }
        assert!(self.sandbox.state().is_halted());
    }

    /// Shuts the sandbox down. Once the VMMs follow their orders again, the sandbox must boot and work.
    async fn end(mut self) {
        self.scene.vmm.script().forget_plans();
        let shutdown = timeout(PATIENCE, self.sandbox.shutdown());
        shutdown.await.expect("no shutdown hangs");
        self.check_states();
        assert!(same(&self.sandbox.state(), &SandboxState::NotBooted));
        if let Some(stage) = &self.stage {
            stage.assert_empty();
        }
        for caller in 0..CALLERS {
            self.finish(caller).await;
        }
        self.mend();
        // The limits are short, so on a busy machine a boot may exceed them.
        for _ in 0..3 {
            if self.sandbox.boot().await.is_ok() {
                break;
            }
        }
        assert_echoed(echo(&*self.sandbox, "well").await, "well");
        self.check_states();
        self.sandbox.shutdown().await;
        self.check_states();
        match &self.stage {
            Some(stage) => stage.assert_empty(),
            None => self.scene.assert_machine_is_empty(),
        }
    }
}

/// Runs sequences on this runtime. They are the same in each run.
fn check(vmms: Vmms, runtime: &Runtime, alone: bool) {
    let config = Config {
        cases: CASES,
        failure_persistence: None,
        // A failing sequence is only shrunk this far, since the same steps needn't fail twice.
        max_shrink_iters: 32,
        ..Config::default()
    };
    let mut seed = [0; 32];
    seed[0] = u8::from(alone);
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let tried = runner.run(&vec(step(), 1..=STEPS), |steps| {
        let model = async { Model::new(vmms, alone).await.run(&steps).await };
        runtime.block_on(model);
        Ok::<_, TestCaseError>(())
    });
    if let Err(error) = tried {
        panic!("{vmms:?}, seed {seed:?}: {error}");
    }
}

fn check_on_each_runtime(vmms: Vmms) {
    let [one_thread, threads] = runtimes();
    check(vmms, &one_thread, true);
    check(vmms, &threads, false);
}

#[test]
fn a_vmm_of_another_program() {
    check_on_each_runtime(Vmms::Attached);
}

#[test]
fn one_vmm_in_place() {
    check_on_each_runtime(Vmms::InPlace);
}

#[test]
fn fresh_vmms_without_a_spare() {
    check_on_each_runtime(Vmms::Fresh(0));
}

#[test]
fn fresh_vmms_with_a_spare() {
    check_on_each_runtime(Vmms::Fresh(1));
}
