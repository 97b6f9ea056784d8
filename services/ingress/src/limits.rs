//! How often an API key may ask.
//!
//! One bucket for each key and instance: whoever runs n instances lets a key ask n times as often. A count shared by all
//! would cost every request a question to somebody else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use moka::sync::Cache;
use uuid::Uuid;

/// The buckets of the keys that are in use.
pub(crate) struct Buckets {
    begun: Instant,
    rate: Rate,
    buckets: Cache<Uuid, Arc<Bucket>>,
}

/// What a key may ask for.
#[derive(Debug, Clone, Copy)]
struct Rate {
    /// Nanoseconds that one request takes from the bucket.
    price: u64,
    /// Nanoseconds that a full bucket holds.
    depth: u64,
}

/// A token bucket in one number: the instant, in nanoseconds since the buckets' beginning, at which it is full again
/// (the generic cell rate algorithm of ITU-T I.371).
#[derive(Debug, Default)]
pub(crate) struct Bucket {
    full_at: AtomicU64,
}

impl Buckets {
    /// Each key may ask `per_second` times a second over time and `burst` times at once; at most `keys` are told apart.
    pub(crate) fn new(per_second: u32, burst: u32, keys: u64) -> Self {
        let price = 1_000_000_000 / u64::from(per_second.max(1));
        let rate = Rate { price, depth: price * u64::from(burst.max(1)) };
        let buckets = Cache::builder()
            .max_capacity(keys)
            // One that is forgotten begins full, so it must have filled itself by then.
            .time_to_idle(Duration::from_nanos(rate.depth).max(Duration::from_secs(60)))
            .build();
        Self { begun: Instant::now(), rate, buckets }
    }

    /// The bucket of a key.
    pub(crate) fn of(&self, key: Uuid) -> Arc<Bucket> {
        self.buckets.get_with(key, Arc::default)
    }

    /// Takes one request out of a bucket.
    ///
    /// # Errors
    /// After how long there is one to take, when there is none.
    pub(crate) fn take(&self, bucket: &Bucket) -> Result<(), Duration> {
        let now = u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.rate.take(bucket, now)
    }
}

impl Rate {
    fn take(self, bucket: &Bucket, now: u64) -> Result<(), Duration> {
        let after = |full_at: u64| full_at.max(now).saturating_add(self.price);
        bucket
            .full_at
            .try_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
                let full_at = after(full_at);
                (full_at - now <= self.depth).then_some(full_at)
            })
            .map(drop)
            .map_err(|full_at| Duration::from_nanos(after(full_at) - now - self.depth))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_burst_is_taken_then_one_for_each_pause() {
        let rate = Rate { price: 100, depth: 300 };
        let bucket = Bucket::default();
        for _ in 0..3 {
            rate.take(&bucket, 1000).unwrap();
        }
        assert_eq!(rate.take(&bucket, 1000), Err(Duration::from_nanos(100)));
        assert_eq!(rate.take(&bucket, 1099), Err(Duration::from_nanos(1)));
        rate.take(&bucket, 1100).unwrap();
        assert!(rate.take(&bucket, 1100).is_err());
    }

    #[test]
    fn keys_do_not_share() {
        let buckets = Buckets::new(1, 1, 10);
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        buckets.take(&buckets.of(one)).unwrap();
        assert!(buckets.take(&buckets.of(one)).is_err());
        buckets.take(&buckets.of(other)).unwrap();
    }

    proptest! {
        /// Over any span no more is given than the burst and what the time brings, and who waits as told is served.
        #[test]
        fn never_more_than_the_rate(pauses in prop::collection::vec(0u64..400, 1..200)) {
            let rate = Rate { price: 100, depth: 500 };
            let bucket = Bucket::default();
            let (mut now, mut taken) = (0, 0);
            for pause in pauses {
                now += pause;
                match rate.take(&bucket, now) {
                    Ok(()) => taken += 1,
                    Err(wait) => {
                        let wait = u64::try_from(wait.as_nanos()).unwrap();
                        prop_assert!(wait > 0 && wait <= rate.price);
                        now += wait;
                        prop_assert!(rate.take(&bucket, now).is_ok());
                        taken += 1;
                    }
                }
                prop_assert!(taken <= 5 + now / 100);
            }
        }
    }
}
