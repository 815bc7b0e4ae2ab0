//! Several guests of one snapshot: none repeats another's random numbers, and all know the time.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use chv_sandbox::sandbox::{Sandbox, ToolInvocation};
use serde_json::json;

use super::traces::deadline;
use super::{Stage, Stopwatch};

/// The number of guests that are compared.
const CLONES: usize = 4;

/// Random bytes from two interfaces and the time in seconds, as the guest's first tool reads them.
const LOOK: &str =
    "cat /proc/sys/kernel/random/uuid; head -c 16 /dev/urandom | od -An -tx1; date +%s";

pub(super) async fn share_no_randomness_and_know_the_time(stage: &Stage) {
    let watch = Stopwatch::start();
    let sandbox = stage.sandbox();
    sandbox.boot().await.unwrap();
    let mut seen = BTreeSet::new();
    let mut furthest = Duration::ZERO;
    for n in 0..CLONES {
        if n > 0 {
            sandbox.reset().await.unwrap();
        }
        let before = unix_time();
        let invocation =
            ToolInvocation::new("sh", json!({ "script": LOOK })).with_deadline(deadline());
        let execution = sandbox.execute_tool(invocation).await.unwrap();
        let after = unix_time();
        assert!(execution.is_success(), "{execution:?}");
        let stdout = execution.stdout.text();
        let lines: Vec<&str> = stdout.lines().map(str::trim).collect();
        let [uuid, bytes, seconds] = lines[..] else {
            panic!("{stdout:?}")
        };
        for random in [uuid, bytes] {
            assert!(random.len() >= 36, "{random:?}");
            assert!(seen.insert(random.to_owned()), "{random:?} came twice");
        }
        // The guest prints whole seconds, so its time may be up to a second less than when it was read.
        let guest = Duration::from_secs(seconds.parse().unwrap());
        let too_early = before.saturating_sub(guest + Duration::from_secs(1));
        furthest = furthest.max(too_early).max(guest.saturating_sub(after));
    }
    assert!(furthest <= Duration::from_millis(50), "{furthest:?}");
    sandbox.shutdown().await;
    watch.say(format!(
        "{CLONES} guests of one snapshot shared no random bytes and knew the time"
    ));
}

fn unix_time() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
}
