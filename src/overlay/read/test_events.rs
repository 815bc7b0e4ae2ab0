//! For tests: runs closures at chosen moments while this thread reads a file, for example to truncate it.

use std::cell::RefCell;
use std::collections::VecDeque;

/// A closure that runs before a batch of segments is read.
type Event = Box<dyn FnOnce()>;

thread_local! {
    /// One event for each coming batch, across all files and passes.
    static EVENTS: RefCell<VecDeque<Event>> = RefCell::default();
}

/// Runs `event` before the batch that comes `batches` batches after the last scheduled one.
pub(in crate::overlay) fn schedule(batches: usize, event: impl FnOnce() + 'static) {
    EVENTS.with_borrow_mut(|events| {
        events.extend((0..batches).map(|_| Box::new(|| ()) as Event));
        events.push_back(Box::new(event));
    });
}

/// Runs the next event. Called before each batch.
pub(in crate::overlay) fn happen() {
    let event = EVENTS.with_borrow_mut(VecDeque::pop_front);
    if let Some(event) = event {
        event();
    }
}

/// Asserts that every scheduled event has run.
#[track_caller]
pub(in crate::overlay) fn assert_happened() {
    let left = EVENTS.take().len();
    assert_eq!(left, 0, "fewer batches were read than were scheduled");
}
