//! The script of the stand-ins for a VMM: the deviations that a test orders, and the calls that were received.

use std::sync::Mutex;

use tokio::sync::watch;

use super::memory_of_vmm::Mapping;
use super::vmm::lock;

/// A deviation of one call.
pub(crate) enum Act {
    /// The call is answered with 500, and not carried out.
    Refuse,
    /// The call is never answered, and not carried out.
    Hang,
    /// The connection is closed without an answer, and the call is not carried out.
    Close,
    /// The call is answered as if it had been carried out, and it was not.
    Pretend,
    /// The call is not carried out. These bytes are the answer; then the connection is closed.
    Answer(Vec<u8>),
    /// The call is not carried out, and the answer comes at one byte a second.
    Slow,
    /// The process of the VMM is killed before the call is carried out.
    Die,
    /// The call is carried out, and the process of the VMM is killed before the answer.
    DieAfter,
    /// The call is carried out, and the process of the VMM is killed in the middle of the answer.
    DieWithin,
    /// The process of the VMM is stopped with SIGSTOP before the call is carried out, and answers nothing more.
    Stop,
    /// The call is carried out with a body that lacks this field.
    Drop(&'static str),
    /// The closure runs first; then the call is carried out as usual.
    First(Box<dyn FnOnce() + Send>),
    /// The call is carried out as usual; then the closure runs, before the answer.
    Then(Box<dyn FnOnce() + Send>),
}

/// How VMMs that are processes open their overlay.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Opening {
    /// As a VMM does: opened by its path, with a lock.
    #[default]
    Locked,
    /// Opened by its path, without a lock.
    Unlocked,
    /// Not opened: the VMM uses the descriptor that it has inherited.
    Inherited,
    /// Another file with the same bytes.
    Another,
    /// As a VMM does, but without opening the backing files.
    NothingBeneath,
}

/// The deviations that the VMMs of a scene are told to make, and the calls that they received.
pub(crate) struct Script {
    pub(crate) version: Mutex<&'static str>,
    pub(crate) mapping: Mutex<Mapping>,
    pub(crate) opening: Mutex<Opening>,
    pub(crate) asked: Mutex<Vec<String>>,
    plans: Mutex<Vec<Plan>>,
    /// How many calls have met [`Act::Hang`].
    hanging: watch::Sender<usize>,
}

impl Default for Script {
    fn default() -> Self {
        Script {
            version: Mutex::new("53.0.0"),
            mapping: Mutex::default(),
            opening: Mutex::default(),
            asked: Mutex::default(),
            plans: Mutex::default(),
            hanging: watch::Sender::new(0),
        }
    }
}

struct Plan {
    operation: &'static str,
    /// How many further calls of the operation are carried out as usual.
    after: usize,
    act: Act,
}

impl Script {
    /// From now on, the `nth` call of `operation` meets `act`; 1 is the next.
    pub(crate) fn on(&self, operation: &'static str, nth: usize, act: Act) {
        let after = nth.checked_sub(1).expect("calls are counted from 1");
        let plan = Plan {
            operation,
            after,
            act,
        };
        lock(&self.plans).push(plan);
    }

    /// Every call is carried out as usual from now on.
    pub(crate) fn forget_plans(&self) {
        lock(&self.plans).clear();
    }

    /// From now on VMMs that are processes open their overlay in this way.
    pub(crate) fn open_overlay(&self, opening: Opening) {
        *lock(&self.opening) = opening;
    }

    /// The deviation for a call that was just received, if there is one.
    pub(crate) fn planned(&self, operation: &str) -> Option<Act> {
        let mut plans = lock(&self.plans);
        let mut due = None;
        for (at, plan) in plans.iter_mut().enumerate() {
            if plan.operation != operation {
                continue;
            }
            match plan.after.checked_sub(1) {
                Some(after) => plan.after = after,
                None => due = due.or(Some(at)),
            }
        }
        let act = due.map(|at| plans.remove(at).act);
        if let Some(Act::Hang) = act {
            self.hanging.send_modify(|hanging| *hanging += 1);
        }
        act
    }

    /// Waits until this number of calls in total have met [`Act::Hang`].
    pub(crate) async fn hangs(&self, count: usize) {
        let mut hanging = self.hanging.subscribe();
        let hangs = hanging.wait_for(|hanging| *hanging >= count).await;
        drop(hangs.expect("this holds the sender"));
    }
}
