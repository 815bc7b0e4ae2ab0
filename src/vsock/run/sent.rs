//! [`SentChain`]: the hash chain over the records that were sent to a run, with its latest links.

use std::collections::VecDeque;

use crate::guest::protocol::RunChain;
use crate::guest::record::RecordKind;
use crate::vsock::EvidenceError;

/// The most links that are kept. At its end a run states how many records the guest has processed, and the last link of
/// these. The host therefore keeps a link for each record that the guest may not have processed by then.
const MAX_LINKS: usize = 1 << 16;

/// The chain over the records to the guest, and the link after each of the latest records. It grows up to 2 MiB.
#[derive(Debug)]
pub(super) struct SentChain {
    chain: RunChain,
    /// The link after the first `first` records, and the link after each later record.
    links: VecDeque<[u8; 32]>,
    first: u64,
}

impl SentChain {
    pub(super) fn new(chain: RunChain) -> SentChain {
        SentChain {
            links: VecDeque::from([chain.link()]),
            chain,
            first: 0,
        }
    }

    /// Appends a record that is being sent.
    pub(super) fn append(&mut self, kind: RecordKind, body: &[u8]) {
        self.chain.append(kind, body);
        if self.links.len() == MAX_LINKS {
            self.links.pop_front();
            self.first += 1;
        }
        self.links.push_back(self.chain.link());
    }

    /// The link after the first `records` records.
    ///
    /// # Errors
    ///
    /// [`EvidenceError::TakenElsewhere`] if fewer records were sent, or if the link isn't kept any more.
    pub(super) fn after(&self, records: u64) -> Result<[u8; 32], EvidenceError> {
        let (oldest, sent) = (self.first, self.first + self.links.len() as u64 - 1);
        let at = records
            .checked_sub(oldest)
            .and_then(|at| self.links.get(usize::try_from(at).ok()?));
        at.copied().ok_or(EvidenceError::TakenElsewhere {
            taken: records,
            oldest,
            sent,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::protocol::Direction;

    #[test]
    fn the_link_after_each_sent_record_is_kept() {
        let start = RunChain::new(Direction::ToGuest, b"{}");
        let mut sent = SentChain::new(start.clone());
        let mut expected = start;
        assert_eq!(sent.after(0), Ok(expected.link()));
        let (taken, oldest) = (1, 0);
        let elsewhere = EvidenceError::TakenElsewhere {
            taken,
            oldest,
            sent: 0,
        };
        assert_eq!(sent.after(1), Err(elsewhere));
        for body in [&b"a"[..], b"bc"] {
            sent.append(RecordKind::Stdin, body);
            expected.append(RecordKind::Stdin, body);
        }
        assert_eq!(sent.after(2), Ok(expected.link()));
        for taken in [3, u64::MAX] {
            let sent = sent.after(taken).unwrap_err();
            let expected = EvidenceError::TakenElsewhere {
                taken,
                oldest: 0,
                sent: 2,
            };
            assert_eq!(sent, expected);
        }
    }

    #[test]
    fn the_number_of_kept_links_is_limited() {
        let mut sent = SentChain::new(RunChain::new(Direction::ToGuest, b"{}"));
        let records = MAX_LINKS as u64 + 9;
        for _ in 0..records {
            sent.append(RecordKind::Stdin, b"x");
        }
        assert_eq!(sent.links.len(), MAX_LINKS);
        assert!(sent.after(records).is_ok());
        assert!(sent.after(10).is_ok());
        let expected = EvidenceError::TakenElsewhere {
            taken: 9,
            oldest: 10,
            sent: records,
        };
        assert_eq!(sent.after(9), Err(expected));
    }
}
