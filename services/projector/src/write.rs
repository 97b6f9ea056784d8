//! Writes batches: the dead letters first, then rows and positions in one transaction.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use kafka::reader::TopicPartition;
use kafka::topics::Topics;
use kafka::{OutRecord, Producer};
use runtime::health::Check;
use runtime::{Backoff, Shutdown};
use store::{Store, projection};

use crate::batch::{Batch, Positions, SOURCES};
use crate::{PROJECTION, metric};

/// Where batches go.
#[derive(Debug, Clone)]
pub(crate) struct Writer {
    pub(crate) store: Store,
    pub(crate) producer: Producer,
    pub(crate) topics: Topics,
    pub(crate) shutdown: Shutdown,
    /// The service's sign of life, where it is one.
    pub(crate) alive: Option<Arc<Check>>,
}

/// What became of a batch.
#[derive(Debug)]
pub(crate) enum Written {
    /// It is written; the projection stands here now.
    Done(Positions),
    /// Another projector was quicker. Nothing was written.
    Fenced,
    /// Postgres did not say. The positions there do.
    Unknown(store::Error),
    /// The stop was ordered first.
    Stopped,
}

impl Writer {
    /// A sign of life: what is done next ends by itself, and soon.
    pub(crate) fn beat(&self) {
        if let Some(alive) = &self.alive {
            alive.pass();
        }
    }

    /// Where the projection stands. Positions of topics under another prefix are left out.
    pub(crate) async fn positions(&self) -> Result<Positions, store::Error> {
        let ours: BTreeMap<&str, _> =
            SOURCES.iter().map(|topic| self.topics.name(*topic)).map(|name| (name.as_ref(), name)).collect();
        let positions = projection::positions(&self.store, PROJECTION).await?;
        Ok(positions
            .into_iter()
            .filter_map(|stored| {
                let topic = (*ours.get(stored.topic.as_str())?).clone();
                Some((TopicPartition { topic, partition: stored.partition }, stored.next_offset))
            })
            .collect())
    }

    /// Writes a batch for a projection that stands at `positions`.
    ///
    /// A dead letter is acknowledged before the transaction that moves past its record, so none is lost; a kill in
    /// between, or another projector that reads the same record, writes it once more, under the same source offset.
    ///
    /// # Errors
    /// When Postgres refuses the batch for good.
    pub(crate) async fn write(&self, mut batch: Batch, positions: &Positions) -> Result<Written, store::Error> {
        let (started, at) = (Instant::now(), SystemTime::now());
        for record in std::mem::take(&mut batch.dead) {
            if !self.dead_letter(record).await {
                return Ok(Written::Stopped);
            }
        }
        let records = batch.records;
        let traces = batch.take_traces();
        let whole = traces.whole(records);
        let (batch, after) = batch.into_store(positions);
        let applied = whole.scope(projection::apply(&self.store, PROJECTION, batch)).await;
        let failure = applied.as_ref().err().map(|error| match error {
            store::Error::Fenced { .. } => "fenced",
            error if error.is_unavailable() => "unavailable",
            _ => "refused",
        });
        traces.end(at, &whole, failure);
        match applied {
            Ok(applied) => {
                metric::written(records, applied, started.elapsed());
                Ok(Written::Done(after))
            }
            Err(store::Error::Fenced { .. }) => {
                metric::fenced();
                Ok(Written::Fenced)
            }
            Err(error) if error.is_unavailable() => Ok(Written::Unknown(error)),
            Err(error) => Err(error),
        }
    }

    /// Writes a dead letter and waits for the acknowledgement, trying again while the brokers are away. False when
    /// the stop was ordered first.
    async fn dead_letter(&self, record: OutRecord) -> bool {
        let mut backoff = Backoff::default();
        while let Err(error) = self.producer.send(&record).await {
            tracing::warn!(%error, "A dead letter waits");
            self.beat();
            if !backoff.pause(&self.shutdown).await {
                return false;
            }
        }
        metric::dead_letter();
        true
    }
}
