//! Gathers records into batches.

use kafka::OwnedRecord;
use kafka::reader::{self, Reader};
use kafka::topics::Topics;
use tokio::time::{Instant, timeout_at};

use crate::Settings;
use crate::batch::{Batch, Positions};

/// Where records come from.
pub(crate) trait Source {
    /// The next records, at least one; waits for them. Dropped before it is ready, it has taken none.
    fn next(&mut self) -> impl Future<Output = Result<Vec<OwnedRecord>, reader::Error>> + Send;
}

impl Source for Reader {
    fn next(&mut self) -> impl Future<Output = Result<Vec<OwnedRecord>, reader::Error>> + Send {
        Self::next(self)
    }
}

/// The batch that is being gathered.
#[derive(Debug, Default)]
pub(crate) struct Gathering {
    batch: Batch,
    /// When it is written, however small; none before its first records have come.
    until: Option<Instant>,
}

impl Gathering {
    /// Waits for records and takes what comes within the linger, up to a batch's size. Dropped before it is ready, it
    /// keeps what it has: the source will not give it a second time, and positions go past it.
    ///
    /// # Errors
    /// When reading cannot go on.
    pub(crate) async fn batch(
        &mut self,
        source: &mut impl Source,
        settings: &Settings,
        topics: &Topics,
        positions: &Positions,
    ) -> Result<Batch, reader::Error> {
        while self.batch.records < settings.batch {
            let records = match self.until {
                None => source.next().await?,
                Some(until) => match timeout_at(until, source.next()).await {
                    Ok(records) => records?,
                    Err(_) => break,
                },
            };
            self.until.get_or_insert_with(|| Instant::now() + settings.linger);
            for record in records {
                self.batch.take(record, topics, positions);
            }
        }
        Ok(std::mem::take(self).batch)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::time::Duration;

    use kafka::Headers;
    use kafka::topics::Topic;
    use runtime::settings::Source as Settled;

    use super::*;

    /// Gives what it has, and then nothing.
    struct Queue(VecDeque<OwnedRecord>);

    impl Source for Queue {
        async fn next(&mut self) -> Result<Vec<OwnedRecord>, reader::Error> {
            match self.0.pop_front() {
                Some(record) => Ok(vec![record]),
                None => std::future::pending().await,
            }
        }
    }

    fn record(topics: &Topics, offset: i64) -> OwnedRecord {
        OwnedRecord {
            topic: topics.name(Topic::ConnectionStatus).clone(),
            partition: 0,
            offset,
            timestamp: None,
            key: None,
            value: None,
            headers: Headers::new(),
        }
    }

    /// Polls once.
    async fn polled<F: Future>(mut future: std::pin::Pin<&mut F>) -> std::task::Poll<F::Output> {
        std::future::poll_fn(|cx| std::task::Poll::Ready(future.as_mut().poll(cx))).await
    }

    #[tokio::test]
    async fn what_was_read_outlives_a_wait_that_is_broken_off() {
        let topics = Topics::new("test.");
        let settings = Settings {
            linger: Duration::from_secs(1),
            ..Settings::read(&mut Settled::from_parts(None, std::iter::empty::<(String, String)>()))
        };
        let mut queue = Queue((0..5).map(|offset| record(&topics, offset)).collect());
        let (mut gathering, positions) = (Gathering::default(), Positions::new());
        // Something else comes up while it waits for more, again and again.
        for _ in 0..9 {
            let mut wait = std::pin::pin!(gathering.batch(&mut queue, &settings, &topics, &positions));
            assert!(polled(wait.as_mut()).await.is_pending());
        }
        let batch = gathering.batch(&mut queue, &settings, &topics, &positions).await.unwrap();
        assert_eq!(batch.records, 5, "all that the source gave is in it");
        let (_, after) = batch.into_store(&positions);
        assert_eq!(after.values().copied().collect::<Vec<_>>(), [5]);
        // The next batch begins with nothing.
        queue.0.push_back(record(&topics, 5));
        assert_eq!(gathering.batch(&mut queue, &settings, &topics, &positions).await.unwrap().records, 1);
    }

    #[tokio::test]
    async fn a_full_batch_does_not_wait() {
        let topics = Topics::new("test.");
        let settings = Settings {
            batch: 3,
            ..Settings::read(&mut Settled::from_parts(None, std::iter::empty::<(String, String)>()))
        };
        let mut queue = Queue((0..7).map(|offset| record(&topics, offset)).collect());
        let (mut gathering, positions) = (Gathering::default(), Positions::new());
        for records in [3, 3, 1] {
            assert_eq!(gathering.batch(&mut queue, &settings, &topics, &positions).await.unwrap().records, records);
        }
    }
}
