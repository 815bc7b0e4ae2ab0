//! The receiving side of a broadcast channel that is bounded both in the number and in the bytes of its values: a
//! [`Receiver`] gets the events of a sandbox, a VMM or a guest's channel.
//!
//! tokio's broadcast channel limits the number of values that it keeps for a slow receiver, but not their size. A guest
//! chooses the size of what it sends, so each value here has a weight in bytes. A channel drops its oldest values as
//! soon as either limit of its capacity is exceeded. The newest value is always kept, even if it alone exceeds the
//! limit. A receiver that lost values is told how many. A value that every receiver has taken is dropped at once.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;

use crate::mutex::lock;

pub use tokio::sync::broadcast::error::{RecvError, TryRecvError};

/// A value that can tell how many bytes it holds.
pub(crate) trait Weight {
    /// Returns about as many bytes as are freed when the value is dropped.
    fn weight(&self) -> usize;
}

/// How much a channel keeps for its slowest receiver.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Capacity {
    /// The maximal number of values.
    pub count: usize,
    /// The maximal sum of the values' [`Weight`]s, in bytes. The newest value is kept even if it alone weighs more.
    pub bytes: usize,
}

/// The sending end. Dropping it closes the channel; values that were sent before can still be received.
pub(crate) struct Sender<T>(Arc<Shared<T>>);

/// A receiving end, which receives the values that are sent after it subscribed.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    id: u64,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    sent: Notify,
}

struct State<T> {
    capacity: Capacity,
    values: VecDeque<(T, usize)>,
    /// The weight of all values.
    bytes: usize,
    /// The number of the first value in `values`. The following values have the following numbers.
    first: u64,
    /// For each receiver, by its id, the number of the value that it takes next.
    receivers: BTreeMap<u64, u64>,
    next_receiver: u64,
    is_closed: bool,
}

/// Makes a channel with one receiver.
pub(crate) fn channel<T: Weight>(capacity: Capacity) -> (Sender<T>, Receiver<T>) {
    let sender = Sender::new(capacity);
    let receiver = sender.subscribe();
    (sender, receiver)
}

impl<T: Weight> Sender<T> {
    /// Makes a channel that has no receiver yet.
    pub(crate) fn new(capacity: Capacity) -> Sender<T> {
        Sender(Arc::new(Shared {
            state: Mutex::new(State {
                capacity,
                values: VecDeque::new(),
                bytes: 0,
                first: 0,
                receivers: BTreeMap::new(),
                next_receiver: 0,
                is_closed: false,
            }),
            sent: Notify::new(),
        }))
    }

    /// Queues `value` for every receiver. If there is no receiver, `value` is dropped.
    pub(crate) fn send(&self, value: T) {
        let mut state = self.0.lock();
        if state.receivers.is_empty() {
            return;
        }
        let weight = value.weight();
        state.bytes += weight;
        state.values.push_back((value, weight));
        while state.values.len() > 1
            && (state.values.len() > state.capacity.count || state.bytes > state.capacity.bytes)
        {
            state.drop_first();
        }
        drop(state);
        self.0.sent.notify_waiters();
    }

    /// Drops the values that sending a value of this weight would displace. A caller that is about to allocate such a
    /// value frees the memory before.
    pub(crate) fn make_room(&self, weight: usize) {
        let mut state = self.0.lock();
        while !state.values.is_empty() && state.bytes.saturating_add(weight) > state.capacity.bytes
        {
            state.drop_first();
        }
    }

    /// Returns a new receiver of the values that are sent from now on.
    pub(crate) fn subscribe(&self) -> Receiver<T> {
        Receiver::of(&self.0)
    }

    /// Returns the number of receivers.
    pub(crate) fn receiver_count(&self) -> usize {
        self.0.lock().receivers.len()
    }
}

