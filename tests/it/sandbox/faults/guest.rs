//! A guest that gives no answer, or a wrong one, to each frame of the channel and to each frame that opens a
//! connection.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chv_sandbox::guest::frame::encode;
use chv_sandbox::guest::protocol::{ErrorEvent, Frame, Opened};
use chv_sandbox::guest::stand_in::{Behaviour, Intercept};
use chv_sandbox::sandbox::{ToolInvocation, TransferOptions};
use serde_json::json;

use super::*;

/// The bytes that come instead of the answer to a frame.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Nothing,
    Garbage,
    HalfAFrame,
    NoLength,
    TooLong,
    AnotherAnswer,
    HostsOwnFrame,
    Error,
}

use Fault::*;

const FAULTS: [Fault; 8] = [
    Nothing,
    Garbage,
    HalfAFrame,
    NoLength,
    TooLong,
    AnotherAnswer,
    HostsOwnFrame,
    Error,
];

impl Fault {
    fn bytes(self, asked: &Frame) -> Vec<u8> {
        match self {
            Nothing => Vec::new(),
            Garbage => b"\0\0\0\x08{\"type\":".to_vec(),
            HalfAFrame => b"\0\0\x01\0{\"type\":\"Hello\"".to_vec(),
            NoLength => vec![0; 4],
            TooLong => vec![0xff; 64],
            AnotherAnswer => encode(&Frame::Opened(Opened {})).unwrap(),
            HostsOwnFrame => encode(asked).unwrap(),
            Error => {
                let code = "SANDBOX_VSOCK_PROTOCOL_ERROR".to_owned();
                let message = "\x1b[2Jthe guest is not well".to_owned();
                encode(&Frame::ErrorEvent(ErrorEvent { code, message })).unwrap()
            }
        }
    }
}

/// A guest that answers one type of frame with a fault, once [`begin`](Faulty::begin) was called.
struct Faulty {
    stand: Stand,
    now: Arc<AtomicBool>,
}

impl Faulty {
    async fn new(vmms: Vmms, asked: &'static str, fault: Fault) -> Faulty {
        let stand = Stand::new(vmms, true).await;
        let now = Arc::<AtomicBool>::default();
        let is_now = Arc::clone(&now);
        let intercept: Intercept = Arc::new(move |frame| {
            let meant = frame.name() == asked && is_now.load(Ordering::Acquire);
            meant.then(|| fault.bytes(frame))
        });
        stand.scene.guest.behave(Behaviour::Intercepted(intercept));
        Faulty { stand, now }
    }

    fn begin(&self) {
        self.now.store(true, Ordering::Release);
    }
}

type Cell = (&'static str, Fault);

fn cells(asked: &[&'static str]) -> Vec<(Vmms, Cell)> {
    let each = asked.iter();
    let cells = each.flat_map(|asked| FAULTS.map(|fault| (*asked, fault)));
    with_vmms(cells.collect())
}

/// Each frame that a host sends when a VM comes up meets each fault: neither the boot nor the reset passes.
fn at_each_frame(of_a_reset: bool) {
    try_all(cells(&["Hello", "Renew", "GuestQuery"]), async |cell| {
        let (vmms, (asked, fault)) = cell;
        let faulty = Faulty::new(vmms, asked, fault).await;
        let sandbox = &faulty.stand.sandbox;
        if of_a_reset {
            boot_in_time(sandbox).await;
        }
        faulty.begin();
        let said = match of_a_reset {
            true => in_time(&cell, sandbox.reset()).await.map(drop),
            false => in_time(&cell, sandbox.boot()).await.map(drop),
        };
        assert!(said.is_err(), "{cell:?}: it is done without an answer");
        faulty.stand.stands(&cell, said).await;
    });
}

#[test]
fn at_each_frame_of_a_boot() {
    at_each_frame(false);
}

#[test]
fn at_each_frame_of_a_reset() {
    at_each_frame(true);
}

#[test]
fn at_a_tool_a_stream_and_each_transfer() {
    let asked = ["ToolDispatch", "OpenRun", "OpenPush", "OpenPull"];
    try_all(cells(&asked), async |cell| {
        let (vmms, (asked, fault)) = cell;
        let faulty = Faulty::new(vmms, asked, fault).await;
        let stand = faulty.stand;
        boot_in_time(&stand.sandbox).await;
        faulty.now.store(true, Ordering::Release);
        let tool = ToolInvocation::new("echo", json!({ "message": "lost" })).with_deadline(SHORT);
        let local = stand.scene.path("local");
        let options = TransferOptions::default();
        let said = match asked {
            "ToolDispatch" => in_time(&cell, stand.sandbox.execute_tool(tool))
                .await
                .map(drop),
            "OpenRun" => {
                let run = async {
                    let mut started = stand.sandbox.start(tool).await?;
                    started.wait().await.map(drop)
                };
                in_time(&cell, run).await
            }
            "OpenPush" => {
                fs::write(&local, "bytes").unwrap();
                in_time(&cell, stand.sandbox.push(&local, "in", &options))
                    .await
                    .map(drop)
            }
            _ => in_time(&cell, stand.sandbox.pull("in", &local, &options))
                .await
                .map(drop),
        };
        assert!(said.is_err(), "{cell:?}: it is done without an answer");
        if asked == "OpenPull" {
            assert!(
                !local.exists(),
                "{cell:?}: something is left of the transfer"
            );
        }
        // The next reset is verified: the fault was the old guest's, and the reset brings another.
        faulty.now.store(false, Ordering::Release);
        let reset = in_time(&cell, stand.sandbox.reset()).await;
        assert_no_soft_pass(&cell, &reset);
        stand.stands(&cell, reset).await;
    });
}

/// Nothing listens on the guest's port, or nothing answers there.
#[test]
fn without_a_channel() {
    let cells = with_vmms(vec![
        (true, false),
        (true, true),
        (false, false),
        (false, true),
    ]);
    try_all(cells, async |cell| {
        let (vmms, (silent, at_reset)) = cell;
        let behaviour = match silent {
            true => Behaviour::Silent,
            false => Behaviour::NoListener,
        };
        let stand = Stand::new(vmms, true).await;
        if !at_reset {
            stand.scene.guest.behave(behaviour);
            let said = in_time(&cell, stand.sandbox.boot()).await;
            assert!(said.is_err(), "{cell:?}");
            return stand.stands(&cell, said).await;
        }
        boot_in_time(&stand.sandbox).await;
        stand.scene.guest.behave(behaviour.clone());
        for vmm in stand.stage.running() {
            vmm.player.guest().behave(behaviour.clone());
        }
        let said = in_time(&cell, stand.sandbox.reset()).await;
        assert!(said.is_err(), "{cell:?}");
        stand.stands(&cell, said).await;
    });
}
