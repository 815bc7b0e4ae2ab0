//! Everything that a restored guest is asked, in one round trip.
//!
//! Each round trip to a guest that was restored just now is dear: what it touches, it touches for the first time. So the
//! greeting, the renewal and the count go out in one piece without waiting for each other; a guest answers in order,
//! so that the count is read after the renewal, and both before any tool.

use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use serde::Serialize;
use tokio::time::timeout;
use uuid::Uuid;

use super::channel::{Channel, GuestHello, reading, unix_nanos};
use super::pending::Key;
use super::{Error, Origin};
use crate::guest::protocol::{
    Extension, Frame, GuestQuery, Hello, QueryKind, QueryResult, Renew, Renewed, Seed,
};

/// What a restored guest said.
#[derive(Clone, Debug, PartialEq)]
pub struct Awakened {
    /// Its greeting; `None` from a guest that is older than the greeting.
    pub hello: Option<GuestHello>,
    /// What became of its random pool and its clock; `None` from a guest that lists neither extension.
    pub renewed: Option<Renewed>,
    /// Its open descriptors that aren't sockets.
    pub open_fd_count: u64,
    /// How far its clock was from the host's after that; `None` where it said nothing of its clock.
    pub clock: Option<ClockSkew>,
    /// From the requests until the last answer.
    pub round_trip: Duration,
}

/// How far a guest's clock is from the host's, in microseconds; positive where the guest's is ahead.
///
/// The guest reads its clock at some moment between the host's question and its answer, and the host can't know
/// when. So the skew is known to within the round trip, as a range: its ends are exact, and an honest guest whose
/// clock was set just now can't have one that leaves out zero by more than the time that setting it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ClockSkew {
    /// The skew if the guest read its clock at the last moment.
    pub least: i64,
    /// The skew if the guest read its clock at the first moment.
    pub most: i64,
}

impl ClockSkew {
    /// The skew of a clock that said `guest` at some time in the `elapsed` after `asked`; the first two in nanoseconds
    /// since 1970-01-01 UTC.
    fn between(guest: u64, asked: u64, elapsed: Duration) -> ClockSkew {
        let micros = |nanos: i128| i64::try_from(nanos / 1_000).unwrap_or(i64::MAX);
        let most = i128::from(guest) - i128::from(asked);
        let elapsed = elapsed.as_nanos().cast_signed();
        ClockSkew {
            least: micros(most - elapsed),
            most: micros(most),
        }
    }

    /// How much of the range is the host's not knowing: the round trip in which the guest read its clock.
    pub fn uncertainty(&self) -> Duration {
        Duration::from_micros(self.least.abs_diff(self.most))
    }

    /// The largest skew, either way, that there can be.
    pub fn at_most(&self) -> Duration {
        Duration::from_micros(self.least.unsigned_abs().max(self.most.unsigned_abs()))
    }

    /// The smallest skew, either way, that there must be: zero unless the clock is certainly wrong.
    pub fn at_least(&self) -> Duration {
        match self.least <= 0 && self.most >= 0 {
            true => Duration::ZERO,
            false => Duration::from_micros(self.least.unsigned_abs().min(self.most.unsigned_abs())),
        }
    }
}

