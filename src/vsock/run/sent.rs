//! The links of the records that were sent to a run.

use std::collections::VecDeque;

use crate::guest::protocol::RunChain;
use crate::guest::record::RecordKind;
use crate::vsock::EvidenceError;

/// The most links that are kept. The guest says how many records it has taken only at the end, and these are the ones that
/// may be on their way then.
const MAX_LINKS: usize = 1 << 16;

/// The chain of the records to the guest, with the link after each of the last ones. It grows with what was sent, to 2 MiB.
#[derive(Debug)]
pub(super) struct SentChain {
    chain: RunChain,
    /// The link after `first` records, and after each further one.
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

    /// A record was sent.
    pub(super) fn append(&mut self, kind: RecordKind, body: &[u8]) {
        self.chain.append(kind, body);
        if self.links.len() == MAX_LINKS {
            self.links.pop_front();
            self.first += 1;
        }
        self.links.push_back(self.chain.link());
    }

    /// The link after this many records.
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
    fn the_link_after_each_record_that_may_be_on_its_way_is_known() {
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
    fn only_so_many_links_are_kept() {
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
