//! How far consumer groups are behind, as metrics: ours, and those of everybody who reads our topics; and the projector,
//! whose offsets are in Postgres.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kafka::groups::{self, Lag};
use kafka::reader::TopicPartition;
use kafka::topics::{Topic, Topics};
use runtime::Shutdown;
use store::Store;
use store::projection::{self, JOBS, READER};

use crate::metric;

/// The topics that somebody reads on and on.
const READ: [Topic; 5] = [Topic::Poll, Topic::Discovered, Topic::Fetched, Topic::JobStatus, Topic::ConnectionStatus];

/// Those of them that the projector reads.
const PROJECTED: [Topic; 2] = [Topic::JobStatus, Topic::ConnectionStatus];

/// Groups that are told of at most, in the order of their names: each has a gauge for each topic that it reads.
const MOST: usize = 100;

/// A gauge: a group, and a topic without the prefix.
type Gauge = (String, &'static str);

/// Measures every so often until the order to stop. What cannot be measured is told at the next try.
pub(crate) async fn measure(kafka: &kafka::Settings, store: &Store, every: Duration, shutdown: &Shutdown) {
    if every.is_zero() {
        return;
    }
    let mut told = BTreeSet::new();
    while !shutdown.is_requested() {
        let found = tokio::select! {
            found = look(kafka, store) => found,
            // Brokers that are away hold up no stop.
            () = shutdown.requested() => return,
        };
        match found {
            Ok(found) => {
                // A group that is gone is behind no more.
                let now: BTreeSet<Gauge> = found.iter().map(|(gauge, _)| gauge.clone()).collect();
                told.difference(&now).for_each(|(group, topic)| metric::lag(group, topic, 0));
                found.iter().for_each(|((group, topic), lag)| metric::lag(group, topic, *lag));
                told = now;
            }
            // That passes by itself only where somebody grants a right.
            Err(error) if error.is_denied() => {
                tracing::warn!(%error, "How far consumers are behind is not known for want of a right");
            }
            Err(error) => tracing::debug!(%error, "How far consumers are behind is not known"),
        }
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = shutdown.requested() => return,
        }
    }
}

async fn look(kafka: &kafka::Settings, store: &Store) -> Result<Vec<(Gauge, u64)>, groups::Error> {
    let names = Topics::new(&kafka.topic_prefix);
    let topics: Vec<Arc<str>> = READ.iter().map(|topic| names.name(*topic).clone()).collect();
    let known: Vec<String> = groups::list(kafka).await?.into_iter().map(|group| group.name).collect();
    let mut found: Vec<(Gauge, u64)> = Vec::new();
    let mut groups = BTreeSet::new();
    // First, so that it is told of however many groups there are.
    let mut lags = projector(kafka, &names, store).await?;
    lags.extend(groups::lags(kafka, &known, &topics).await?);
    for lag in lags {
        let Some(topic) = READ.into_iter().find(|topic| **names.name(*topic) == *lag.partition.topic) else { continue };
        if groups.len() >= MOST && !groups.contains(&lag.group) {
            break;
        }
        groups.insert(lag.group.clone());
        let gauge = (lag.group, topic.base_name());
        match found.last_mut() {
            Some((last, sum)) if *last == gauge => *sum += lag.lag,
            _ => found.push((gauge, lag.lag)),
        }
    }
    Ok(found)
}

/// How far the projector is behind; nothing while Postgres is away.
async fn projector(kafka: &kafka::Settings, names: &Topics, store: &Store) -> Result<Vec<Lag>, groups::Error> {
    let positions = match projection::positions(store, JOBS).await {
        Ok(positions) => positions,
        Err(error) => {
            tracing::debug!(%error, "How far the projector is behind is not known");
            return Ok(Vec::new());
        }
    };
    let mut next = BTreeMap::new();
    for it in positions {
        next.insert(TopicPartition { topic: it.topic.into(), partition: it.partition }, it.next_offset);
    }
    let topics = PROJECTED.map(|topic| names.name(topic).clone());
    groups::lags_from(kafka, READER, &next, &topics).await
}
