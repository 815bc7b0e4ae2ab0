//! The fuzz target of the sandbox: the parser of its configuration.

use super::SandboxConfig;

/// Parses `bytes` as a configuration file. A configuration that is refused has an error with a message.
pub(crate) fn configuration(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Err(error) = SandboxConfig::from_toml(text) {
        assert!(!error.to_string().is_empty());
    }
}
