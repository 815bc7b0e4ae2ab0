//! Each probe fails where the breach that it looks for is there, and its evidence says what the probe saw.

use std::collections::BTreeSet;

use chv_sandbox::redteam::{Moment, ProbeReport, Verdict, probes};
use chv_sandbox::sandbox::{StubRun, ToolOutcome};

use super::guest::{Guest, Leak};
use super::sandbox::{Fault, PlayedSandbox, PlayedSubstrate, Telling};
use super::{all, plan, plan_of, report_on};

/// A defect of a sandbox.
#[derive(Clone, Copy)]
enum Broken {
    Guest(Leak),
    Sandbox(Fault),
    /// The sandbox has a tool of this name that it should not have.
    Tool(&'static str),
    /// The sandbox's resets find no lie.
    Blind,
}

use Broken::{Blind, Guest as In, Sandbox as Of, Tool};

/// A defect for each probe, and a part of the evidence that the probe must give for it.
const BREACHES: &[(&str, Broken, &str)] = &[
    ("marker_file", In(Leak::Marker("file")), "chv-"),
    ("marker_process", In(Leak::Marker("process")), "chv-"),
    ("marker_memory", In(Leak::Memory), "KiB are available"),
    ("marker_memory", In(Leak::Marker("memory")), "chv-"),
    ("marker_descriptor", In(Leak::Marker("descriptor")), "chv-"),
    ("marker_descriptor", In(Leak::OpenFiles), "files are open"),
    (
        "marker_environment",
        In(Leak::Marker("environment")),
        "chv-",
    ),
    (
        "marker_clock",
        In(Leak::ClockAhead(60)),
        "the guest's clock says",
    ),
    (
        "marker_clock",
        In(Leak::ClockAhead(-60)),
        "the guest's clock says",
    ),
    ("marker_clock", In(Leak::ClockBack), "said"),
    ("marker_random", In(Leak::Random), "abababab"),
    ("host_files", In(Leak::Breach("host_files")), "it was seen"),
    (
        "host_devices",
        In(Leak::Breach("host_devices")),
        "it was seen",
    ),
    (
        "process_escape",
        In(Leak::Breach("process_escape")),
        "it was seen",
    ),
    (
        "network_interfaces",
        In(Leak::Breach("network_interfaces")),
        "it was seen",
    ),
    (
        "network_connect",
        In(Leak::Breach("network_connect")),
        "it was seen",
    ),
    (
        "network_dns",
        In(Leak::Breach("network_dns")),
        "it was seen",
    ),
    (
        "channel_vsock",
        In(Leak::Breach("channel_vsock")),
        "it was seen",
    ),
    (
        "channel_descriptors",
        In(Leak::Breach("channel_descriptors")),
        "it was seen",
    ),
    (
        "channel_commands",
        Of(Fault::MixesCommands),
        "\"same\" got an answer that is not its own",
    ),
    (
        "channel_commands",
        Of(Fault::AnswersNot("channel_alive")),
        "no further tool was taken",
    ),
    ("channel_tools", Tool("SH"), "\"SH\" ran"),
    ("channel_tools", Tool("/bin/sh"), "\"/bin/sh\" ran"),
    ("forged_frames", In(Leak::Forgery), "exited with code 0"),
    ("forged_frames", In(Leak::LostOutput), "has 9 bytes"),
    ("forged_stream", In(Leak::Forgery), "exited with code 0"),
    ("forged_stream", In(Leak::LostOutput), "has 9 bytes"),
    ("forged_ending", In(Leak::SignalAsCode), "kill -9"),
    ("forged_ending", In(Leak::Forgery), "`exit 127` is told as"),
    (
        "forged_terminal",
        Of(Fault::ShowsControlCharacters),
        "a text for a log",
    ),
    (
        "time_bomb_process",
        In(Leak::Breach("time_bomb_look")),
        "it was seen",
    ),
    ("time_bomb_output", In(Leak::LateOutput), "late-"),
    (
        "exhaust_memory",
        In(Leak::Breach("exhaust_memory")),
        "it was seen",
    ),
    ("exhaust_memory", Of(Fault::DivergesAt(1)), "after it"),
    (
        "exhaust_processes",
        In(Leak::Breach("exhaust_processes")),
        "it was seen",
    ),
    ("exhaust_disk", In(Leak::Breach("after")), "it was seen"),
    (
        "exhaust_disk",
        In(Leak::Unfinished("after")),
        "a plain tool after it",
    ),
    ("exhaust_output", Of(Fault::KeepsTooMuch), "2097152 bytes"),
    (
        "exhaust_output",
        Of(Fault::AnswersNot("after")),
        "a plain tool after it",
    ),
    ("lie_fs_hash", Blind, "FsHash: nothing was found"),
    ("lie_open_fd_count", Blind, "OpenFdCount: nothing was found"),
    ("lie_vmm_api_state", Blind, "VmmApiState: nothing was found"),
    (
        "lie_disk_identity",
        Blind,
        "DiskIdentity: nothing was found",
    ),
    ("lie_guest_nonce", Blind, "GuestNonce: nothing was found"),
    (
        "lie_guest_randomness",
        Blind,
        "GuestRandomness: nothing was found",
    ),
    ("lie_guest_clock", Blind, "GuestClock: nothing was found"),
    ("lie_vmm_identity", Blind, "VmmIdentity: nothing was found"),
    ("lie_guest_memory", Blind, "GuestMemory: nothing was found"),
    (
        "every_reset",
        Of(Fault::DivergesAt(1)),
        "1 of 1 resets failed",
    ),
];

async fn try_one(probe: &str, broken: Broken) -> ProbeReport {
    let report = match broken {
        In(leak) => report_on(Guest::with(leak), probe).await,
        Of(fault) => {
            let plan = plan_of(move || PlayedSandbox::new(Guest::honest()).with(fault));
            // Something has to be reset.
            let names = match probe {
                "every_reset" => vec!["host_files", probe],
                _ => vec![probe],
            };
            all(plan.only(&names).unwrap()).await
        }
        Tool(name) => {
            let plan = plan_of(move || {
                let stub = Guest::honest().stub();
                let ran = async |_: StubRun| ToolOutcome::Exited { code: 0 };
                PlayedSandbox::of(stub.with_tool(name, ran))
            });
            all(plan.only(&[probe]).unwrap()).await
        }
        Blind => {
            let blind = PlayedSubstrate { finds: false };
            let plan = plan(Guest::honest()).with_substrate(blind);
            all(plan.only(&[probe]).unwrap()).await
        }
    };
    assert!(report.is_breached() && !report.is_passed(), "{report:?}");
    report.probe(probe).unwrap().clone()
}

#[tokio::test]
async fn each_probe_fails_where_its_breach_is_there() {
    for (probe, broken, expected) in BREACHES {
        let report = try_one(probe, *broken).await;
        let Verdict::Failed { evidence } = &report.verdict else {
            panic!("{report:?}");
        };
        assert!(
            evidence.iter().any(|piece| piece.contains(expected)),
            "{probe}: {evidence:?}"
        );
        assert!(evidence.len() <= 8, "{probe}: {evidence:?}");
        for piece in evidence {
            assert!(!piece.chars().any(char::is_control), "{probe}: {piece:?}");
        }
    }
}

#[test]
fn there_is_a_breach_for_each_probe() {
    let named: BTreeSet<&str> = BREACHES.iter().map(|(probe, ..)| *probe).collect();
    let all: BTreeSet<&str> = probes().map(|probe| probe.name).collect();
    assert_eq!(named, all);
}

#[tokio::test]
async fn a_marker_of_one_channel_fails_no_other_and_ends_the_dispatches_early() {
    let report = report_on(Guest::with(Leak::Marker("file")), "markers").await;
    for probe in &report.probes {
        match &probe.verdict {
            Verdict::Failed { evidence } if probe.name == "marker_file" => {
                assert!(evidence[0].starts_with("dispatch 1: chv-"), "{evidence:?}");
                let count = evidence.last().unwrap();
                assert_eq!(count, "8 of 9 dispatches found it");
            }
            Verdict::Skipped { reason } => {
                assert!(reason.contains("enough markers were found"), "{reason}");
            }
            _ => panic!("{probe:?}"),
        }
    }
}

#[tokio::test]
async fn a_clock_and_memory_that_vary_a_little_are_no_breach() {
    for leak in [Leak::ClockAhead(3), Leak::ClockAhead(-3)] {
        let report = report_on(Guest::with(leak), "markers").await;
        assert!(report.is_passed(), "{report:?}");
    }
}

#[tokio::test]
async fn a_lie_before_the_boot_has_to_keep_the_sandbox_from_booting() {
    let telling = Telling {
        fault: None,
        moment: Moment::BeforeBoot,
        told: Ok(()),
    };
    let plan = plan(Guest::honest()).with_substrate(telling);
    let report = all(plan.only(&["lie_guest_memory"]).unwrap()).await;
    let verdict = &report.probe("lie_guest_memory").unwrap().verdict;
    assert!(verdict.is_failed(), "{verdict:?}");
}

#[tokio::test]
async fn a_sandbox_that_takes_tools_after_a_lie_was_found_fails() {
    let telling = Telling {
        fault: Some(Fault::TakesToolsWhenHalted),
        moment: Moment::BeforeReset,
        told: Ok(()),
    };
    let plan = plan(Guest::honest()).with_substrate(telling);
    let report = all(plan.only(&["lie_fs_hash"]).unwrap()).await;
    let Verdict::Failed { evidence } = &report.probe("lie_fs_hash").unwrap().verdict else {
        panic!("{report:?}");
    };
    assert_eq!(evidence[1], "a tool was taken after that");
}
