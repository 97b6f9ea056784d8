//! Records become a batch: facts folded, positions moved, and what does not decode set aside.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use events::headers::dead;
use kafka::reader::TopicPartition;
use kafka::topics::{Topic, Topics};
use kafka::{OutRecord, OwnedRecord};
use runtime::trace::{Beginning, Kind, Link, Parent, Span, is_on};
use store::projection::{self, Move};

use crate::fold::{Fact, Fold};

/// The topics that rows are made from.
pub(crate) const SOURCES: [Topic; 2] = [Topic::JobStatus, Topic::ConnectionStatus];

/// Where the projection stands in the partitions that it has begun: the next offset of each.
pub(crate) type Positions = BTreeMap<TopicPartition, i64>;

/// What was read since the last write.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// How many records.
    pub(crate) records: usize,
    /// What they come to.
    fold: Fold,
    /// The next offset of each partition that was read.
    next: Positions,
    /// Those that do not decode, on their way to the dead letters.
    pub(crate) dead: Vec<OutRecord>,
    /// Where traces are told, those that the records are parts of: the topic and the `traceparent` of each.
    traces: Traces,
}

/// The traces of a batch's records.
#[derive(Debug, Default)]
pub(crate) struct Traces(BTreeSet<(Arc<str>, String)>);

impl Traces {
    /// The most that one batch is told of.
    const MOST: usize = 128;

    fn note(&mut self, record: &OwnedRecord) {
        if !is_on() || self.0.len() >= Self::MOST {
            return;
        }
        if let Some(parent) = kafka::trace::parent_of(&record.headers).filter(|parent| Link::remote(parent).is_some()) {
            self.0.insert((record.topic.clone(), parent.to_owned()));
        }
    }

    /// The span of the batch itself, which points at all of them; nothing where none is recorded.
    pub(crate) fn whole(&self, records: usize) -> Span {
        if self.0.is_empty() {
            return Span::default();
        }
        let links = self.0.iter().filter_map(|(_, parent)| Link::remote(parent)).collect();
        let (kind, name, parent) = (Kind::Internal, "project".into(), Parent::Root);
        let span = Span::with(Beginning { kind, name, parent, at: None, links });
        span.set_with("messaging.batch.message_count", || i64::try_from(records).unwrap_or(i64::MAX));
        span
    }

    /// Tells each of them that what began `at` has come to its end: well, or to a failure of that class.
    pub(crate) fn end(self, at: SystemTime, whole: &Span, failure: Option<&'static str>) {
        for (topic, parent) in self.0 {
            let span = kafka::trace::process_all(&topic, 1, [parent.as_str()], Some(at));
            span.add_link(whole.link());
            if let Some(failure) = failure {
                span.fail(failure);
            }
        }
        if let Some(failure) = failure {
            whole.fail(failure);
        }
    }
}

impl Batch {
    /// Takes in a record, later than all before it of its partition. One that `positions` is past already is skipped.
    pub(crate) fn take(&mut self, record: OwnedRecord, topics: &Topics, positions: &Positions) {
        let at = TopicPartition { topic: record.topic.clone(), partition: record.partition };
        let next = self.next.get(&at).or_else(|| positions.get(&at)).copied();
        if next.is_some_and(|next| record.offset < next) {
            return;
        }
        self.records += 1;
        self.traces.note(&record);
        self.next.insert(at, record.offset + 1);
        match fact(&record, topics) {
            Ok(Some(fact)) => self.fold.take(fact),
            Ok(None) => {}
            Err(reason) => {
                tracing::error!(
                    topic = %record.topic,
                    partition = record.partition,
                    offset = record.offset,
                    %reason,
                    "A record does not decode and goes to the dead letters"
                );
                self.dead.push(dead_letter(record, topics.name(Topic::DeadLetter), &reason));
            }
        }
    }

    /// The traces of its records, to be ended when it is written.
    pub(crate) fn take_traces(&mut self) -> Traces {
        std::mem::take(&mut self.traces)
    }

    /// The batch as the store takes it, for a projection that stands at `positions`, and where it stands after it.
    pub(crate) fn into_store(self, positions: &Positions) -> (projection::Batch, Positions) {
        let moves = self.next.iter().map(|(at, next_offset)| Move {
            topic: at.topic.to_string(),
            partition: at.partition,
            expected: positions.get(at).copied(),
            next_offset: *next_offset,
        });
        let batch = projection::Batch {
            moves: moves.collect(),
            jobs: self.fold.jobs.into_values().collect(),
            connections: self.fold.connections.into_values().collect(),
        };
        let mut positions = positions.clone();
        positions.extend(self.next);
        (batch, positions)
    }
}

