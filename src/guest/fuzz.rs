//! Fuzz targets.

use super::dispatcher::Toolbox;
use super::frame::{FrameError, encode, read_frame};

/// What a host sends to a guest: frame after frame, until one can't be read on from. A frame that was read, written and read
/// again is the same.
pub(crate) fn frames_to_guest(mut bytes: &[u8]) {
    loop {
        match read_frame(&mut bytes) {
            Ok(Some(frame)) => {
                let written = encode(&frame).expect("a frame that was read is not too large");
                let again = read_frame(&mut &written[..]).expect("it can be read");
                assert_eq!(again, Some(frame));
            }
            Err(FrameError::Decode(_)) => {}
            Ok(None) | Err(_) => return,
        }
    }
}

/// An image's tools file.
pub(crate) fn tools_file(bytes: &[u8]) {
    if let Err(error) = Toolbox::from_json(bytes) {
        assert!(!error.to_string().is_empty());
    }
}
