//! What the stand-ins for a VMM are told to do otherwise, and what they were asked.

use std::sync::Mutex;

use tokio::sync::watch;

use super::memory_of_vmm::Mapping;
use super::vmm::lock;

/// What happens to a call instead of, or before, what it asks for.
pub(crate) enum Act {
    /// It is answered with 500, and not done.
    Refuse,
    /// It is never answered, and not done.
    Hang,
    /// The connection is closed without an answer, and it is not done.
    Close,
    /// It is answered as if it had been done, and not done.
    Pretend,
    /// It is not done, and these bytes are all that is answered; then the connection is closed.
    Answer(Vec<u8>),
    /// It is not done, and its answer comes at a byte a second.
    Slow,
    /// The process of the VMM is killed before it is done.
    Die,
    /// It is done, and the process of the VMM is killed before the answer.
    DieAfter,
    /// It is done, and the process of the VMM is killed within the answer.
    DieWithin,
    /// The process of the VMM is stopped before it is done, as by SIGSTOP, and answers nothing more.
    Stop,
    /// It is done with a body that lacks this field.
    Drop(&'static str),
    /// This is done first; then the call as usual.
    First(Box<dyn FnOnce() + Send>),
    /// The call as usual; then this is done, before it is answered.
    Then(Box<dyn FnOnce() + Send>),
}

/// How VMMs that are processes open their overlay.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Opening {
    /// As a VMM does: anew, with a lock.
    #[default]
    Locked,
    /// Anew, without a lock.
    Unlocked,
    /// Not at all: it goes on with the descriptor that it has inherited.
    Inherited,
    /// Another file with the same bytes.
    Another,
    /// As a VMM does, but without the files that it lies upon.
    NothingBeneath,
}

/// What the VMMs of a scene are told to do, and what they were asked.
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
    /// How many calls of the operation are still left alone.
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

    /// Every call is done as usual from now on.
    pub(crate) fn forget_plans(&self) {
        lock(&self.plans).clear();
    }

    /// From now on VMMs that are processes open their overlay like this.
    pub(crate) fn open_overlay(&self, opening: Opening) {
        *lock(&self.opening) = opening;
    }

    /// What a call meets that was just received.
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

    /// Waits until so many calls have met [`Act::Hang`] since the beginning.
    pub(crate) async fn hangs(&self, count: usize) {
        let mut hanging = self.hanging.subscribe();
        let hangs = hanging.wait_for(|hanging| *hanging >= count).await;
        drop(hangs.expect("this holds the sender"));
    }
}
