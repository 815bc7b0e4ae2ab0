//! Fuzz target.

use super::events::Decoder;

/// What an event monitor writes: the first byte says in what pieces it comes. Pieces of any size give the same events.
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