impl<T> Receiver<T> {
    fn of(shared: &Arc<Shared<T>>) -> Receiver<T> {
        let mut state = shared.lock();
        let (id, next) = (state.next_receiver, state.end());
        state.next_receiver += 1;
        state.receivers.insert(id, next);
        Receiver {
            shared: Arc::clone(shared),
            id,
        }
    }

    /// Returns another receiver, of the values that are sent from now on.
    pub fn resubscribe(&self) -> Receiver<T> {
        Receiver::of(&self.shared)
    }

    /// Whether this receiver has taken every value that was sent.
    pub fn is_empty(&self) -> bool {
        let state = self.shared.lock();
        state.receivers.get(&self.id) == Some(&state.end())
    }
}

impl<T: Clone> Receiver<T> {
    /// Waits for the next value and takes it. Dropping the returned future loses no value.
    ///
    /// # Errors
    ///
    /// - [`RecvError::Lagged`]: this many values were dropped before this receiver took them. The next call returns the
    ///   value after them.
    /// - [`RecvError::Closed`]: the sender was dropped, and this receiver has taken every value.
    pub async fn recv(&mut self) -> Result<T, RecvError> {
        let shared = Arc::clone(&self.shared);
        loop {
            // Registered before `try_recv`, so that a value that is sent in between is not missed.
            let mut sent = std::pin::pin!(shared.sent.notified());
            sent.as_mut().enable();
            match self.try_recv() {
                Ok(value) => return Ok(value),
                Err(TryRecvError::Lagged(count)) => return Err(RecvError::Lagged(count)),
                Err(TryRecvError::Closed) => return Err(RecvError::Closed),
                Err(TryRecvError::Empty) => sent.await,
            }
        }
    }

    /// Takes the next value if one was sent already.
    ///
    /// # Errors
    ///
    /// - [`TryRecvError::Empty`]: this receiver has taken every value, and the sender still exists.
    /// - [`TryRecvError::Lagged`] and [`TryRecvError::Closed`]: as for [`recv`](Receiver::recv).
    pub fn try_recv(&mut self) -> Result<T, TryRecvError> {
        let mut state = self.shared.lock();
        let (first, end, is_closed) = (state.first, state.end(), state.is_closed);
        let next = state.receivers.entry(self.id).or_insert(end);
        if *next < first {
            let lost = first - *next;
            *next = first;
            return Err(TryRecvError::Lagged(lost));
        }
        if *next == end {
            return Err(match is_closed {
                true => TryRecvError::Closed,
                false => TryRecvError::Empty,
            });
        }
        let at = usize::try_from(*next - first).unwrap_or(usize::MAX);
        *next += 1;
        let value = state.values.get(at).map(|(value, _)| value.clone());
        state.drop_received();
        value.ok_or(TryRecvError::Empty)
    }
}

impl<T> State<T> {
    /// The number of the value that is sent next.
    fn end(&self) -> u64 {
        self.first + self.values.len() as u64
    }

    fn drop_first(&mut self) {
        if let Some((_, weight)) = self.values.pop_front() {
            self.bytes -= weight;
            self.first += 1;
        }
    }

