//! Pauses between attempts at something that is away: growing, bounded, cut short by the order to stop.

use std::time::Duration;

use crate::Shutdown;

/// Pauses that double from a first to a longest one.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// Pauses from `first` to `longest`.
    #[must_use]
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first }
    }

    /// How long the next pause is; the one after it will be longer.
    pub fn advance(&mut self) -> Duration {
        let pause = self.next.min(self.longest);
        self.next = pause.saturating_mul(2);
        pause
    }

    /// The attempt worked: the next pause is the first again.
    pub const fn reset(&mut self) {
        self.next = self.first;
    }

    /// Pauses; says false, and ends at once, when the stop was ordered.
    pub async fn pause(&mut self, shutdown: &Shutdown) -> bool {
        let pause = self.advance();
        tokio::select! {
            biased;
            () = shutdown.requested() => false,
            () = tokio::time::sleep(pause) => true,
        }
    }
}

impl Default for Backoff {
    /// From 100 ms to 5 s: for servers that are restarted.
    fn default() -> Self {
        Self::new(Duration::from_millis(100), Duration::from_secs(5))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_the_longest_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(350));
        let pauses: Vec<_> = (0..4).map(|_| backoff.advance().as_millis()).collect();
        assert_eq!(pauses, [100, 200, 350, 350]);
        backoff.reset();
        assert_eq!(backoff.advance().as_millis(), 100);
    }

    #[tokio::test]
    async fn the_order_to_stop_cuts_a_pause_short() {
        let shutdown = Shutdown::new();
        shutdown.request();
        let mut backoff = Backoff::new(Duration::from_secs(3600), Duration::from_secs(3600));
        assert!(!backoff.pause(&shutdown).await);
    }
}
