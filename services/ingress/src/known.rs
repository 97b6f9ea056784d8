//! What the hot path knows without asking Postgres: API keys and connections, each remembered for a few seconds.

use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::future::Cache;

/// How long an absence is remembered: long enough that a flood of wrong keys costs one query a second each, short
/// enough that what was just created works.
const ABSENT: Duration = Duration::from_secs(1);

/// Answers of a slow, shared source, remembered for a bounded time and in bounded number. However many ask for the
/// same thing at once, one question goes out.
pub(crate) struct Known<K, V> {
    cache: Cache<K, Option<V>, foldhash::fast::RandomState>,
}

impl<K, V> Known<K, V>
where
    K: Hash + Eq + Send + Sync + Clone + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Remembers at most `entries` answers, each for at most `ttl`.
    pub(crate) fn new(entries: u64, ttl: Duration) -> Self {
        let cache = Cache::builder()
            .max_capacity(entries)
            .expire_after(Ttl { present: ttl, absent: ttl.min(ABSENT) })
            .build_with_hasher(foldhash::fast::RandomState::default());
        Self { cache }
    }

    /// What is known of `key`; if nothing, what `ask` says. A failed question is not remembered.
    pub(crate) async fn get<E, F>(&self, key: K, ask: F) -> Result<Option<V>, Arc<E>>
    where
        E: Send + Sync + 'static,
        F: Future<Output = Result<Option<V>, E>>,
    {
        match self.cache.get(&key).await {
            Some(known) => Ok(known),
            None => self.cache.try_get_with(key, ask).await,
        }
    }

    /// Drops what is remembered of `key`, here; elsewhere it goes by its time.
    pub(crate) async fn forget(&self, key: &K) {
        self.cache.invalidate(key).await;
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

    #[tokio::test]
    async fn many_at_once_ask_once() {
        let known = Arc::new(Known::<u8, u8>::new(10, Duration::from_secs(60)));
        let asked = Arc::new(AtomicUsize::new(0));
        let asks = (0..50).map(|_| {
            let (known, asked) = (Arc::clone(&known), Arc::clone(&asked));
            tokio::spawn(async move {
                let ask = async {
                    asked.fetch_add(1, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                    Ok::<_, Infallible>(Some(7))
                };
                known.get(1, ask).await.unwrap()
            })
        });
        for answer in asks.collect::<Vec<_>>() {
            assert_eq!(answer.await.unwrap(), Some(7));
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_failed_question_is_asked_again() {
        let known = Known::<u8, u8>::new(10, Duration::from_secs(60));
        assert_eq!(*known.get(1, async { Err("away") }).await.unwrap_err(), "away");
        assert_eq!(known.get(1, async { Ok::<_, Infallible>(Some(7)) }).await.unwrap(), Some(7));
    }

    #[tokio::test]
    async fn an_answer_is_forgotten_after_its_time_however_often_it_is_used() {
        let ttl = Duration::from_millis(50);
        let known = Known::<u8, u8>::new(10, ttl);
        let begun = Instant::now();
        let mut version = 0;
        // Ends only when the first answer is gone, though it is used all the time.
        while known.get(1, async { Ok::<_, Infallible>(Some(version)) }).await.unwrap() == Some(0) {
            version = 1;
            assert!(begun.elapsed() < Duration::from_secs(20), "the answer is never forgotten");
            tokio::task::yield_now().await;
        }
        assert!(begun.elapsed() >= ttl);
    }
}
