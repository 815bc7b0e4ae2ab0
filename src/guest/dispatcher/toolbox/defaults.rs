//! [`Defaults`]: the environment, directory and user of every tool, as the configuration of a container image sets
//! them.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{RunOptions, directory};
use crate::guest::protocol::MAX_ENVIRONMENT;

/// The environment, directory and user of every tool. A run with streams may override environment and directory.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Defaults {
    /// Environment variables that are set beside or in place of the guest's own.
    env: BTreeMap<String, String>,
    cwd: Option<String>,
    user: Option<User>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct User {
    uid: u32,
    gid: u32,
}

impl std::fmt::Debug for Defaults {
    /// Without the values of the environment, which may be secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Defaults")
            .field("env", &self.env.keys())
            .field("cwd", &self.cwd)
            .field("user", &self.user())
            .finish()
    }
}

impl Defaults {
    pub(super) fn check(&self) -> Result<(), &'static str> {
        let size: usize = self
            .env
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        if size > MAX_ENVIRONMENT {
            return Err("their environment has more than 32768 bytes");
        }
        for (name, value) in &self.env {
            if name.is_empty() || name.contains(['=', '\0']) {
                return Err("a variable's name is empty or has a = or a NUL byte in it");
            }
            if value.contains('\0') {
                return Err("a variable's value has a NUL byte in it");
            }
        }
        if let Some(cwd) = &self.cwd {
            directory(cwd)?;
        }
        match self.user {
            Some(User { uid: 0, .. }) => Err("no tool runs as root"),
            Some(User { uid: u32::MAX, .. }) | Some(User { gid: u32::MAX, .. }) => {
                Err("4294967295 is no user or group")
            }
            _ => Ok(()),
        }
    }

    /// The user and group id of every tool.
    pub(super) fn user(&self) -> Option<(u32, u32)> {
        self.user.map(|User { uid, gid }| (uid, gid))
    }

    /// The environment of a run: these variables, overridden by those of `wishes`.
    pub(super) fn env(&self, wishes: &RunOptions<'_>) -> BTreeMap<String, String> {
        let mut env = self.env.clone();
        env.extend(wishes.env.cloned().unwrap_or_default());
        env
    }

    /// The directory of a run: that of `wishes`, otherwise this one.
    pub(super) fn cwd(&self, wishes: &RunOptions<'_>) -> Option<String> {
        wishes.cwd.or(self.cwd.as_deref()).map(str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Toolbox;
    use super::*;

    const DECLARED: &[u8] = br#"{"sh": true, "defaults": {
        "env": {"PATH": "/opt/bin", "a.b": "c"}, "cwd": "/srv", "user": {"uid": 33, "gid": 0}
    }}"#;

    #[test]
    fn every_tool_gets_the_defaults_unless_a_run_asks_for_others() {
        let toolbox = Toolbox::from_json(DECLARED).unwrap();
        assert_eq!(toolbox.user(), Some((33, 0)));
        let none = json!({});
        let call = toolbox.call("env", &none, &RunOptions::default()).unwrap();
        assert_eq!(call.cwd.as_deref(), Some("/srv"));
        assert_eq!(call.env["PATH"], "/opt/bin");
        assert_eq!(call.env["a.b"], "c");

        let env = BTreeMap::from([("PATH".to_owned(), "/bin".to_owned())]);
        let wishes = RunOptions {
            env: Some(&env),
            cwd: Some("/tmp"),
            ..RunOptions::default()
        };
        let script = json!({"script": "true"});
        let call = toolbox.call("sh", &script, &wishes).unwrap();
        assert_eq!(call.cwd.as_deref(), Some("/tmp"));
        assert_eq!((&*call.env["PATH"], &*call.env["a.b"]), ("/bin", "c"));
    }

    #[test]
    fn without_defaults_a_tool_gets_nothing_beside_the_guests_own() {
        let toolbox = Toolbox::built_in();
        let call = toolbox
            .call("env", &json!({}), &RunOptions::default())
            .unwrap();
        assert!(call.env.is_empty() && call.cwd.is_none() && toolbox.user().is_none());
    }

    #[test]
    fn debug_does_not_show_values_of_variables() {
        let shown = format!("{:?}", Toolbox::from_json(DECLARED).unwrap());
        assert!(
            shown.contains("PATH") && !shown.contains("/opt/bin"),
            "{shown}"
        );
    }

    #[test]
    fn defaults_out_of_bounds_are_refused() {
        for (defaults, expected) in [
            (json!({"env": {"": "x"}}), "name is empty"),
            (json!({"env": {"A=B": "x"}}), "name is empty"),
            (json!({"env": {"A": "x\0"}}), "NUL"),
            (json!({"env": {"A": "x".repeat(MAX_ENVIRONMENT)}}), "32768"),
            (json!({"cwd": "srv"}), "absolute"),
            (json!({"cwd": "/a/../b"}), ".."),
            (json!({"user": {"uid": 0, "gid": 1}}), "as root"),
            (json!({"user": {"uid": u32::MAX, "gid": 1}}), "no user"),
            (json!({"user": {"uid": 1, "gid": u32::MAX}}), "no user"),
            (json!({"user": {"uid": 1}}), "missing field"),
            (json!({"user": 5}), "invalid type"),
            (json!({"shell": "/bin/sh"}), "unknown field"),
        ] {
            let file = json!({"defaults": defaults}).to_string();
            let error = Toolbox::from_json(file.as_bytes()).unwrap_err();
            let message = crate::causes::Causes(&error).to_string();
            assert!(message.contains(expected), "{file}: {message}");
        }
    }
}
