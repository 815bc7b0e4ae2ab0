//! A VMM that dies, stops or answers wrongly, at each call that it receives.

use chv_sandbox::golden::mint;
use chv_sandbox::machine::VmmSource;

use super::*;

/// The fault of one call of the API.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    KilledBefore,
    KilledAfter,
    KilledWithinTheAnswer,
    Stopped,
    Closed,
    Silent,
    Slow,
    HalfAnAnswer,
    Garbage,
    AnotherAnswer,
    TooManyConnections,
    TooManyRequests,
    Refused(&'static str),
}

use Fault::*;

/// The errors with which v51.2 to v53.0 refuse a sandbox's calls, as their recordings have them, and their older forms.
const REFUSALS: [&str; 7] = [
    r#"["Error from API","The VM could not be restored","Failed to open the file"]"#,
    r#"["Error from API","VM is not running"]"#,
    r#"["Error from API","The VM could not boot","Cannot create the vsock device"]"#,
    r#""Error from API""#,
    "{ \"error\": \"Invalid HTTP Method: Unsupported HTTP method.\nAll previous unanswered requests will be dropped.\" }",
    "",
    "[",
];

fn faults() -> Vec<Fault> {
    let refused = REFUSALS.map(Refused);
    [
        KilledBefore,
        KilledAfter,
        KilledWithinTheAnswer,
        Stopped,
        Closed,
        Silent,
        Slow,
        HalfAnAnswer,
        Garbage,
        AnotherAnswer,
        TooManyConnections,
        TooManyRequests,
    ]
    .into_iter()
    .chain(refused)
    .collect()
}

