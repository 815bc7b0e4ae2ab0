//! A scripted guest in the place of `sh`: it reads from a script which probe the script belongs to, and answers as the
//! script would in a guest without leaks, except for the leak that it is told to have.

use std::collections::HashMap;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::{Arc, Mutex};

use chv_sandbox::sandbox::{StubRun, StubSandbox, ToolOutcome};
use jiff::Timestamp;
use uuid::Uuid;

/// A leak of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leak {
    /// The script itself sees a marker through this channel.
    Marker(&'static str),
    /// Each dispatch leaves 8 MiB in use.
    Memory,
    /// Each dispatch leaves 100 files open.
    OpenFiles,
    /// The clock is this many seconds ahead.
    ClockAhead(i64),
    /// The clock goes back by a second with each dispatch.
    ClockBack,
    /// The random pool is the same each time.
    Random,
    /// The script of this name breaks into something.
    Breach(&'static str),
    /// The script of this name can't try it.
    Cannot(&'static str),
    /// The script of this name does not come to its end.
    Unfinished(&'static str),
    /// What the script of a time bomb writes appears in the next tool's standard error.
    LateOutput,
    /// The guest takes a result that a tool has written for the tool's own result.
    Forgery,
    /// The guest reports a signal as an exit code.
    SignalAsCode,
    /// Part of an output is lost.
    LostOutput,
}

/// A guest whose state no reset brings back.
#[derive(Clone)]
pub(super) struct Guest {
    leak: Option<Leak>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    dispatches: i64,
    last_marker: Option<String>,
    late: Option<String>,
    /// The script of each probe that was run, by the probe's name.
    scripts: HashMap<String, String>,
}

/// The output of a script, and how the tool ends.
struct Answer {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    outcome: ToolOutcome,
}

impl Guest {
    pub(super) fn honest() -> Guest {
        Guest {
            leak: None,
            state: Arc::default(),
        }
    }

    pub(super) fn with(leak: Leak) -> Guest {
        Guest {
            leak: Some(leak),
            ..Guest::honest()
        }
    }

    /// The script of each probe that was run, by the probe's name.
    pub(super) fn scripts(&self) -> HashMap<String, String> {
        self.state.lock().unwrap().scripts.clone()
    }

    /// A sandbox that has this guest's `sh`.
    pub(super) fn stub(&self) -> StubSandbox {
        let guest = self.clone();
        StubSandbox::default().with_tool("sh", move |run| guest.clone().sh(run))
    }

    async fn sh(self, mut run: StubRun) -> ToolOutcome {
        let script = run.params()["script"].as_str().unwrap().to_owned();
        let answer = tokio::task::spawn_blocking(move || self.answer(&script));
        let answer = answer.await.unwrap();
        run.stdout(answer.stdout).await;
        run.stderr(answer.stderr).await;
        answer.outcome
    }

    fn answer(&self, script: &str) -> Answer {
        let name = script.lines().next().unwrap();
        let name = name.strip_prefix("# chv-sandbox redteam: ").unwrap();
        let mut state = self.state.lock().unwrap();
        state.scripts.insert(name.to_owned(), script.to_owned());
        if name.starts_with("forged_") {
            return self.run_here(script);
        }
        let mut lines = match name {
            "markers" => self.markers(&mut state, script),
            _ => vec!["tried something".to_owned()],
        };
        if self.leak.is_some_and(|leak| match leak {
            Leak::Breach(of) => of == name,
            _ => false,
        }) {
            lines.push("breach something it was seen".to_owned());
        }
        if self.leak.is_some_and(|leak| match leak {
            Leak::Cannot(of) => of == name,
            _ => false,
        }) {
            lines.push("cannot something the image has no nc".to_owned());
        }
        let ends = !self.leak.is_some_and(|leak| match leak {
            Leak::Unfinished(of) => of == name,
            _ => false,
        });
        if ends {
            lines.push("end".to_owned());
        }
        let token = variable(script, "token");
        let mut stdout: Vec<u8> = lines
            .iter()
            .flat_map(|line| format!("{token} {line}\n").into_bytes())
            .collect();
        if name == "exhaust_output" {
            stdout.resize(3 << 20, b'x');
        }
        let mut stderr = Vec::new();
        match (name, self.leak) {
            ("time_bomb_output", Some(Leak::LateOutput)) => {
                state.late = Some(variable(script, "late").to_owned());
            }
            ("time_bomb_wait", _) => stderr.extend(state.late.take().unwrap_or_default().bytes()),
            _ => {}
        }
        Answer {
            stdout,
            stderr,
            outcome: ToolOutcome::Exited { code: 0 },
        }
    }

    fn markers(&self, state: &mut State, script: &str) -> Vec<String> {
        let n = state.dispatches;
        state.dispatches += 1;
        let marker = variable(script, "marker").to_owned();
        let before = state.last_marker.replace(marker);
        let mut lines = Vec::new();
        let (mut available, mut open, mut clock) = (100_000, 500, Timestamp::now().as_second());
        let mut random = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        match self.leak {
            Some(Leak::Marker(channel)) => {
                lines.extend(before.map(|before| format!("breach {channel} {before} is there")));
            }
            Some(Leak::Memory) => available -= n * 8192,
            Some(Leak::OpenFiles) => open += n * 100,
            Some(Leak::ClockAhead(seconds)) => clock += seconds,
            Some(Leak::ClockBack) => clock += 3 - n,
            Some(Leak::Random) => random = "ab".repeat(32),
            _ => {}
        }
        for channel in [
            "file",
            "process",
            "memory",
            "descriptor",
            "environment",
            "clock",
            "random",
        ] {
            lines.push(format!("tried {channel}"));
        }
        lines.push(format!("say available {available}"));
        lines.push(format!("say open {open}"));
        lines.push(format!("say clock {clock}"));
        lines.push(format!("say random {random}"));
        lines
    }

    /// Runs a script that writes forgeries with this machine's `sh`.
    fn run_here(&self, script: &str) -> Answer {
        let output = Command::new("sh").args(["-c", script]).output().unwrap();
        let (mut stdout, stderr) = (output.stdout, output.stderr);
        let outcome = match (output.status.code(), output.status.signal()) {
            (Some(_), _) if self.leak == Some(Leak::Forgery) => ToolOutcome::Exited { code: 0 },
            (Some(code), _) => ToolOutcome::Exited { code },
            (None, signal) if self.leak == Some(Leak::SignalAsCode) => ToolOutcome::Exited {
                code: 128 + signal.unwrap(),
            },
            (None, signal) => ToolOutcome::Signalled {
                signal: signal.unwrap(),
            },
        };
        if self.leak == Some(Leak::LostOutput) {
            stdout.truncate(9);
        }
        Answer {
            stdout,
            stderr,
            outcome,
        }
    }
}

/// The value that a script sets a variable to.
fn variable<'a>(script: &'a str, name: &str) -> &'a str {
    let begin = format!("{name}='");
    let mut lines = script.lines();
    let value = lines.find_map(|line| line.strip_prefix(&begin));
    value.unwrap().trim_end_matches('\'')
}
