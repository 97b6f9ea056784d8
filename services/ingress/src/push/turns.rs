//! When a mailbox's pushes become commands: at most one in a while, and none is answered before one that came after it
//! is written.

use std::sync::Arc;
use std::time::Duration;

use domain::ConnectionId;
use moka::sync::Cache;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// A mailbox without a push for so long loses its place.
const IDLE: Duration = Duration::from_secs(30 * 60);

/// The turns of all mailboxes; bounded, and without a task of their own.
pub(crate) struct Turns {
    turns: Cache<ConnectionId, Arc<Turn>>,
    spacing: Duration,
}

/// The turn of one mailbox: when the writing of its newest command began. Held by the one that writes.
pub(crate) type Turn = Mutex<Option<Instant>>;

impl Turns {
    /// Turns of at most `mailboxes`; with more, the spacing of some is not kept.
    pub(crate) fn new(mailboxes: u64, spacing: Duration) -> Self {
        Self { turns: Cache::builder().max_capacity(mailboxes).time_to_idle(IDLE).build(), spacing }
    }

    /// The turn of one mailbox.
    pub(crate) fn of(&self, connection: ConnectionId) -> Arc<Turn> {
        self.turns.get_with(connection, Arc::default)
    }

    /// Ends when a command that was begun after this call is written, by `write` or by another that waited; tells
    /// whether it was `write`. A failure is the caller's own: whoever waits tries for itself.
    pub(crate) async fn take<E>(&self, turn: &Turn, write: impl AsyncFnOnce() -> Result<(), E>) -> Result<bool, E> {
        let came = Instant::now();
        let mut written = turn.lock().await;
        if let Some(began) = *written {
            // Written while this one waited, it covers what this one was told of.
            if began > came {
                return Ok(false);
            }
            tokio::time::sleep_until(began + self.spacing).await;
        }
        let began = Instant::now();
        write().await?;
        *written = Some(began);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use domain::ConnectionId;
    use futures_util::future::join_all;
    use uuid::Uuid;

    use super::*;

    const SPACING: Duration = Duration::from_secs(1);

    fn id(n: u128) -> ConnectionId {
        ConnectionId::from_uuid(Uuid::from_u128(n))
    }

    #[tokio::test(start_paused = true)]
    async fn many_at_once_become_one_command_now_and_one_after_the_spacing() {
        let turns = Turns::new(10, SPACING);
        let turn = turns.of(id(1));
        let written = RefCell::new(Vec::new());
        let start = Instant::now();
        let write = async || {
            tokio::time::sleep(Duration::from_millis(5)).await;
            written.borrow_mut().push(start.elapsed());
            Ok::<_, ()>(())
        };
        turns.take(&turn, write).await.unwrap();
        // They come while the first is over and the spacing is not.
        let mine = join_all((0..100).map(|_| turns.take(&turn, write))).await;
        assert_eq!(mine.into_iter().filter(|mine| mine.unwrap()).count(), 1);
        assert_eq!(*written.borrow(), [Duration::from_millis(5), SPACING + Duration::from_millis(5)]);
        // Another mailbox waits for nobody.
        turns.take(&turns.of(id(2)), write).await.unwrap();
        assert_eq!(written.borrow()[2], SPACING + Duration::from_millis(10));
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_while_a_command_is_written_is_not_covered_by_it() {
        let turns = Turns::new(10, SPACING);
        let turn = turns.of(id(1));
        let slow = async || {
            tokio::time::sleep(Duration::from_millis(100)).await;
            Ok::<_, ()>(())
        };
        let late = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            turns.take(&turn, slow).await
        };
        assert_eq!(tokio::join!(turns.take(&turn, slow), late), (Ok(true), Ok(true)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_the_writers_own() {
        let turns = Turns::new(10, SPACING);
        let turn = turns.of(id(1));
        let fail = async || Err("away");
        assert_eq!(turns.take(&turn, fail).await, Err("away"));
        assert_eq!(turns.take(&turn, async || Ok::<_, &str>(())).await, Ok(true));
    }
}
