//! Fuzz target.

use super::events::Decoder;

/// Decodes the bytes of an event monitor. The first byte of the input is the size of the pieces in which they arrive,
/// less one. Pieces of any size give the same events.
pub(crate) fn event_monitor(bytes: &[u8]) {
    let Some((&piece, stream)) = bytes.split_first() else {
        return;
    };
    let whole = Decoder::default().push(stream);
    let mut decoder = Decoder::default();
    let pieces = stream.chunks(usize::from(piece) + 1);
    let events: Vec<_> = pieces.flat_map(|piece| decoder.push(piece)).collect();
    assert_eq!(events, whole);
}
