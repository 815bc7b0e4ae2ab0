//! [`Channel::query_after_restore`]: all questions to a restored guest in one round trip.
//!
//! A round trip to a guest that was just restored is slow, since the first use of each page of its memory causes a page
//! fault. So the hello, the renewal and the query for the count of descriptors are sent with one write, and none waits
//! for the answer to another. A guest answers them in order, so the count is taken after the renewal, and before any
//! tool runs.

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

/// The answers of a restored guest to [`Channel::query_after_restore`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct RestoredGuest {
    /// The guest's hello; `None` from a guest from before the hello.
    pub hello: Option<GuestHello>,
    /// Whether the random pool was reseeded and the clock set; `None` from a guest that lists neither extension.
    pub renewed: Option<Renewed>,
    /// The number of open descriptors that aren't sockets.
    pub open_fd_count: u64,
    /// How far the guest's clock was from the host's after it was set; `None` if the guest didn't report its time.
    pub clock: Option<ClockSkew>,
    /// The time from sending the requests to the last answer.
    pub round_trip: Duration,
}

/// How far a guest's clock is from the host's, in microseconds; positive if the guest's clock is ahead.
///
/// The guest reads its clock at some moment between the host's request and its answer, and the host doesn't know the
/// moment. So the skew is a range as wide as the round trip, whose ends are exact. For an honest guest whose clock was
/// just set, the range includes zero, or misses it by no more than the time that setting the clock takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ClockSkew {
    /// The skew if the guest read its clock at the last moment.
    pub least: i64,
    /// The skew if the guest read its clock at the first moment.
    pub most: i64,
}

impl ClockSkew {
    /// The skew of a clock that showed `guest` at some moment within `elapsed` after `asked`. `guest` and `asked` are
    /// nanoseconds since 1970-01-01 UTC.
    fn between(guest: u64, asked: u64, elapsed: Duration) -> ClockSkew {
        let micros = |nanos: i128| i64::try_from(nanos / 1_000).unwrap_or(i64::MAX);
        let most = i128::from(guest) - i128::from(asked);
        let elapsed = elapsed.as_nanos().cast_signed();
        ClockSkew {
            least: micros(most - elapsed),
            most: micros(most),
        }
    }

    /// The width of the range: the time of the round trip in which the guest read its clock.
    pub fn uncertainty(&self) -> Duration {
        Duration::from_micros(self.least.abs_diff(self.most))
    }

    /// The largest possible skew in either direction.
    pub fn at_most(&self) -> Duration {
        Duration::from_micros(self.least.unsigned_abs().max(self.most.unsigned_abs()))
    }

    /// The smallest possible skew in either direction: zero unless the clock is certainly wrong.
    pub fn at_least(&self) -> Duration {
        match self.least <= 0 && self.most >= 0 {
            true => Duration::ZERO,
            false => Duration::from_micros(self.least.unsigned_abs().min(self.most.unsigned_abs())),
        }
    }
}

impl Channel {
    /// Sends a hello, reseeds the guest's random pool with `seed`, sets its clock to the host's present time, and
    /// counts its open descriptors. The result is that of [`hello`](Channel::hello), [`renew`](Channel::renew) and
    /// [`open_fd_count`](Channel::open_fd_count) one after the other, but it takes one round trip. It must be sent
    /// before any other request. `limit` is for all three answers together.
    ///
    /// A guest that doesn't know one of these requests refuses it, and the answers to the others count.
    ///
    /// # Errors
    ///
    /// - [`Error::NoAnswer`] after `limit`, with the first request that has no answer
    /// - [`Error::DuplicateHello`] if a hello was sent before and has no answer
    /// - the reason why the channel is closed
    pub async fn query_after_restore(
        &self,
        seed: &[u8; 32],
        limit: Duration,
    ) -> Result<RestoredGuest, Error> {
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

        // The host's clock is read as late as possible before the requests are sent, so everything else is encoded
        // first.
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
            Err(_) => return Err(no_answer(connection.origin(), waits_for, limit)),
        };
        let clock = renewed.as_ref().and_then(|(renewed, elapsed)| {
            Some(ClockSkew::between(renewed.unix_nanos?, asked, *elapsed))
        });
        Ok(RestoredGuest {
            hello,
            renewed: renewed.map(|(renewed, _)| renewed),
            open_fd_count,
            clock,
            round_trip: began.elapsed(),
        })
    }
}

fn no_answer(origin: &Origin, request: &'static str, waited: Duration) -> Error {
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
        // Set to the host's time, and read at once.
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
        // The largest possible difference.
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
