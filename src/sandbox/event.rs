//! What a sandbox tells those who listen.

use std::fmt;
use std::sync::Arc;

use super::{Error, ResetOutcome, SandboxState};
use crate::broadcast::Weight;
use crate::causes::Causes;
use crate::vsock::ChannelEventKind;
use crate::{vmm, vsock};

/// Something that happened in a sandbox.
///
/// Shown as text it is one line. An error is shown with its causes; apart from what those quote, the line holds nothing that
/// a guest wrote, so a list of many stays small.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The sandbox stands somewhere else.
    State(SandboxState),
    /// A reset ended; whether it passed stands in its state.
    Reset(Arc<ResetOutcome>),
    /// A raw frame of the guest with its channel, an answer that came too late, an error of the guest, or the
    /// end of a channel.
    Channel(vsock::ChannelEvent),
    /// A VMM was started for the sandbox's boot, with these layers of a boundary around it.
    Boundary(Vec<vmm::LayerReport>),
    /// The VMM says something happened. A hint, never a state.
    Vmm(vmm::Event),
    /// The VMM ended.
    VmmEnded(vmm::Ended),
    /// A pool handed out a sandbox.
    Acquired {
        /// Its number in the pool.
        sandbox: u64,
    },
    /// A sandbox was given back to its pool, and is reset or discarded.
    Released {
        /// Its number in the pool.
        sandbox: u64,
    },
    /// A spare waits for the next reset.
    SpareReady,
    /// A spare could not be prepared. It is tried again after a while; a reset that finds no spare takes another VMM.
    SpareFailed(Error),
    /// The VMM of a spare ended while it waited. Another spare is made.
    SpareEnded(vmm::Ended),
    /// A spare was not what it was when it was prepared, or could not be resumed: it is killed, and the reset goes on without
    /// it.
    SpareRefused(Error),
    /// The VMM gave no answer in time. It was killed with its guest, and another one is to serve.
    VmmGivenUp(Error),
    /// A file of the golden snapshot that the VM goes on to read was opened for writing, changed or replaced. The sandbox
    /// takes no tool until it is reset.
    HoldLost,
    /// What is left of a sandbox that diverged was kept there.
    EvidenceKept(std::path::PathBuf),
    /// Events came faster than they could be passed on, or held more bytes than are kept, and this many of them are gone
    /// for good.
    Lost {
        /// Whose they were: `vmm` or `channel`.
        source: &'static str,
        /// How many.
        count: u64,
    },
}

impl Weight for Event {
    fn weight(&self) -> usize {
        let held = match self {
            Event::Channel(event) => event.weight(),
            Event::Vmm(event) => event.weight(),
            Event::VmmEnded(ended) | Event::SpareEnded(ended) => ended.log_tail.len(),
            // Of this process's own making, and bounded: some KiB at most.
            _ => 0,
        };
        size_of::<Event>() + held
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::State(SandboxState::Failed { error }) => {
                write!(f, "state failed: {}", Causes(error))
            }
            Event::State(SandboxState::NeedsReset { reason }) => {
                write!(f, "no tool until a reset: {reason}")
            }
            Event::State(state) => write!(f, "state {state}"),
            Event::Reset(outcome) => {
                let passed = outcome.state.verification_passed;
                let strategy = outcome.report.strategy;
                write!(f, "reset {strategy}, verification passed: {passed}")
            }
            Event::Channel(event) => {
                let channel = event.origin.channel;
                match &event.kind {
                    ChannelEventKind::Frame(frame) => write!(f, "frame {}", frame.name())?,
                    ChannelEventKind::LateArrival(frame) => write!(f, "late {}", frame.name())?,
                    ChannelEventKind::GuestError(_) => f.write_str("error of the guest")?,
                    ChannelEventKind::Closed(reason) => write!(f, "closed, {}", reason.code())?,
                }
                write!(f, " on channel {channel}")
            }
            Event::Boundary(layers) => {
                f.write_str("boundary of the VMM")?;
                let mut separator = ": ";
                for layer in layers {
                    write!(f, "{separator}{layer}")?;
                    separator = "; ";
                }
                Ok(())
            }
            Event::Vmm(event) => write!(f, "VMM event {:?} {:?}", event.source, event.event),
            Event::VmmEnded(ended) => write!(f, "VMM {} ended, {}", ended.pid, ended.exit),
            Event::Acquired { sandbox } => write!(f, "sandbox {sandbox} acquired"),
            Event::Released { sandbox } => write!(f, "sandbox {sandbox} released"),
            Event::SpareReady => f.write_str("a spare waits"),
            Event::SpareFailed(error) => write!(f, "no spare: {}", Causes(error)),
            Event::SpareEnded(ended) => {
                write!(f, "the VMM {} of a spare ended, {}", ended.pid, ended.exit)
            }
            Event::SpareRefused(error) => write!(f, "a spare is not used: {}", Causes(error)),
            Event::VmmGivenUp(error) => write!(f, "the VMM was given up: {}", Causes(error)),
            Event::HoldLost => f.write_str("a golden file that the VM reads was not left alone"),
            Event::EvidenceKept(folder) => write!(f, "evidence kept in {}", folder.display()),
            Event::Lost { source, count } => write!(f, "{count} events of the {source} lost"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::machine::{self, DiskRole};
    use crate::overlay;

    #[test]
    fn an_error_is_shown_with_its_causes() {
        let error = Error::ResetFailed(Arc::new(machine::Error::Disk {
            role: DiskRole::Overlay,
            source: overlay::Error::Io {
                operation: "open",
                path: "/overlay".into(),
                source: io::Error::other("no such file"),
            },
        }));
        let causes = "the sandbox could not be reverted: the overlay disk cannot be used: \
                      could not open \"/overlay\": no such file";
        let state = SandboxState::Failed {
            error: error.clone(),
        };
        for (event, before) in [
            (Event::SpareFailed(error.clone()), "no spare: "),
            (Event::SpareRefused(error.clone()), "a spare is not used: "),
            (Event::VmmGivenUp(error), "the VMM was given up: "),
            (Event::State(state), "state failed: "),
        ] {
            assert_eq!(event.to_string(), format!("{before}{causes}"));
        }
    }
}
