//! [`Outbox`]: the sending half of a channel, with a bounded queue of frames.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::guest::frame::HEADER;
use crate::guest::protocol::MAX_FRAME;
use crate::mutex::lock;

/// The most bytes that are queued for a guest that doesn't read: one frame of the largest size. Further senders wait.
const MAX_QUEUED: usize = HEADER + MAX_FRAME;

/// The sending half of a channel.
///
/// [`send`](Outbox::send) writes as much of a frame as the socket takes at once. The rest is queued, and
/// [`flush`](Outbox::flush) writes it. So a caller that stops waiting never leaves half a frame behind.
pub(super) struct Outbox {
    queue: Mutex<Queue>,
    filled: Notify,
    room: Arc<Semaphore>,
}

/// A frame's share of [`MAX_QUEUED`], in bytes. It is returned when the frame is written or dropped.
type Room = OwnedSemaphorePermit;

struct Queue {
    /// `None` once the outbox is closed.
    stream: Option<Arc<OwnedWriteHalf>>,
    frames: VecDeque<(Vec<u8>, Room)>,
    /// How many bytes of the first frame have been written.
    written: usize,
}

impl Outbox {
    pub(super) fn new(stream: OwnedWriteHalf) -> Outbox {
        Outbox {
            queue: Mutex::new(Queue {
                stream: Some(Arc::new(stream)),
                frames: VecDeque::new(),
                written: 0,
            }),
            filled: Notify::new(),
            room: Arc::new(Semaphore::new(MAX_QUEUED)),
        }
    }

    /// Sends or queues a whole frame. Waits only while too many bytes are queued. If the outbox is closed, the frame is
    /// dropped: the connection that closed it reports the reason.
    pub(super) async fn send(&self, frame: Vec<u8>) {
        let share = frame.len().min(MAX_QUEUED) as u32;
        let Ok(room) = Arc::clone(&self.room).acquire_many_owned(share).await else {
            return;
        };
        let mut queue = self.lock();
        let Some(stream) = &queue.stream else {
            return;
        };
        // An error is ignored here, since `flush` gets it again and reports it.
        let written = match queue.frames.is_empty() {
            true => stream.try_write(&frame).unwrap_or(0),
            false => 0,
        };
        if written < frame.len() {
            if queue.frames.is_empty() {
                queue.written = written;
            }
            queue.frames.push_back((frame, room));
            drop(queue);
            self.filled.notify_one();
        }
    }

    /// Writes the queued frames for as long as the channel is open. It returns only an error. `idle` is the limit for
    /// the next byte of a frame, `total` for a whole frame, counted from when it is the first in the queue.
    pub(super) async fn flush(&self, idle: Duration, total: Duration) -> WriteError {
        loop {
            self.filled.notified().await;
            let mut began = Instant::now();
            let mut moved = began;
            loop {
                let stream = match &*self.lock() {
                    Queue {
                        stream: Some(stream),
                        frames,
                        ..
                    } if !frames.is_empty() => stream.clone(),
                    _ => break,
                };
                match timeout_at((moved + idle).min(began + total), stream.writable()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return WriteError::Io(error),
                    Err(_) => {
                        return WriteError::Stalled {
                            written: self.lock().written,
                            waited: began.elapsed(),
                        };
                    }
                }
                match self.write_some(&stream) {
                    Ok(Progress::Frame) => {
                        began = Instant::now();
                        moved = began;
                    }
                    Ok(Progress::Part) => moved = Instant::now(),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return WriteError::Io(error),
                }
            }
        }
    }

    /// Writes as much of the first frame as the socket takes now.
    fn write_some(&self, stream: &OwnedWriteHalf) -> io::Result<Progress> {
        let mut queue = self.lock();
        let Some((frame, _)) = queue.frames.front() else {
            return Ok(Progress::Part);
        };
        let length = frame.len();
        let written = stream.try_write(&frame[queue.written..])?;
        queue.written += written;
        if queue.written < length {
            return Ok(Progress::Part);
        }
        queue.frames.pop_front();
        queue.written = 0;
        Ok(Progress::Frame)
    }

    /// Drops the queued frames and this half of the stream. Later frames are dropped.
    pub(super) fn close(&self) {
        let mut queue = self.lock();
        queue.stream = None;
        queue.frames.clear();
        self.room.close();
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // No code panics while it holds the lock, and the queue is consistent after every statement.
        lock(&self.queue)
    }
}

enum Progress {
    Part,
    Frame,
}

/// Why no further frame can be sent.
#[derive(Debug)]
pub(super) enum WriteError {
    /// The guest has stopped reading.
    Stalled { written: usize, waited: Duration },
    /// The stream failed.
    Io(io::Error),
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::UnixStream;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    /// A size that the socket doesn't take at once.
    const LARGE: usize = 4 << 20;

    #[tokio::test]
    async fn frames_arrive_whole_and_in_order_after_their_senders_have_left() {
        let (host, mut guest) = UnixStream::pair().unwrap();
        let (_read, write) = host.into_split();
        let outbox = Outbox::new(write);
        let sizes = [10, LARGE, 20, LARGE, 30];
        for (at, size) in sizes.into_iter().enumerate() {
            // The guest doesn't read yet, and the sender doesn't wait for it.
            outbox.send(vec![at as u8; size]).await;
        }
        let receive = async {
            for (at, size) in sizes.into_iter().enumerate() {
                let mut frame = vec![0; size];
                guest.read_exact(&mut frame).await.unwrap();
                assert!(frame.iter().all(|&byte| byte == at as u8), "frame {at}");
            }
        };
        tokio::select! {
            () = receive => {}
            failure = outbox.flush(LIMIT, LIMIT) => panic!("{failure:?}"),
        }
        assert_eq!(outbox.room.available_permits(), MAX_QUEUED);
    }

    #[tokio::test]
    async fn a_guest_that_does_not_read_fills_the_queue_and_no_more() {
        let (host, _guest) = UnixStream::pair().unwrap();
        let (_read, write) = host.into_split();
        let outbox = Outbox::new(write);
        let mut queued = 0;
        let short = Duration::from_millis(50);
        while tokio::time::timeout(short, outbox.send(vec![0; LARGE]))
            .await
            .is_ok()
        {
            queued += 1;
        }
        assert_eq!(queued, MAX_QUEUED / LARGE);

        let failure = outbox.flush(short, LIMIT).await;
        assert!(
            matches!(failure, WriteError::Stalled { written, .. } if written > 0),
            "{failure:?}"
        );

        outbox.close();
        outbox.send(vec![0; 1]).await;
    }

    #[tokio::test]
    async fn a_guest_that_closed_the_connection_is_an_error() {
        let (host, guest) = UnixStream::pair().unwrap();
        let (_read, write) = host.into_split();
        let outbox = Outbox::new(write);
        drop(guest);
        outbox.send(vec![0; 1]).await;
        let failure = outbox.flush(LIMIT, LIMIT).await;
        assert!(matches!(failure, WriteError::Io(_)), "{failure:?}");
    }
}
