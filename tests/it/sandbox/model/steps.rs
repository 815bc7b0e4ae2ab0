//! What can happen to a sandbox, in any order.

use proptest::prelude::*;

use super::CALLERS;

/// What happens next.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// A caller begins a call, and polls it once. It waits first for the one that it has begun before.
    Call(usize, Call),
    /// A caller makes a call, and waits for it.
    Whole(usize, Call),
    /// A caller drops its call.
    Drop(usize),
    /// A caller waits for its call.
    Finish(usize),
    /// A VMM does otherwise than it is asked.
    Fault(&'static str, Fault),
    /// One of the processes is killed: one of those that there are, by its number.
    Kill(usize),
    /// The guests have a descriptor more than they should.
    TamperGuest,
    /// A bit of a disk is another.
    TamperDisk,
    /// Everything is again as it was minted.
    Mend,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Call {
    Boot,
    Reset,
    Tool,
    Shutdown,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    Refuse,
    Hang,
    Close,
    Pretend,
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let caller = 0..CALLERS;
    let call = prop_oneof![
        3 => Just(Call::Boot),
        5 => Just(Call::Reset),
        4 => Just(Call::Tool),
        1 => Just(Call::Shutdown),
    ];
    let operation = prop::sample::select(vec![
        "vmm.ping",
        "vm.delete",
        "vm.restore",
        "vm.resume",
        "vm.pause",
        "vm.info",
    ]);
    let fault = prop_oneof![
        3 => Just(Fault::Refuse),
        1 => Just(Fault::Hang),
        3 => Just(Fault::Close),
        1 => Just(Fault::Pretend),
    ];
    prop_oneof![
        10 => (caller.clone(), call.clone()).prop_map(|(caller, call)| Step::Whole(caller, call)),
        6 => (caller.clone(), call).prop_map(|(caller, call)| Step::Call(caller, call)),
        2 => caller.clone().prop_map(Step::Drop),
        4 => caller.prop_map(Step::Finish),
        3 => (operation, fault).prop_map(|(operation, fault)| Step::Fault(operation, fault)),
        1 => (0..4usize).prop_map(Step::Kill),
        1 => Just(Step::TamperGuest),
        1 => Just(Step::TamperDisk),
        2 => Just(Step::Mend),
    ]
}
