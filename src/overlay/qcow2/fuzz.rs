//! A fuzz target for the parser of headers.

use super::header::Header;

/// Parses `bytes` as the first bytes of a qcow2 image.
pub(crate) fn qcow2_header(bytes: &[u8]) {
    if let Ok(header) = Header::parse(bytes) {
        assert!((512..=1 << 21).contains(&header.cluster_length));
    }
}
