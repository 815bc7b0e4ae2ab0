//! The steps that a sequence is made of, in any order.

use proptest::prelude::*;

use super::CALLERS;

/// A step of a sequence.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// A caller begins a call and polls it once. If the caller has a call already, it waits for that call first.
    Call(usize, Call),
    /// A caller makes a call and waits for its result.
    Whole(usize, Call),
    /// A caller drops its call.
    Drop(usize),
    /// A caller waits for its call.
    Finish(usize),
    /// A call of the VMM meets a fault.
    Fault(&'static str, Fault),
    /// One of the running processes, chosen by its number, is killed.
    Kill(usize),
    /// The guests have one descriptor too many.
    TamperGuest,
    /// One bit of a disk is changed.
    TamperDisk,
    /// The disk and the guests are as they were minted again.
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
