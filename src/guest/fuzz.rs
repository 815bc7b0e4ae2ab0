//! Fuzz targets for the inputs of a guest: frames from the host, and the tools file of an image.

use super::dispatcher::Toolbox;
use super::frame::{FrameError, encode, read_frame};

/// Reads frames as a guest reads them from a host, until an error after which the stream is unusable. Each frame that
/// was decoded must be the same after it is encoded and decoded once more.
pub(crate) fn frames_to_guest(mut bytes: &[u8]) {
    loop {
        match read_frame(&mut bytes) {
            Ok(Some(frame)) => {
                let written = encode(&frame).expect("a frame that was read is not too large");
                let again = read_frame(&mut &written[..]).expect("an encoded frame can be read");
                assert_eq!(again, Some(frame));
            }
            Err(FrameError::Decode(_)) => {}
            Ok(None) | Err(_) => return,
        }
    }
}

/// Reads an image's tools file. Every error must have a text.
pub(crate) fn tools_file(bytes: &[u8]) {
    if let Err(error) = Toolbox::from_json(bytes) {
        assert!(!error.to_string().is_empty());
    }
}
