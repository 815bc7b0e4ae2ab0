//! Fuzz target.

use super::SandboxConfig;

/// A configuration file. The error names a place in the text.
pub(crate) fn configuration(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Err(error) = SandboxConfig::from_toml(text) {
        assert!(!error.to_string().is_empty());
    }
}