impl Channel {
    /// Greets a restored guest, gives it fresh randomness and the time, and counts its descriptors: as
    /// [`hello`](Channel::hello), [`renew`](Channel::renew) and [`open_fd_count`](Channel::open_fd_count) one after the
    /// other, but in one round trip. To be sent first, before any other request; `limit` is for all three.
    ///
    /// A guest that is older than one of them refuses it, and the others count.
    ///
    /// # Errors
    ///
    /// [`Error::NoAnswer`] with the first of the three that was not answered, [`Error::DuplicateHello`], or why the
    /// channel is closed.
    pub async fn awaken(&self, seed: &[u8; 32], limit: Duration) -> Result<Awakened, Error> {
        let connection = self.connection();
        let (renewal, query) = (Uuid::new_v4(), Uuid::new_v4());

        let hello = connection.expect(Key::Hello, |frame| match frame {
            Frame::Hello(hello) => Some(Some(hello)),
            Frame::ErrorEvent(_) => Some(None),
            _ => None,
        })?;
        let renewed = connection.expect(Key::Request(renewal), |frame| match frame {
            Frame::Renewed(renewed) => Some(renewed),
            _ => None,
        })?;
        let counted = connection.expect(Key::Query(query), |frame| match reading(frame)? {
            QueryResult::OpenFdCount(count) => Some(count.open_fd_count),
            _ => None,
        })?;

        // Nothing that takes time may stand between the clock and the socket.
        let mut requests = connection.encoded(&Frame::Hello(Hello::of_this_build()))?;
        let query = connection.encoded(&Frame::GuestQuery(GuestQuery {
            query_id: query,
            query_kind: QueryKind::OpenFdCount,
            ts: Timestamp::now(),
        }))?;
        let (asked, began) = (unix_nanos(SystemTime::now()), Instant::now());
        requests.extend(connection.encoded(&Frame::Renew(Renew {
            request_id: renewal,
            seed: Seed(*seed),
            unix_nanos: asked,
        }))?);
        requests.extend(query);

        let mut waits_for = "Hello";
        let exchange = async {
            connection.send(requests).await;
            let hello = hello.answer().await?;
            let renews = hello.as_ref().is_some_and(|hello| {
                hello.supports(Extension::Reseed) || hello.supports(Extension::Clock)
            });
            waits_for = "Renew";
            let renewed = match renews {
                true => Some((renewed.answer().await?, began.elapsed())),
                false => None,
            };
            waits_for = QueryKind::OpenFdCount.name();
            Ok((hello, renewed, counted.answer().await?))
        };
        let (hello, renewed, open_fd_count) = match timeout(limit, exchange).await {
            Ok(answers) => answers?,
            Err(_) => return Err(silent(connection.origin(), waits_for, limit)),
        };
        let clock = renewed.as_ref().and_then(|(renewed, elapsed)| {
            Some(ClockSkew::between(renewed.unix_nanos?, asked, *elapsed))
        });
        Ok(Awakened {
            hello,
            renewed: renewed.map(|(renewed, _)| renewed),
            open_fd_count,
            clock,
            round_trip: began.elapsed(),
        })
    }
}

fn silent(origin: &Origin, request: &'static str, waited: Duration) -> Error {
    Error::NoAnswer {
        origin: origin.clone(),
        request,
        waited,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skew_is_a_range_as_wide_as_the_round_trip() {
        #[track_caller]
        fn check(guest: u64, asked: u64, elapsed: u64, range: (i64, i64), bounds: (u64, u64)) {
            let skew = ClockSkew::between(guest, asked, Duration::from_nanos(elapsed));
            assert_eq!((skew.least, skew.most), range);
            let bounds = (
                Duration::from_micros(bounds.0),
                Duration::from_micros(bounds.1),
            );
            assert_eq!((skew.at_least(), skew.at_most()), bounds);
        }
        // Set to what the host said, and read at once.
        check(5_000_000, 5_000_000, 2_000_000, (-2_000, 0), (0, 2_000));
        check(5_500_000, 5_000_000, 2_000_000, (-1_500, 500), (0, 1_500));
        // Certainly ahead, certainly behind.
        check(
            9_000_000,
            5_000_000,
            2_000_000,
            (2_000, 4_000),
            (2_000, 4_000),
        );
        check(
            1_000_000,
            5_000_000,
            2_000_000,
            (-6_000, -4_000),
            (4_000, 6_000),
        );
        // Beyond what is reported.
        check(
            0,
            u64::MAX,
            0,
            (-18_446_744_073_709_551, -18_446_744_073_709_551),
            {
                let far = 18_446_744_073_709_551;
                (far, far)
            },
        );
    }
}
