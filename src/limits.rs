//! [`TimeLimits`]: how long each step of a sandbox, a machine, a VMM and a channel may take.
//!
//! Every layer reads its limits from the same value, so each default is defined once, and one call of
//! [`TimeLimits::scaled`] gives an emulated guest more time for every step.

use std::fmt;
use std::time::Duration;

use jiff::fmt::friendly::SpanParser;
use serde::{Deserialize, Deserializer, de};

/// Defines [`TimeLimits`] from a list of names, each with its documentation and its default in seconds.
macro_rules! time_limits {
    ($($(#[$doc:meta])+ $name:ident = $seconds:literal;)+) => {
        /// The time limit of each step of a sandbox. Every step has a limit, and every limit can be set.
        ///
        /// In a TOML file these are the keys of the table `[limits]`, and each is a number with its unit:
        /// `boot = "45s"`, `query = "250ms"`, `vmm_transfer = "1m 30s"`.
        ///
        /// No step is waited for longer than [`LONGEST`](Self::LONGEST): a sandbox's configuration refuses a longer
        /// limit, and machines, VMMs and channels that are given one stop waiting after that time.
        ///
        /// ```
        /// use std::time::Duration;
        /// use chv_sandbox::limits::TimeLimits;
        ///
        /// let emulated = TimeLimits::default().scaled(10).tool_grace(Duration::from_secs(5));
        /// assert_eq!(emulated.query, Duration::from_secs(10));
        /// ```
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
        #[serde(deny_unknown_fields, default, expecting = "a table of times, such as { boot = \"45s\" }")]
        #[non_exhaustive]
        pub struct TimeLimits {
            $(
                $(#[$doc])+
                ///
                #[doc = concat!("Default: ", stringify!($seconds), " s.")]
                #[serde(deserialize_with = "time_with_unit")]
                pub $name: Duration,
            )+
        }

        impl Default for TimeLimits {
            fn default() -> Self {
                TimeLimits { $($name: Duration::from_secs($seconds),)+ }
            }
        }

        impl TimeLimits {
            $(
                #[doc = concat!("Sets `", stringify!($name), "`.")]
                #[must_use]
                pub fn $name(self, $name: Duration) -> Self {
                    TimeLimits { $name, ..self }
                }
            )+

            fn map(self, change: impl Fn(Duration) -> Duration) -> Self {
                TimeLimits { $($name: change(self.$name),)+ }
            }

            /// Iterates over the limits, each with its name in a configuration.
            fn named(&self) -> impl Iterator<Item = (&'static str, Duration)> {
                [$((concat!("limits.", stringify!($name)), self.$name),)+].into_iter()
            }
        }
    };
}

time_limits! {
    /// From the boot of a VM to an open channel to its guest, over all attempts at the channel's handshake. When it is
    /// over, the boot fails with the end of the guest's console, and the VM is deleted.
    boot = 30;
    /// One attempt at the vsock handshake. When it expires, another attempt follows, until `boot` or `settle` expires.
    handshake = 5;
    /// After a revert, all requests to the guest together (channel, greeting, renewal, count of descriptors), and then
    /// the VMM's answer about the VM's state. When it expires, that source counts as silent. The revert is then made
    /// once more in another VMM, and a second silence ends the reset as `SANDBOX_RESET_TIMEOUT`.
    settle = 5;
    /// One query to the guest during a cold boot or minting, the greeting included. When it expires, the boot or the
    /// minting fails.
    query = 1;
    /// The time beyond a tool's deadline in which the guest may still answer that it killed the tool. When it expires,
    /// the call fails as `SANDBOX_TOOL_TIMEOUT`, and the sandbox runs no tool until it is reset. May be zero.
    tool_grace = 2;
    /// The wait for the next byte inside a frame from the guest, or for the guest to read the next bytes of a frame. In
    /// a transfer of files, the wait for each piece that the guest reads or sends. When it expires, the channel or the
    /// transfer is closed as `SANDBOX_VSOCK_PARTIAL_FRAME_TIMEOUT`.
    frame_idle = 30;
    /// One whole frame, in either direction. In a transfer of files, the guest's final answer, before which the guest
    /// writes the files to its disk. When it expires, the same happens as with `frame_idle`.
    frame_total = 120;
    /// From the start of a VMM's process to its answer to `vmm.ping`, which usually takes milliseconds. When it is
    /// over, the process is killed, and the start fails.
    vmm_start = 10;
    /// A machine's call that its VMM answers from memory, such as its version. When it expires, the call fails.
    vmm_probe = 5;
    /// A machine's call that creates, boots, pauses, resumes or deletes its VM. When it expires, the caller does not
    /// know whether the VMM did it. A reset then kills the VMM and uses another one; a boot and minting fail.
    vmm_lifecycle = 10;
    /// A machine's snapshot or restore, in which the VMM may read or write all of the guest's memory. When it expires,
    /// the same happens as with `vmm_lifecycle`.
    vmm_transfer = 300;
    /// The first step of a VMM's orderly shutdown, from `vmm.shutdown` to the end of the process. When it expires,
    /// SIGTERM follows. Zero skips the step.
    vmm_shutdown = 5;
    /// The second step, from SIGTERM to the end of the process. When it expires, SIGKILL follows. May be zero.
    vmm_terminate = 3;
    /// From SIGKILL to the end of the process, in which the kernel may have to free much memory. When it expires, the
    /// process is reported as not killed.
    vmm_kill = 10;
}

/// The limits that may be zero.
const MAY_BE_ZERO: [&str; 3] = [
    "limits.tool_grace",
    "limits.vmm_shutdown",
    "limits.vmm_terminate",
];

impl TimeLimits {
    /// The longest that any step is waited for: 24 hours.
    pub const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

    /// Multiplies every limit by `factor`, up to [`LONGEST`](Self::LONGEST). An emulated machine is slower in every
    /// step; a factor of 10 suits it.
    #[must_use]
    pub fn scaled(self, factor: u32) -> Self {
        self.map(|limit| limit.saturating_mul(factor)).capped()
    }

    /// Shortens every limit to at most [`LONGEST`](Self::LONGEST), so that adding it to the present time can't
    /// overflow.
    pub(crate) fn capped(self) -> Self {
        self.map(|limit| limit.min(Self::LONGEST))
    }

    /// Returns the name in a configuration of the first limit that is zero or too long, and the reason.
    pub(crate) fn first_illegal(&self) -> Option<(&'static str, String)> {
        self.named().find_map(|(name, limit)| {
            if limit > Self::LONGEST {
                let hours = Self::LONGEST.as_secs() / 3600;
                return Some((name, format!("is longer than {hours}h")));
            }
            let is_legal = !limit.is_zero() || MAY_BE_ZERO.contains(&name);
            (!is_legal).then(|| (name, "is zero: this step needs some time".to_owned()))
        })
    }
}

/// Reads a time such as `"5s"`. A number without a unit is refused.
fn time_with_unit<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    struct TimeWithUnit;

    impl de::Visitor<'_> for TimeWithUnit {
        type Value = Duration;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(r#"a time with its unit in quotes, such as "5s", "250ms" or "1m 30s""#)
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
            SpanParser::new()
                .parse_unsigned_duration(text)
                .map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
        }
    }

    deserializer.deserialize_str(TimeWithUnit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults() {
        let found: Vec<_> = TimeLimits::default()
            .named()
            .map(|(name, limit)| (name.strip_prefix("limits.").unwrap(), limit.as_secs()))
            .collect();
        let expected = [
            ("boot", 30),
            ("handshake", 5),
            ("settle", 5),
            ("query", 1),
            ("tool_grace", 2),
            ("frame_idle", 30),
            ("frame_total", 120),
            ("vmm_start", 10),
            ("vmm_probe", 5),
            ("vmm_lifecycle", 10),
            ("vmm_transfer", 300),
            ("vmm_shutdown", 5),
            ("vmm_terminate", 3),
            ("vmm_kill", 10),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_factor_scales_every_limit_and_none_beyond_the_longest() {
        let usual = TimeLimits::default();
        let scaled = usual.scaled(7);
        for ((name, before), (_, after)) in usual.named().zip(scaled.named()) {
            assert_eq!(after, before * 7, "{name}");
        }
        for (name, limit) in usual.vmm_kill(Duration::MAX).scaled(u32::MAX).named() {
            assert_eq!(limit, TimeLimits::LONGEST, "{name}");
        }
        assert_eq!(usual.scaled(u32::MAX).first_illegal(), None);
    }

    #[test]
    fn illegal_limits_are_named() {
        let usual = TimeLimits::default();
        let check = |limits: TimeLimits, expected: Option<(&str, &str)>| {
            let found = limits.first_illegal();
            let found = found
                .as_ref()
                .map(|(name, reason)| (*name, reason.as_str()));
            assert_eq!(found, expected, "{limits:?}");
        };
        let zero = Duration::ZERO;
        check(usual, None);
        check(
            usual
                .tool_grace(zero)
                .vmm_shutdown(zero)
                .vmm_terminate(zero),
            None,
        );
        let reason = "is zero: this step needs some time";
        check(usual.query(zero), Some(("limits.query", reason)));
        check(usual.vmm_kill(zero), Some(("limits.vmm_kill", reason)));
        check(usual.settle(TimeLimits::LONGEST), None);
        check(
            usual.settle(TimeLimits::LONGEST + Duration::from_nanos(1)),
            Some(("limits.settle", "is longer than 24h")),
        );
    }

    #[test]
    fn times_are_read_with_their_unit() {
        let check = |text: &str, expected: Option<Duration>| {
            let read = toml::from_str::<TimeLimits>(&format!("boot = {text}"));
            match expected {
                Some(limit) => assert_eq!(read.unwrap().boot, limit, "{text}"),
                None => {
                    let message = read.unwrap_err().message().to_owned();
                    let wanted =
                        r#"expected a time with its unit in quotes, such as "5s", "250ms" or"#;
                    assert!(message.contains(wanted), "{text}: {message}");
                }
            }
        };
        check("'5s'", Some(Duration::from_secs(5)));
        check("'250ms'", Some(Duration::from_millis(250)));
        check("'1m 30s'", Some(Duration::from_secs(90)));
        check("'0s'", Some(Duration::ZERO));
        for refused in [
            "5",
            "0.5",
            "true",
            "[5]",
            "{ secs = 5 }",
            "'5'",
            "''",
            "' '",
            "'-1s'",
            "'1s ago'",
            "'1e400s'",
            "'inf s'",
            "'5 parsecs'",
            "'5s\\u0000'",
            "\"5s\\u0000\"",
            "'999999999999999999999h'",
            "'18446744073709551615h'",
        ] {
            check(refused, None);
        }
    }
}
