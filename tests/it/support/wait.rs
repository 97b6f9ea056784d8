//! Waiting for a condition, with a deadline and a message that says what never came.

use std::future::Future;
use std::time::{Duration, Instant};

/// Long enough for anything that happens at all, on a slow and busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Waits until `condition` holds.
///
/// # Panics
/// When it does not within `limit`.
pub(crate) async fn wait_until<F>(limit: Duration, what: &str, mut condition: impl FnMut() -> F)
where
    F: Future<Output = bool>,
{
    wait_for(limit, what, || {
        let holds = condition();
        async move { holds.await.then_some(()) }
    })
    .await;
}

/// Waits until `look` finds something, and gives it.
///
/// # Panics
/// When it does not within `limit`.
pub(crate) async fn wait_for<T, F>(limit: Duration, what: &str, mut look: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let started = Instant::now();
    loop {
        // A look that hangs must not outlive the deadline either.
        let left = limit.saturating_sub(started.elapsed());
        match tokio::time::timeout(left, look()).await {
            Ok(Some(found)) => return found,
            Ok(None) if started.elapsed() < limit => tokio::time::sleep(PAUSE).await,
            Ok(None) => panic!("not within {limit:?}: {what}"),
            Err(_) => panic!("not within {limit:?}: {what} (the last look did not end)"),
        }
    }
}
