//! The 12-hour schedule as arithmetic: a connection's slot is derived from its id, a job's id from connection and slot.
//!
//! Time is cut into intervals of equal length, counted from the Unix epoch. In each of them a connection has one slot,
//! always the same distance from the interval's begin, and that distance is spread evenly over all connections. So
//! nothing is stored for a connection, two schedulers agree without talking, and a slot fired twice is one job.

use crate::id::{ConnectionId, JobId};
use crate::time::{Duration, Timestamp};

/// How often each connection is synced without being asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// In milliseconds, at least 1.
    interval: i64,
}

impl Default for Schedule {
    /// Every 12 hours.
    fn default() -> Self {
        Self { interval: Duration::from_hours(12).as_millis() }
    }
}

impl Schedule {
    /// A schedule with one slot for each connection in every `interval`; none when that is no time at all.
    pub const fn every(interval: Duration) -> Option<Self> {
        if interval.as_millis() == 0 { None } else { Some(Self { interval: interval.as_millis() }) }
    }

    /// The time between two slots of one connection.
    pub const fn interval(self) -> Duration {
        Duration::from_millis(self.interval)
    }

    /// How long after the begin of an interval the connection's slot is: below the interval, to the millisecond.
    pub fn phase(self, connection: ConnectionId) -> Duration {
        // The high half of the product spreads 64 even bits evenly over any interval.
        let spread = (u128::from(even(connection)) * u128::from(self.interval.unsigned_abs())) >> 64;
        Duration::from_millis(i64::try_from(spread).expect("it is below the interval, which is an i64"))
    }

    /// The connection's latest slot at or before `at`.
    pub fn latest(self, connection: ConnectionId, at: Timestamp) -> Timestamp {
        let into = at.as_millis().saturating_sub(self.phase(connection).as_millis()).rem_euclid(self.interval);
        Timestamp::from_millis(at.as_millis().saturating_sub(into))
    }

    /// The connection's next slot after `at`.
    pub fn next(self, connection: ConnectionId, at: Timestamp) -> Timestamp {
        self.latest(connection, at) + self.interval()
    }

    /// The connection's slots after `from` and up to `to`, that one included, in order.
    pub fn due(self, connection: ConnectionId, from: Timestamp, to: Timestamp) -> impl Iterator<Item = Timestamp> {
        let first = self.next(connection, from);
        std::iter::successors(Some(first), move |slot| Some(*slot + self.interval()))
            .take_while(move |slot| *slot <= to)
    }
}

/// The id of the job that a connection's slot is.
pub fn job_id(connection: ConnectionId, slot: Timestamp) -> JobId {
    JobId::derived(connection, &format!("schedule/{}", slot.as_millis()))
}

/// The id of the audit that a connection's slot in the daily round is.
pub fn audit_id(connection: ConnectionId, slot: Timestamp) -> JobId {
    JobId::derived(connection, &format!("audit/{}", slot.as_millis()))
}

/// 64 bits in which every bit of the id counts, so that ids that rise with time (UUIDv7) or differ in few bits are
/// spread as evenly as random ones: the two halves, each through the finaliser of SplitMix64
/// (<https://prng.di.unimi.it/splitmix64.c>).
const fn even(connection: ConnectionId) -> u64 {
    let bits = connection.as_uuid().as_u128();
    mix(mix((bits >> 64) as u64) ^ bits as u64)
}

const fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn connections() -> impl Strategy<Value = ConnectionId> {
        any::<u128>().prop_map(|bits| ConnectionId::from_uuid(Uuid::from_u128(bits)))
    }

    fn schedules() -> impl Strategy<Value = Schedule> {
        prop_oneof![
            Just(Schedule::default()),
            (1_i64..=7 * 86_400_000).prop_map(|ms| Schedule::every(Duration::from_millis(ms)).unwrap())
        ]
    }

    /// The years 1800 to 2140: before the epoch too.
    fn times() -> impl Strategy<Value = Timestamp> {
        (-5_364_662_400_000_i64..5_364_662_400_000).prop_map(Timestamp::from_millis)
    }

    proptest! {
        #[test]
        fn every_interval_has_exactly_one_slot(schedule in schedules(), connection in connections(), from in times()) {
            let slots: Vec<_> = schedule.due(connection, from, from + schedule.interval()).collect();
            prop_assert_eq!(slots.len(), 1, "{:?}", slots);
            prop_assert!(schedule.phase(connection) < schedule.interval());
        }

        #[test]
        fn however_time_is_split_no_slot_is_skipped_or_comes_twice(
            connection in connections(),
            start in times(),
            mut splits in prop::collection::vec(0_i64..10 * 43_200_000, 1..12),
        ) {
            let schedule = Schedule::default();
            splits.sort_unstable();
            let mut from = start;
            let mut pieces = Vec::new();
            for split in splits {
                let to = start + Duration::from_millis(split);
                pieces.extend(schedule.due(connection, from, to));
                from = to;
            }
            prop_assert_eq!(pieces, schedule.due(connection, start, from).collect::<Vec<_>>());
        }

        #[test]
        fn latest_and_next_hold_an_instant_between_them(
            schedule in schedules(), connection in connections(), at in times()
        ) {
            let (latest, next) = (schedule.latest(connection, at), schedule.next(connection, at));
            prop_assert!(latest <= at && at < next);
            prop_assert_eq!(next.since(latest), schedule.interval());
            prop_assert_eq!(schedule.latest(connection, latest), latest, "a slot is due at its own instant");
        }

        #[test]
        fn a_job_is_one_slot_of_one_connection(a in connections(), b in connections(), s in times(), t in times()) {
            prop_assert_eq!(job_id(a, s) == job_id(b, t), (a, s) == (b, t));
        }
    }

    /// How many of the connections have their slot in the fullest minute, and how many in a minute on average.
    fn fullest_minute(ids: impl Iterator<Item = u128>) -> (f64, f64) {
        let mut minutes = [0_u32; 12 * 60];
        for id in ids {
            let phase = Schedule::default().phase(ConnectionId::from_uuid(Uuid::from_u128(id)));
            minutes[usize::try_from(phase.as_millis() / 60_000).unwrap()] += 1;
        }
        let total: u32 = minutes.iter().sum();
        (f64::from(*minutes.iter().max().unwrap()), f64::from(total) / minutes.len() as f64)
    }

    #[test]
    fn connections_are_spread_evenly_whatever_their_ids() {
        let random = |n: u128| Uuid::new_v5(&Uuid::NAMESPACE_OID, &n.to_be_bytes()).as_u128();
        // UUIDv7 of connections made one a millisecond, with a counter for the rest.
        let by_time = |n: u128| (0x0194_c3a0_0000_u128 + n) << 80 | 0x7000 << 64 | 0x8000 << 48 | n;
        for (what, ids) in [
            ("random", (0..100_000).map(random).collect::<Vec<_>>()),
            ("by time", (0..100_000).map(by_time).collect()),
            ("counted", (0..100_000).collect()),
            ("counted in the high half", (0..100_000).map(|n| n << 64).collect()),
        ] {
            let (fullest, mean) = fullest_minute(ids.into_iter());
            assert!(fullest <= 1.5 * mean, "{what}: {fullest} in one minute, {mean} on average");
        }
    }

    #[test]
    fn slots_are_where_they_were_when_published() {
        // Moving them would do no harm but to fire every connection out of turn.
        let connection: ConnectionId = "0a9f3b1c-5d2e-4f60-8a7b-9c0d1e2f3a4b".parse().unwrap();
        let slot = Schedule::default().next(connection, Timestamp::from_millis(1_770_091_506_789));
        assert_eq!(slot.as_millis(), 1_770_125_038_603);
        assert_eq!(job_id(connection, slot).to_string(), "b3efb6c2-9d91-55b9-85db-2c0d561603fa");
    }

    #[test]
    fn no_interval_is_no_schedule() {
        assert_eq!(Schedule::every(Duration::ZERO), None);
    }
}
