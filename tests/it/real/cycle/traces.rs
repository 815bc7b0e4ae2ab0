//! Traces that a tool leaves in its guest, and how a later tool looks for them.

use std::time::Duration;

use chv_sandbox::sandbox::{Reset, ResetOutcome, Sandbox, ToolInvocation, ToolOutcome};
use serde::Deserialize;
use serde_json::{Value, json};

use super::patient;

/// The content of the file that the tool leaves.
pub(super) const TOKEN: &str = "left behind by a tool, and to be found on the disk";

/// The program that the tool leaves running.
pub(super) const PROCESS: &str = "tail";

/// The memory that the tool leaves in use, in KiB.
pub(super) const MEMORY_KIB: u64 = 8 * 1024;

/// How much the guest's use of memory varies between two looks, in KiB.
pub(super) const SLACK_KIB: u64 = 3 * 1024;

/// Leaves a process that holds memory, a process that has a FIFO open, and a file. The file is made last, when the
/// memory is in use.
pub(super) fn leave() -> Value {
    let bytes = MEMORY_KIB * 1024;
    script(&format!(
        "mkfifo /tmp/answers
         ( (head -c {bytes} /dev/zero; echo '{TOKEN}' > /tmp/left; sleep 100000 <> /tmp/answers) | {PROCESS} -c {bytes} ) \
         >/dev/null 2>&1 </dev/null &
         until [ -s /tmp/left ]; do sleep 0.05; done"
    ))
}

/// Fills the disk, and prints the size of the file in KiB.
pub(super) fn fill() -> Value {
    script("dd if=/dev/zero of=/tmp/fill bs=1M; sync && du -k /tmp/fill | cut -f1")
}

/// Looks for all three traces. A tool doesn't see the processes of other tools, but it can write to a FIFO that one of
/// them has open.
fn look() -> Value {
    script(
        r#"file=false; [ -e /tmp/left ] && file=true
         process=false; [ -p /tmp/answers ] && timeout 5 sh -c ': > /tmp/answers' && process=true
         available=$(grep MemAvailable /proc/meminfo | tr -dc 0-9)
         echo "{\"file\": $file, \"process\": $process, \"available_kib\": $available}""#,
    )
}

fn script(text: &str) -> Value {
    json!({ "script": text })
}

/// The traces that were found in a guest.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Traces {
    file: bool,
    process: bool,
    available_kib: u64,
}

impl Traces {
    pub(super) async fn look(sandbox: &dyn Sandbox) -> Traces {
        let found = run(sandbox, look()).await;
        serde_json::from_str(&found).unwrap_or_else(|error| panic!("{error}: {found:?}"))
    }

    /// Checks that a reset brings this guest back, which was clean: leaves all three traces, resets the sandbox with
    /// verification, and finds none of them.
    pub(super) async fn assert_comes_back(&self, sandbox: &dyn Sandbox) -> ResetOutcome {
        run(sandbox, leave()).await;
        Traces::look(sandbox).await.assert_left(self);
        let reset = sandbox.reset().await;
        let Reset::Verified(outcome) = reset.unwrap_or_else(|error| panic!("{error:?}")) else {
            panic!("nothing was verified");
        };
        assert!(outcome.state.verification_passed);
        Traces::look(sandbox).await.assert_gone(self);
        outcome
    }

    /// Checks that all three traces are there, compared with a clean guest.
    fn assert_left(&self, clean: &Traces) {
        assert!(self.file && self.process, "{self:?}");
        assert!(
            self.available_kib + MEMORY_KIB < clean.available_kib + SLACK_KIB,
            "{self:?}, clean it was {clean:?}"
        );
    }

    /// Checks that no trace is there, compared with a clean guest.
    fn assert_gone(&self, clean: &Traces) {
        assert!(!self.file && !self.process, "{self:?}");
        assert!(
            self.available_kib + SLACK_KIB > clean.available_kib,
            "{self:?}, clean it was {clean:?}"
        );
    }
}

/// Runs the tool `sh` and returns its standard output.
async fn run(sandbox: &dyn Sandbox, params: Value) -> String {
    let invocation = ToolInvocation::new("sh", params).with_deadline(deadline());
    let execution = sandbox.execute_tool(invocation).await.unwrap();
    assert_eq!(
        execution.outcome,
        ToolOutcome::Exited { code: 0 },
        "the image needs the tool `sh`: {}",
        execution.stderr.text()
    );
    execution.stdout.text().into_owned()
}

pub(super) fn deadline() -> Duration {
    patient(Duration::from_secs(5))
}