    /// Drops the values that every receiver has taken.
    fn drop_received(&mut self) {
        let needed = self.receivers.values().min().copied();
        let needed = needed.unwrap_or_else(|| self.end());
        while self.first < needed && !self.values.is_empty() {
            self.drop_first();
        }
    }
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // While the lock is held, only a value's own `clone` or `drop` can panic. The state is consistent then.
        lock(&self.state)
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.lock().is_closed = true;
        self.0.sent.notify_waiters();
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.receivers.remove(&self.id);
        state.drop_received();
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sender(..)")
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Receiver(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A value with a chosen weight. Its `Arc` shows whether the channel still holds it.
    #[derive(Clone, Debug, PartialEq)]
    struct Heavy(usize, Arc<()>);

    impl Weight for Heavy {
        fn weight(&self) -> usize {
            self.0
        }
    }

    fn heavy(weight: usize) -> Heavy {
        Heavy(weight, Arc::new(()))
    }

    const CAPACITY: Capacity = Capacity {
        count: 4,
        bytes: 100,
    };

    /// Sends values of the weights `sent`, then checks how many the receiver lost and the weights of those it takes.
    #[track_caller]
    fn check(sent: &[usize], lost: u64, received: &[usize]) {
        let (sender, mut receiver) = channel(CAPACITY);
        for &weight in sent {
            sender.send(heavy(weight));
        }
        if lost > 0 {
            assert_eq!(receiver.try_recv(), Err(TryRecvError::Lagged(lost)));
        }
        for &weight in received {
            assert_eq!(receiver.try_recv().unwrap().0, weight, "of {sent:?}");
        }
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
        drop(sender);
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Closed));
    }

    #[test]
    fn the_oldest_go_first_by_number_and_by_bytes_and_are_counted() {
        check(&[], 0, &[]);
        check(&[1, 2, 3, 4], 0, &[1, 2, 3, 4]);
        check(&[1, 2, 3, 4, 5, 6], 2, &[3, 4, 5, 6]);
        check(&[50, 50], 0, &[50, 50]);
        check(&[50, 50, 1], 1, &[50, 1]);
        check(&[1, 1, 99, 100], 3, &[100]);
        // The newest value is kept whatever it weighs, and the next one displaces it.
        check(&[1, 1_000], 1, &[1_000]);
        check(&[1, 1_000, 1], 2, &[1]);
    }

    #[test]
    fn make_room_drops_what_the_next_value_would_displace() {
        let (sender, mut receiver) = channel(CAPACITY);
        for weight in [30, 30, 30] {
            sender.send(heavy(weight));
        }
        sender.make_room(10);
        assert_eq!(receiver.try_recv().unwrap().0, 30);
        sender.make_room(50);
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Lagged(1)));
        assert_eq!(receiver.try_recv().unwrap().0, 30);
        sender.send(heavy(30));
        sender.make_room(usize::MAX);
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Lagged(1)));
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
    }

    #[test]
    fn a_value_is_dropped_once_every_receiver_has_taken_it_or_is_gone() {
        let (sender, mut slow) = channel(CAPACITY);
        let mut fast = sender.subscribe();
        let value = heavy(10);
        let held = Arc::downgrade(&value.1);
        sender.send(value);
        fast.try_recv().unwrap();
        assert_eq!(held.strong_count(), 1, "the slow receiver has not taken it");
        slow.try_recv().unwrap();
        assert_eq!(held.strong_count(), 0);

        let value = heavy(10);
        let held = Arc::downgrade(&value.1);
        sender.send(value);
        fast.try_recv().unwrap();
        drop(slow);
        assert_eq!(held.strong_count(), 0, "no receiver is left to take it");
        drop(fast);
        let value = heavy(10);
        let held = Arc::downgrade(&value.1);
        sender.send(value);
        assert_eq!(held.strong_count(), 0, "there is no receiver");
        assert_eq!(sender.receiver_count(), 0);
    }

    #[test]
    fn a_receiver_begins_where_it_subscribed() {
        let (sender, mut first) = channel(CAPACITY);
        sender.send(heavy(1));
        let mut second = first.resubscribe();
        assert!(second.is_empty() && !first.is_empty());
        sender.send(heavy(2));
        assert_eq!(second.try_recv().unwrap().0, 2);
        assert_eq!(first.try_recv().unwrap().0, 1);
        assert_eq!(first.try_recv().unwrap().0, 2);
    }

    #[tokio::test]
    async fn a_receiver_that_waits_is_woken() {
        let (sender, mut receiver) = channel::<Heavy>(CAPACITY);
        let waiting = tokio::spawn(async move {
            let value = receiver.recv().await.unwrap().0;
            (value, receiver.recv().await)
        });
        tokio::task::yield_now().await;
        sender.send(heavy(7));
        tokio::task::yield_now().await;
        drop(sender);
        assert_eq!(waiting.await.unwrap(), (7, Err(RecvError::Closed)));
    }
}
