//! One event, as a value.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::broadcast::Weight;
use crate::sanitize;

/// How long each text of an event may be, in characters.
const MAX_TEXT: usize = 4096;

/// Something that happened in a VMM. A hint, never state: events get lost, and a call that fails makes none.
///
/// Its texts are made [lines](crate::sanitize::line) of at most 4,096 characters.
///
/// Seen from v51.2 to v53.0: source `vmm` with `starting` and `shutdown` (the VMM often exits before this one is out);
/// source `vm` with `booting`, `booted`, `pausing`, `paused`, `resuming`, `resumed`, `snapshotting`, `snapshotted`
/// (before the files are written), `restoring`, `restored`, `resizing`, `resized`, `rebooting`, `rebooted`, `shutdown`,
/// `deleted`; and the VM's devices as sources of their own.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct MonitorEvent {
    /// The time since the start of the VMM process.
    #[serde(deserialize_with = "timestamp")]
    pub timestamp: Duration,
    /// The part that the event is about: `vm`, `vmm` or a device.
    pub source: String,
    /// The event's name: `booted`.
    pub event: String,
    /// Further facts. Empty for most events.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub properties: BTreeMap<String, String>,
}

fn timestamp<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    #[derive(Deserialize)]
    struct Timestamp {
        secs: u64,
        nanos: u32,
    }
    let Timestamp { secs, nanos } = Timestamp::deserialize(deserializer)?;
    // Unlike `Duration::new`, this can't overflow whatever the VMM says.
    Ok(Duration::from_secs(secs).saturating_add(Duration::from_nanos(nanos.into())))
}

fn null_is_empty<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl MonitorEvent {
    /// The event with texts that are safe to show.
    pub(super) fn sanitized(self) -> MonitorEvent {
        let line = |text: &str| sanitize::line(text, MAX_TEXT);
        let properties = self.properties.iter();
        MonitorEvent {
            timestamp: self.timestamp,
            source: line(&self.source),
            event: line(&self.event),
            properties: properties
                .map(|(name, value)| (line(name), line(value)))
                .collect(),
        }
    }
}

impl Weight for MonitorEvent {
    fn weight(&self) -> usize {
        let properties = self.properties.iter();
        let properties: usize = properties
            // Each entry has two strings and its share of a node.
            .map(|(name, value)| 4 * size_of::<String>() + name.len() + value.len())
            .sum();
        size_of::<MonitorEvent>() + self.source.len() + self.event.len() + properties
    }
}
