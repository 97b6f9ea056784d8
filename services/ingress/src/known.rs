//! What the hot path knows without asking Postgres: API keys and connections, each remembered for a few seconds, and for
//! longer while Postgres is away.

use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::future::Cache;

use crate::outage::Outage;

/// How long an absence is remembered: long enough that a flood of wrong keys costs one query a second each, short
/// enough that what was just created works.
const ABSENT: Duration = Duration::from_secs(1);

/// How long an answer is waited for where there is an older one.
const PATIENCE: Duration = Duration::from_secs(1);

/// Answers of a slow, shared source, remembered for a bounded time and in bounded number. However many ask for the
/// same thing at once, one question goes out. While the source is away, an older answer does, for a bounded time more.
pub(crate) struct Known<K, V> {
    fresh: Cache<K, Option<V>, foldhash::fast::RandomState>,
    /// The last answer of each, where it was not an absence.
    last: Cache<K, V, foldhash::fast::RandomState>,
    outage: Arc<Outage>,
}

impl<K, V> Known<K, V>
where
    K: Hash + Eq + Send + Sync + Clone + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Remembers at most `entries` answers, each for at most `ttl`, and for `grace` longer in an outage.
    pub(crate) fn new(entries: u64, ttl: Duration, grace: Duration, outage: Arc<Outage>) -> Self {
        let fresh = Cache::builder()
            .max_capacity(entries)
            .expire_after(Ttl { present: ttl, absent: ttl.min(ABSENT) })
            .build_with_hasher(foldhash::fast::RandomState::default());
        let last = Cache::builder()
            .max_capacity(entries)
            .time_to_live(ttl + grace)
            .build_with_hasher(foldhash::fast::RandomState::default());
        Self { fresh, last, outage }
    }

    /// What is known of `key`; if nothing, what `ask` says. A failed question is not remembered; where `is_away` says
    /// that the source did not answer at all, the last answer is given that there was.
    pub(crate) async fn get<E, F>(&self, key: K, ask: F, is_away: impl Fn(&E) -> bool) -> Result<Option<V>, Arc<E>>
    where
        E: Send + Sync + 'static,
        F: Future<Output = Result<Option<V>, E>>,
    {
        match self.fresh.get(&key).await {
            Some(known) => Ok(known),
            None => self.ask(key, ask, is_away).await,
        }
    }

    async fn ask<E, F>(&self, key: K, ask: F, is_away: impl Fn(&E) -> bool) -> Result<Option<V>, Arc<E>>
    where
        E: Send + Sync + 'static,
        F: Future<Output = Result<Option<V>, E>>,
    {
        let last = self.last.get(&key).await;
        if last.is_some() && self.outage.is_on() {
            return Ok(last);
        }
        let remember = async {
            let answer = ask.await?;
            self.outage.ended();
            match &answer {
                Some(answer) => self.last.insert(key.clone(), answer.clone()).await,
                None => self.last.invalidate(&key).await,
            }
            Ok(answer)
        };
        let asked = self.fresh.try_get_with(key.clone(), remember);
        let Some(last) = last else {
            return asked.await.inspect_err(|error| {
                if is_away(error) {
                    self.outage.went_on();
                }
            });
        };
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Err(error)) if !is_away(&error) => Err(error),
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) | Err(_) => {
                self.outage.went_on();
                Ok(Some(last))
            }
        }
    }

    /// Drops what is remembered of `key`, here; elsewhere it goes by its time.
    pub(crate) async fn forget(&self, key: &K) {
        self.fresh.invalidate(key).await;
        self.last.invalidate(key).await;
    }
}

/// Counted from when the answer came, and never renewed by use: a key revoked must stop however busy it is.
struct Ttl {
    present: Duration,
    absent: Duration,
}

