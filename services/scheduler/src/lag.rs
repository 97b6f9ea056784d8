//! How far consumer groups are behind, as metrics: ours, and those of everybody who reads our topics.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use kafka::groups;
use kafka::topics::{Topic, Topics};
use runtime::Shutdown;

use crate::metric;

/// The topics that somebody reads on and on.
const READ: [Topic; 5] = [Topic::Poll, Topic::Discovered, Topic::Fetched, Topic::JobStatus, Topic::ConnectionStatus];

/// Groups that are told of at most, in the order of their names: each has a gauge for each topic that it reads.
const MOST: usize = 100;

/// A gauge: a group, and a topic without the prefix.
type Gauge = (String, &'static str);

/// Measures every so often until the order to stop. What cannot be measured is told at the next try.
pub(crate) async fn measure(kafka: &kafka::Settings, every: Duration, shutdown: &Shutdown) {
    if every.is_zero() {
        return;
    }
    let mut told = BTreeSet::new();
    while !shutdown.is_requested() {
        let found = tokio::select! {
            found = look(kafka) => found,
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
            Err(error) => tracing::debug!(%error, "How far consumers are behind is not known"),
        }
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = shutdown.requested() => return,
        }
    }
}

async fn look(kafka: &kafka::Settings) -> Result<Vec<(Gauge, u64)>, groups::Error> {
    let names = Topics::new(&kafka.topic_prefix);
    let topics: Vec<Arc<str>> = READ.iter().map(|topic| names.name(*topic).clone()).collect();
    let known: Vec<String> = groups::list(kafka).await?.into_iter().map(|group| group.name).collect();
    let mut found: Vec<(Gauge, u64)> = Vec::new();
    let mut groups = BTreeSet::new();
    for lag in groups::lags(kafka, &known, &topics).await? {
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
