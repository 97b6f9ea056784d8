//! Turns slots into commands.

use std::sync::Arc;

use bytes::Bytes;
use domain::{Duration, PollGmailConnection, Timestamp, Trigger, Window};
use events::TraceParent;
use events::headers::Envelope;
use futures_util::{StreamExt, stream};
use kafka::{OutRecord, Producer};
use runtime::health::Check;
use runtime::trace::Parent;
use runtime::{Backoff, Shutdown};

use crate::metric;
use crate::plan::{Round, Slot};

/// Who says so, in CloudEvents.
const SOURCE: &str = "urn:mailtide:scheduler";

/// Writes commands for slots.
pub(crate) struct Fire {
    pub(crate) producer: Producer,
    pub(crate) topic: Arc<str>,
    pub(crate) deadline: Duration,
    pub(crate) in_flight: usize,
    /// Passed with every attempt.
    pub(crate) alive: Arc<Check>,
}

impl Fire {
    /// Writes one command for each slot and waits until all are acknowledged, trying again while the brokers are
    /// away: a slot is never given up. False when the stop was ordered first; then the watermark must not move.
    pub(crate) async fn all(&self, slots: &[Slot], now: Timestamp, shutdown: &Shutdown) -> bool {
        // Made before they are streamed: a closure over borrowed slots inside the stream would keep whoever spawns
        // the service from proving that it may move between threads (rust-lang/rust#102211).
        let writes: Vec<_> = slots.iter().map(|slot| self.one(slot, now, shutdown)).collect();
        let written = stream::iter(writes).buffer_unordered(self.in_flight).all(std::future::ready).await;
        if let Some(slot) = slots.first().filter(|_| written) {
            metric::fired(slot.round, slots.len());
        }
        written
    }

    async fn one(&self, slot: &Slot, now: Timestamp, shutdown: &Shutdown) -> bool {
        // Nobody asked for it, so it begins a trace of its own.
        let span = kafka::trace::send(&self.topic, Parent::Root);
        span.set_with("messaging.kafka.message.key", || slot.connection.connection_id.to_string());
        let own = || TraceParent::new(rand::random(), rand::random());
        let trace = span.traceparent().and_then(|span| span.parse().ok()).unwrap_or_else(own);
        let record = self.record(slot, now, trace);
        let mut backoff = Backoff::default();
        loop {
            self.alive.pass();
            match self.producer.send(&record).await {
                Ok(_) => return true,
                Err(error) => {
                    tracing::warn!(%error, connection = %slot.connection.connection_id, "A scheduled sync waits");
                    metric::retried();
                }
            }
            span.event("not acknowledged");
            if !backoff.pause(shutdown).await {
                span.fail("stopped");
                return false;
            }
        }
    }

    fn record(&self, slot: &Slot, now: Timestamp, trace: TraceParent) -> OutRecord {
        let (trigger, window) = match slot.round {
            Round::Sync => (Trigger::Schedule, None),
            Round::Audit => (Trigger::Audit, Some(Window { since: slot.at - crate::AUDITED, until: slot.at })),
        };
        let command = PollGmailConnection {
            job_id: slot.job_id(),
            organisation_id: slot.connection.organisation_id,
            connection_id: slot.connection.connection_id,
            trigger,
            window,
            token_version: slot.connection.token_version,
            requested_at: now,
            deadline: now + self.deadline,
        };
        let frame = events::encode(&command);
        let headers = Envelope::new(SOURCE, now, trace).headers(&command, &frame);
        let key = Bytes::from(command.connection_id.to_string());
        OutRecord::new(&self.topic, key, frame, headers.into())
    }
}
