//! Config drift: the differences between the configuration that was sent with `vm.create` and the one that the VMM
//! stored, which `vm.info` tells ([`ConfigDrift`]).
//!
//! Only the fields that were sent are compared, since a server adds fields of its own. `null` is the same as absent.
//! Values are compared as they are on the wire, except for the addresses of a network device, which every supported
//! release writes in its own form. Two fields of an older name are stored under their new one ([`RENAMED`]).

use std::fmt;
use std::net::IpAddr;

use serde_json::Value;

use crate::sanitize;

/// Fields that v53.0 takes under the first name and stores under the second (`PlatformConfig` in
/// `vmm/src/vm_config.rs`).
const RENAMED: [(&str, &str); 2] = [
    ("/platform/serial_number", "system_serial_number"),
    ("/platform/uuid", "system_uuid"),
];

/// How much of a stored value is shown, in characters: the VMM chose it.
const SHOWN: usize = 1024;

/// The differences between a configuration that was sent and the one that the VMM stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConfigDrift {
    /// The differences, in the order of their pointers. Empty if the VMM stored all as it was sent.
    pub differences: Vec<ConfigDifference>,
}

/// A field whose stored value isn't the one that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConfigDifference {
    /// The JSON pointer in the configuration: `/disks/0/backing_files`.
    pub pointer: String,
    /// The value that was sent.
    pub sent: Value,
    /// The value that is stored. None if the VMM dropped the field.
    pub stored: Option<Value>,
}

impl ConfigDrift {
    /// Whether all of the configuration was stored as it was sent.
    pub fn is_exact(&self) -> bool {
        self.differences.is_empty()
    }

    /// Compares the body of `vm.create` with the answer to `vm.info`.
    pub(super) fn compare(
        sent: &[u8],
        info: Option<&Value>,
    ) -> Result<ConfigDrift, serde_json::Error> {
        let sent: Value = serde_json::from_slice(sent)?;
        let stored = info.and_then(|info| info.get("config"));
        let mut drift = ConfigDrift::default();
        drift.add("", &sent, stored);
        Ok(drift)
    }

    fn add(&mut self, pointer: &str, sent: &Value, stored: Option<&Value>) {
        match (sent, stored) {
            (Value::Null, _) => {}
            (Value::Object(sent), Some(Value::Object(stored))) => {
                for (key, value) in sent {
                    let key_in_pointer = key.replace('~', "~0").replace('/', "~1");
                    let below = format!("{pointer}/{key_in_pointer}");
                    let renamed = || RENAMED.iter().find(|(pointer, _)| *pointer == below);
                    let stored = stored
                        .get(key)
                        .or_else(|| renamed().and_then(|(_, key)| stored.get(*key)));
                    self.add(&below, value, stored);
                }
            }
            (Value::Array(sent), Some(Value::Array(stored))) if sent.len() >= stored.len() => {
                for (index, value) in sent.iter().enumerate() {
                    self.add(&format!("{pointer}/{index}"), value, stored.get(index));
                }
            }
            (sent, Some(stored)) if sent == stored || same_address(pointer, sent, stored) => {}
            (sent, stored) => self.differences.push(ConfigDifference {
                pointer: pointer.to_owned(),
                sent: sent.clone(),
                stored: stored.filter(|stored| !stored.is_null()).cloned(),
            }),
        }
    }
}

/// Whether two texts of a network device are one address: `AA:BB:..` is stored as `aa:bb:..`, `2001:0DB8::1` as
/// `2001:db8::1`.
fn same_address(pointer: &str, sent: &Value, stored: &Value) -> bool {
    let (Some(sent), Some(stored)) = (sent.as_str(), stored.as_str()) else {
        return false;
    };
    let ip = |text: &str| text.parse::<IpAddr>();
    let field = pointer.strip_prefix("/net/");
    match field.and_then(|field| field.split_once('/')) {
        Some((_, "mac" | "host_mac")) => sent.eq_ignore_ascii_case(stored),
        Some((_, "ip" | "mask")) => ip(sent).is_ok() && ip(sent) == ip(stored),
        _ => false,
    }
}

impl fmt::Display for ConfigDrift {
    /// The differences, parted by semicolons.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, difference) in self.differences.iter().enumerate() {
            let before = if index == 0 { "" } else { "; " };
            write!(f, "{before}{difference}")?;
        }
        Ok(())
    }
}

impl fmt::Display for ConfigDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ConfigDifference { pointer, sent, .. } = self;
        match &self.stored {
            None => write!(f, "{pointer} was dropped, sent as {sent}"),
            Some(stored) => {
                let stored = sanitize::line(&stored.to_string(), SHOWN);
                write!(f, "{pointer} was sent as {sent} and stored as {stored}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_was_sent_is_compared() {
        fn check(sent: Value, stored: Value, expected: &[&str]) {
            let info = json!({ "config": stored, "state": "Created" });
            let drift = ConfigDrift::compare(sent.to_string().as_bytes(), Some(&info)).unwrap();
            let said: Vec<String> = drift
                .differences
                .iter()
                .map(ConfigDifference::to_string)
                .collect();
            assert_eq!(said, expected, "{sent} in {info}");
            assert_eq!(drift.is_exact(), expected.is_empty());
        }
        check(json!({}), json!({ "cpus": { "boot_vcpus": 1 } }), &[]);
        check(json!({ "rng": null }), json!({}), &[]);
        check(
            json!({ "net": [{ "mac": "AA:bb:CC:dd:EE:ff", "ip": "2001:0DB8::0001" }] }),
            json!({ "net": [{ "mac": "aa:bb:cc:dd:ee:ff", "ip": "2001:db8::1" }] }),
            &[],
        );
        check(
            json!({ "net": [{ "mac": "aa:bb:cc:dd:ee:ff", "ip": "10.0.0.1" }] }),
            json!({ "net": [{ "mac": "aa:bb:cc:dd:ee:fe", "ip": "10.0.0.2" }] }),
            &[
                "/net/0/ip was sent as \"10.0.0.1\" and stored as \"10.0.0.2\"",
                "/net/0/mac was sent as \"aa:bb:cc:dd:ee:ff\" and stored as \"aa:bb:cc:dd:ee:fe\"",
            ],
        );
        check(
            json!({ "platform": { "uuid": "a" } }),
            json!({ "platform": { "system_uuid": "a" } }),
            &[],
        );
        check(
            json!({ "memory": { "size": 1 } }),
            json!({ "memory": { "size": 1, "thp": true } }),
            &[],
        );
        check(
            json!({ "memory": { "size": 1, "a/b": true } }),
            json!({ "memory": { "size": 2 } }),
            &[
                "/memory/a~1b was dropped, sent as true",
                "/memory/size was sent as 1 and stored as 2",
            ],
        );
        check(
            json!({ "disks": [{ "path": "/a" }, { "path": "/b" }] }),
            json!({ "disks": [{ "path": "/a", "id": null }] }),
            &["/disks/1 was dropped, sent as {\"path\":\"/b\"}"],
        );
        check(
            json!({ "disks": [] }),
            json!({ "disks": [{}] }),
            &["/disks was sent as [] and stored as [{}]"],
        );
        check(
            json!({ "net": [] }),
            json!({ "net": null }),
            &["/net was dropped, sent as []"],
        );
        check(
            json!({ "vsock": {} }),
            json!({}),
            &["/vsock was dropped, sent as {}"],
        );
    }
}
