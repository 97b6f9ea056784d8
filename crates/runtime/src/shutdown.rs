//! The order to stop: asked for once, seen by everybody, waited for only so long.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// A token that says whether this process, or a part of it, is to stop. Clones are the same
/// token. Stopping cannot be taken back.
#[derive(Debug, Clone)]
pub struct Shutdown {
    requested: Arc<watch::Sender<bool>>,
}

/// What ran longer than it was given after the order to stop.
#[derive(Debug, thiserror::Error)]
#[error("{what} did not stop within {limit:?}; it was abandoned")]
pub struct Overdue {
    what: String,
    limit: Duration,
}

impl Shutdown {
    /// A token that only [`Shutdown::request`] triggers.
    #[must_use]
    pub fn new() -> Self {
        Self { requested: Arc::new(watch::Sender::new(false)) }
    }

    /// A token that SIGTERM and SIGINT trigger. A second signal ends the process at once, with
    /// the code a shell gives for that signal: whoever repeats it does not want to wait.
    ///
    /// # Errors
    /// When the signals cannot be listened to.
    pub fn on_signals() -> std::io::Result<Self> {
        let shutdown = Self::new();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let token = shutdown.clone();
        tokio::spawn(async move {
            loop {
                let (name, number) = tokio::select! {
                    Some(()) = terminate.recv() => ("SIGTERM", SignalKind::terminate().as_raw_value()),
                    Some(()) = interrupt.recv() => ("SIGINT", SignalKind::interrupt().as_raw_value()),
                    else => return,
                };
                if token.is_requested() {
                    tracing::warn!(signal = name, "Stopped at once by a second signal");
                    std::process::exit(128 + number);
                }
                tracing::info!(signal = name, "Stopping");
                token.request();
            }
        });
        Ok(shutdown)
    }

    /// Orders the stop. Ordering it again changes nothing.
    pub fn request(&self) {
        self.requested.send_replace(true);
    }

    /// Whether the stop was ordered. For loops on threads of their own.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        *self.requested.borrow()
    }

    /// Ends when the stop is ordered; at once if it was already.
    pub async fn requested(&self) {
        let mut seen = self.requested.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        let _ = seen.wait_for(|requested| *requested).await;
    }

    /// Runs `work`, which must itself heed this token, to its end, but waits no longer than
    /// `limit` once the stop is ordered.
    ///
    /// # Errors
    /// [`Overdue`], naming `what`, when it was still running then. It is dropped.
    pub async fn bounded<T>(&self, what: &str, limit: Duration, work: impl Future<Output = T>) -> Result<T, Overdue> {
        let overdue = async {
            self.requested().await;
            tokio::time::sleep(limit).await;
        };
        tokio::select! {
            biased;
            done = work => Ok(done),
            () = overdue => Err(Overdue { what: what.to_owned(), limit }),
        }
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test]
    async fn every_clone_sees_the_request() {
        let shutdown = Shutdown::new();
        let waiting = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { shutdown.requested().await }
        });
        assert!(!shutdown.is_requested());
        shutdown.clone().request();
        waiting.await.unwrap();
        shutdown.requested().await;
        assert!(shutdown.is_requested());
    }

    #[tokio::test]
    async fn work_that_heeds_the_token_ends_by_itself() {
        let shutdown = Shutdown::new();
        let work = async {
            shutdown.requested().await;
            tokio::task::yield_now().await;
            7
        };
        shutdown.request();
        assert_eq!(shutdown.bounded("the work", Duration::from_secs(60), work).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn work_that_does_not_is_given_up() {
        let shutdown = Shutdown::new();
        shutdown.request();
        let error = shutdown.bounded("the lane", Duration::from_millis(20), pending::<()>()).await.unwrap_err();
        assert_eq!(error.to_string(), "the lane did not stop within 20ms; it was abandoned");
    }

    #[tokio::test]
    async fn without_a_request_work_may_take_its_time() {
        let work = tokio::time::sleep(Duration::from_millis(20));
        assert!(Shutdown::new().bounded("the work", Duration::ZERO, work).await.is_ok());
    }
}