impl Fault {
    fn act(self, operation: &str) -> Act {
        let answer = |status: &str, body: &str| {
            let length = body.len();
            let answer = format!("HTTP/1.1 {status} \r\nContent-Length: {length}\r\n\r\n{body}");
            Act::Answer(answer.into_bytes())
        };
        match self {
            KilledBefore => Act::Die,
            KilledAfter => Act::DieAfter,
            KilledWithinTheAnswer => Act::DieWithin,
            Stopped => Act::Stop,
            Closed => Act::Close,
            Silent => Act::Hang,
            Slow => Act::Slow,
            HalfAnAnswer => {
                Act::Answer(b"HTTP/1.1 200 \r\nContent-Length: 100\r\n\r\n{\"st".to_vec())
            }
            Garbage => Act::Answer(b"\x16\x03\x01\0\xa5\x01\0\0\n\n\n".repeat(9)),
            // The answer of another call.
            AnotherAnswer if operation == "vmm.ping" => answer("200", r#"{"state":"Running"}"#),
            AnotherAnswer => answer(
                "200",
                r#"{"build_version":"v53.0","version":"53.0.0","pid":1}"#,
            ),
            TooManyConnections => answer("503", ""),
            TooManyRequests => answer("429", r#"["Too many requests"]"#),
            Refused(body) => answer("500", body),
        }
    }

    /// Whether the caller notices the fault only when a limit passes.
    fn has_to_be_waited_for(self) -> bool {
        matches!(self, Stopped | Silent | Slow)
    }
}

/// An operation, and which of its calls meets the fault. The calls count from just before the call of the sandbox.
type At = (&'static str, usize);

fn cells(at: &[At]) -> Vec<(At, Fault)> {
    let faults = faults();
    at.iter()
        .flat_map(|at| faults.iter().map(|fault| (*at, *fault)))
        .collect()
}

#[test]
fn at_each_call_of_a_boot() {
    let at = [
        ("vmm.ping", 1),
        ("vm.restore", 1),
        ("vm.resume", 1),
        ("vm.info", 1),
    ];
    try_all(with_vmms(cells(&at)), async |cell| {
        let (vmms, ((operation, nth), fault)) = cell;
        let stand = Stand::new(vmms, fault.has_to_be_waited_for()).await;
        stand.scene.vmm.on(operation, nth, fault.act(operation));
        let said = in_time(&cell, stand.sandbox.boot()).await;
        stand.stands(&cell, said).await;
    });
}

#[test]
fn at_each_call_of_a_reset() {
    let at = [
        ("vm.delete", 1),
        ("vm.restore", 1),
        ("vm.resume", 1),
        ("vm.info", 1),
        ("vm.info", 2),
        ("vmm.ping", 1),
    ];
    try_all(with_vmms(cells(&at)), async |cell| {
        let (vmms, ((operation, nth), fault)) = cell;
        let stand = Stand::booted(vmms, fault.has_to_be_waited_for()).await;
        stand.scene.vmm.on(operation, nth, fault.act(operation));
        let said = in_time(&cell, stand.sandbox.reset()).await;
        assert_no_soft_pass(&cell, &said);
        stand.stands(&cell, said).await;
    });
}

/// A spare is made beside the tool. Whatever happens to the spare, the tool has its answer, and the reset after it is
/// verified or fails.
#[test]
fn at_each_call_for_a_spare() {
    let at = [
        ("vmm.ping", 2),
        ("vm.restore", 2),
        ("vm.resume", 2),
        ("vm.pause", 1),
    ];
    try_all(cells(&at), async |cell| {
        let ((operation, nth), fault) = cell;
        let stand = Stand::new(Vmms::Fresh(1), fault.has_to_be_waited_for()).await;
        // The first call of each operation belongs to the boot.
        stand.scene.vmm.on(operation, nth, fault.act(operation));
        let booted = in_time(&cell, stand.sandbox.boot()).await;
        if booted.is_ok() && !fault.has_to_be_waited_for() {
            assert_echoed(echo(&stand.sandbox, "beside").await, "beside");
        }
        let said = in_time(&cell, stand.sandbox.reset()).await;
        assert_no_soft_pass(&cell, &said);
        stand.stands(&cell, said).await;
    });
}

/// A VMM that fails while it is asked to end is killed.
#[test]
fn at_each_call_of_a_shutdown() {
    let at = [("vmm.shutdown", 1), ("vm.delete", 1), ("vm.shutdown", 1)];
    try_all(with_vmms(cells(&at)), async |cell| {
        let (vmms, ((operation, nth), fault)) = cell;
        let stand = Stand::booted(vmms, fault.has_to_be_waited_for()).await;
        stand.scene.vmm.on(operation, nth, fault.act(operation));
        let shutdown = timeout(PATIENCE, stand.sandbox.shutdown()).await;
        assert!(shutdown.is_ok(), "{cell:?}: the shutdown hangs");
        stand.ends(&cell).await;
    });
}

/// A mint makes a whole golden snapshot or none.
#[test]
fn at_each_call_of_a_mint() {
    let at = [
        ("vmm.ping", 1),
        ("vm.create", 1),
        ("vm.boot", 1),
        ("vm.pause", 1),
        ("vm.snapshot", 1),
        ("vm.delete", 1),
        ("vm.restore", 1),
        ("vm.resume", 1),
        ("vm.info", 1),
        ("vm.restore", 2),
        ("vm.info", 2),
    ];
    try_all(cells(&at), async |cell| {
        let ((operation, nth), fault) = cell;
        let scene = Scene::new();
        let stage = scene.stage();
        let mut config = scene.mint_config();
        config.machine.vmm = VmmSource::Spawn(stage.config());
        let limits = &mut config.machine.limits;
        limits.vmm_shutdown = Duration::from_millis(100);
        limits.vmm_terminate = Duration::from_millis(100);
        if fault.has_to_be_waited_for() {
            (limits.vmm_lifecycle, limits.vmm_transfer) = (SHORT, SHORT);
            (limits.vmm_probe, limits.vmm_start) = (SHORT, SHORT);
            (limits.settle, limits.query, limits.boot) = (SHORT, SHORT, SHORT);
        }
        scene.vmm.on(operation, nth, fault.act(operation));
        let minted = in_time(&cell, mint(config)).await;
        let there = scene.path("golden").exists();
        assert_eq!(minted.is_ok(), there, "{cell:?}: {minted:?}");
        stage.assert_empty();
    });
}

/// The VMM dies or stops while no call is under way.
#[test]
fn between_calls() {
    let cells = with_vmms(vec![false, true]);
    try_all(cells, async |cell| {
        let (vmms, stops) = cell;
        let stand = Stand::booted(vmms, true).await;
        let serving = stand.stage.serving();
        match stops {
            true => serving.stop(),
            false => serving.kill(),
        }
        let said = in_time(&cell, echo(&stand.sandbox, "late")).await;
        // The guest of a stopped VMM runs in this process, so it still answers.
        assert!(said.is_err() || stops, "{cell:?}");
        let said = in_time(&cell, stand.sandbox.reset()).await;
        assert_no_soft_pass(&cell, &said);
        stand.stands(&cell, said).await;
    });
}
