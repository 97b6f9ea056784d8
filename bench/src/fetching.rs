//! A fetcher at work: how messages are announced to it, and how one sees what it has fetched.

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, ensure};
use kafka::Reader;
use kafka::topics::{self, Topic, Topics};
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::util::Timeout;
use runtime::Shutdown;
use runtime::health::Health;
use tokio::task::{JoinHandle, block_in_place};

use crate::bare::{self, Bytes};
use crate::syncs::{next, read_on};

/// A fetcher with its topics.
pub(crate) struct Fetching {
    announcer: BaseProducer,
    discovered: Arc<str>,
    fetched: Reader,
    shutdown: Shutdown,
    fetcher: JoinHandle<anyhow::Result<()>>,
}

impl Fetching {
    /// Creates the topics and starts a fetcher.
    pub(crate) async fn start<R>(
        kafka: &kafka::Settings,
        run: impl FnOnce(Health, Shutdown) -> R,
    ) -> anyhow::Result<Self>
    where
        R: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let topics = Topics::new(&kafka.topic_prefix);
        topics::create(kafka, &topics, &Topic::ALL).await?;
        let fetched = read_on(kafka, topics.name(Topic::Fetched)).await?;
        let announcer = block_in_place(|| bare::transactional(kafka))?;
        let shutdown = Shutdown::new();
        let fetcher = tokio::spawn(run(Health::new(), shutdown.clone()));
        Ok(Self { announcer, discovered: topics.name(Topic::Discovered).clone(), fetched, shutdown, fetcher })
    }

    /// Announces messages, all at once: none can be read before the transaction is committed. Gives the moment just
    /// before that.
    pub(crate) fn announce<'a>(&self, announcements: impl IntoIterator<Item = &'a Bytes>) -> anyhow::Result<Instant> {
        block_in_place(|| {
            self.announcer.begin_transaction()?;
            for record in announcements {
                bare::enqueue(&self.announcer, &self.discovered, record, record.partition)?;
            }
            bare::drain(&self.announcer);
            let begun = Instant::now();
            self.announcer.commit_transaction(Timeout::Never)?;
            Ok(begun)
        })
    }

    /// Waits until a committed read has seen so many more messages, and no more than that.
    pub(crate) async fn fetched(&mut self, n: usize) -> anyhow::Result<()> {
        seen(&mut self.fetched, n).await
    }

    /// Stops the fetcher.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.shutdown.request();
        self.fetcher.await?
    }
}

/// Waits until so many more records have been read, and no more than that.
pub(crate) async fn seen(reader: &mut Reader, n: usize) -> anyhow::Result<()> {
    let mut seen = 0;
    while seen < n {
        seen += next(reader).await.with_context(|| format!("{seen} of {n} messages were fetched"))?.len();
    }
    ensure!(seen == n, "{seen} messages were fetched where {n} were announced");
    Ok(())
}
