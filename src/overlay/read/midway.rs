//! Lets something happen to a file at a certain moment while this thread reads it: for tests.

use std::cell::RefCell;
use std::collections::VecDeque;

/// What happens before a batch of segments is read.
type Event = Box<dyn FnOnce()>;

thread_local! {
    /// One for each batch to come, over all files and walks.
    static EVENTS: RefCell<VecDeque<Event>> = RefCell::default();
}

/// Lets `event` happen once so many further batches were read after those that were scheduled before.
pub(in crate::overlay) fn schedule(batches: usize, event: impl FnOnce() + 'static) {
    EVENTS.with_borrow_mut(|events| {
        events.extend((0..batches).map(|_| Box::new(|| ()) as Event));
        events.push_back(Box::new(event));
    });
}

/// The next batch is about to be read.
pub(in crate::overlay) fn happen() {
    let event = EVENTS.with_borrow_mut(VecDeque::pop_front);
    if let Some(event) = event {
        event();
    }
}

/// Everything that was scheduled has happened.
#[track_caller]
pub(in crate::overlay) fn assert_happened() {
    let left = EVENTS.take().len();
    assert_eq!(left, 0, "not so many batches were read");
}
