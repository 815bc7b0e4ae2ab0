//! [`lock_in_time`] locks a file that a process which has just died may still have locked.

use std::fs::{File, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

/// How long a lock is tried for.
const LIMIT: Duration = Duration::from_secs(1);

/// How long each wait between two attempts is.
const PAUSE: Duration = Duration::from_millis(10);

/// Locks a file as [`File::try_lock`] does, but tries for a second. Blocks.
///
/// A process that is killed while it starts a child leaves its locks to that child until the child executes its program
/// and so closes the files. The next process must not take such a lock for that of a living one.
pub(crate) fn lock_in_time(file: &File) -> Result<(), TryLockError> {
    let deadline = Instant::now() + LIMIT;
    loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => thread::sleep(PAUSE),
            locked => return locked,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_is_given_up_in_time_is_taken_and_any_other_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let (holder, waiting) = (File::create(&path).unwrap(), File::open(&path).unwrap());
        holder.lock().unwrap();
        assert!(matches!(
            lock_in_time(&waiting),
            Err(TryLockError::WouldBlock)
        ));

        thread::scope(|scope| {
            let waits = scope.spawn(|| lock_in_time(&waiting));
            holder.unlock().unwrap();
            waits.join().unwrap().unwrap();
        });
    }
}