impl<K, V> Expiry<K, Option<V>> for Ttl {
    fn expire_after_create(&self, _: &K, value: &Option<V>, _: Instant) -> Option<Duration> {
        Some(if value.is_some() { self.present } else { self.absent })
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn known(ttl: Duration, grace: Duration) -> Known<u8, u8> {
        Known::new(10, ttl, grace, Arc::new(Outage::new()))
    }

    #[tokio::test]
    async fn many_at_once_ask_once() {
        let known = Arc::new(known(HOUR, HOUR));
        let asked = Arc::new(AtomicUsize::new(0));
        let asks = (0..50).map(|_| {
            let (known, asked) = (Arc::clone(&known), Arc::clone(&asked));
            tokio::spawn(async move {
                let ask = async {
                    asked.fetch_add(1, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                    Ok::<_, Infallible>(Some(7))
                };
                known.get(1, ask, |_: &Infallible| false).await.unwrap()
            })
        });
        for answer in asks.collect::<Vec<_>>() {
            assert_eq!(answer.await.unwrap(), Some(7));
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_failed_question_is_asked_again() {
        let known = known(HOUR, HOUR);
        assert_eq!(*known.get(1, async { Err("no") }, |_| false).await.unwrap_err(), "no");
        assert_eq!(known.get(1, async { Ok::<_, Infallible>(Some(7)) }, |_| false).await.unwrap(), Some(7));
    }

    #[tokio::test]
    async fn an_answer_is_forgotten_after_its_time_however_often_it_is_used() {
        let ttl = Duration::from_millis(50);
        let known = known(ttl, HOUR);
        let begun = Instant::now();
        let mut version = 0;
        // Ends only when the first answer is gone, though it is used all the time.
        while known.get(1, async { Ok::<_, Infallible>(Some(version)) }, |_| false).await.unwrap() == Some(0) {
            version = 1;
            assert!(begun.elapsed() < Duration::from_secs(20), "the answer is never forgotten");
            tokio::task::yield_now().await;
        }
        assert!(begun.elapsed() >= ttl);
    }

    /// Waits until what is known is known no more.
    async fn stale(known: &Known<u8, u8>) {
        while known.fresh.get(&1).await.is_some() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn while_the_source_is_away_the_last_answer_does_and_nobody_asks() {
        let known = known(Duration::from_millis(20), HOUR);
        assert_eq!(known.get(1, async { Ok::<_, &str>(Some(7)) }, |_| true).await.unwrap(), Some(7));
        stale(&known).await;
        assert_eq!(known.get(1, async { Err("away") }, |_| true).await.unwrap(), Some(7));
        let nobody = async { unreachable!("nobody asks in an outage") };
        assert_eq!(known.get(1, nobody, |_: &&str| true).await.unwrap(), Some(7));
        assert!(known.get(2, async { Err("away") }, |_| true).await.is_err(), "what was never known is not");
        known.outage.ended();
        assert_eq!(known.get(1, async { Ok::<_, &str>(None) }, |_| true).await.unwrap(), None, "gone");
        known.outage.went_on();
        stale(&known).await;
        assert!(known.get(1, async { Err("away") }, |_| true).await.is_err(), "what is gone stays gone");
    }

    #[tokio::test]
    async fn the_last_answer_does_for_so_long_only() {
        let known = known(Duration::from_millis(1), Duration::from_millis(50));
        assert_eq!(known.get(1, async { Ok::<_, &str>(Some(7)) }, |_| true).await.unwrap(), Some(7));
        let begun = Instant::now();
        while known.get(1, async { Err("away") }, |_| true).await.is_ok() {
            assert!(begun.elapsed() < Duration::from_secs(20), "the last answer is never forgotten");
            tokio::task::yield_now().await;
        }
        assert!(begun.elapsed() >= Duration::from_millis(50));
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_hangs_is_waited_for_only_so_long() {
        let known = known(HOUR, HOUR);
        assert_eq!(known.get(1, async { Ok::<_, &str>(Some(7)) }, |_| true).await.unwrap(), Some(7));
        known.fresh.invalidate(&1).await;
        let hangs = std::future::pending::<Result<Option<u8>, &str>>();
        assert_eq!(known.get(1, hangs, |_| true).await.unwrap(), Some(7));
        assert!(known.outage.is_on());
    }
}