/// What a record says; nothing if it is the tombstone of a connection, whose last word was that it is forgotten.
fn fact(record: &OwnedRecord, topics: &Topics) -> Result<Option<Fact>, String> {
    let is = |topic| record.topic == *topics.name(topic);
    match &record.value {
        Some(value) if is(Topic::JobStatus) => events::decode(value).map(Fact::Job).map(Some),
        Some(value) => events::decode(value).map(Fact::Connection).map(Some),
        None if is(Topic::ConnectionStatus) => return Ok(None),
        None => return Err("the value is null, and a job has no tombstone".to_owned()),
    }
    .map_err(|error| error.to_string())
}

/// The record as it was, with headers that say where it was and why it is here.
fn dead_letter(record: OwnedRecord, topic: &Arc<str>, reason: &str) -> OutRecord {
    let OwnedRecord { topic: source, partition, offset, timestamp: _, key, value, mut headers } = record;
    headers.push(dead::TOPIC, source.to_string());
    headers.push(dead::PARTITION, partition.to_string());
    headers.push(dead::OFFSET, offset.to_string());
    headers.push(dead::REASON, reason.to_owned());
    OutRecord { topic: topic.clone(), partition: None, key, value, headers }
}

#[cfg(test)]
mod tests {
    use events::examples;
    use kafka::Headers;

    use super::*;

    fn record(topics: &Topics, topic: Topic, offset: i64, value: Option<&[u8]>) -> OwnedRecord {
        OwnedRecord {
            topic: topics.name(topic).clone(),
            partition: 3,
            offset,
            timestamp: None,
            key: Some("key".into()),
            value: value.map(|value| value.to_vec().into()),
            headers: Headers::new(),
        }
    }

    fn at(topics: &Topics, topic: Topic) -> TopicPartition {
        TopicPartition { topic: topics.name(topic).clone(), partition: 3 }
    }

    #[test]
    fn positions_move_past_every_record_whatever_it_is() {
        let topics = Topics::new("t.");
        let mut batch = Batch::default();
        let positions = Positions::from([(at(&topics, Topic::JobStatus), 5)]);
        let queued = events::encode(&examples::queued());
        batch.take(record(&topics, Topic::JobStatus, 4, Some(&queued)), &topics, &positions);
        assert_eq!(batch.records, 0, "it was written before");
        batch.take(record(&topics, Topic::JobStatus, 7, Some(&queued)), &topics, &positions);
        batch.take(record(&topics, Topic::JobStatus, 9, Some(b"no frame")), &topics, &positions);
        batch.take(record(&topics, Topic::ConnectionStatus, 0, None), &topics, &positions);
        assert_eq!((batch.records, batch.dead.len()), (3, 1));
        let (batch, after) = batch.into_store(&positions);
        assert_eq!(batch.jobs, [examples::queued()]);
        let moves: Vec<_> =
            batch.moves.iter().map(|step| (step.topic.as_str(), step.expected, step.next_offset)).collect();
        assert_eq!(moves, [("t.gmail.connection.status", None, 1), ("t.gmail.job.status", Some(5), 10)]);
        assert_eq!(after[&at(&topics, Topic::JobStatus)], 10);
    }

    #[test]
    fn a_dead_letter_says_where_from_and_why_and_keeps_the_bytes() {
        let topics = Topics::new("t.");
        let mut batch = Batch::default();
        let event = events::encode(&examples::from_history());
        batch.take(record(&topics, Topic::JobStatus, 9, Some(&event)), &topics, &Positions::new());
        batch.take(record(&topics, Topic::JobStatus, 10, None), &topics, &Positions::new());
        let [other, null] = batch.dead.as_slice() else { panic!("both are dead: {:?}", batch.dead) };
        assert_eq!(&*other.topic, "t.gmail.dead.letter");
        assert_eq!((other.key.as_deref(), other.value.as_ref()), (Some(b"key" as &[u8]), Some(&event)));
        let header = |record: &OutRecord, name| String::from_utf8(record.headers.get(name).unwrap().to_vec()).unwrap();
        assert_eq!(header(other, dead::TOPIC), "t.gmail.job.status");
        assert_eq!(header(other, dead::PARTITION), "3");
        assert_eq!(header(other, dead::OFFSET), "9");
        assert!(header(other, dead::REASON).contains("GmailMessageDiscovered"), "{}", header(other, dead::REASON));
        assert_eq!((null.value.as_ref(), header(null, dead::OFFSET).as_str()), (None, "10"));
    }
}
