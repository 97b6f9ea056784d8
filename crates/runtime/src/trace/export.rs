//! From ended spans to deliveries: a bounded queue between whoever works and the one task that speaks to the collector.
//!
//! Not the SDK's batching: that one blocks a thread of its own, and counts what it drops nowhere that we could tell.

use std::time::Duration;

use metrics::Counter;
use opentelemetry::Context;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanExporter, SpanProcessor};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

use crate::metric::TRACE_SPANS;

/// The most spans of one delivery.
const BATCH: usize = 512;

/// How long a span waits for others at most.
const LINGER: Duration = Duration::from_secs(1);

/// Where spans go when they end. Never waits: what finds no room is dropped and counted.
#[derive(Debug)]
pub(super) struct Queue {
    spans: mpsc::Sender<SpanData>,
    dropped: Counter,
}

/// The task that delivers.
#[derive(Debug)]
pub(super) struct Exporting {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// Starts to deliver what comes into a queue of so many spans.
pub(super) fn start<E: SpanExporter + 'static>(exporter: E, capacity: usize) -> (Queue, Exporting) {
    let (spans, waiting) = mpsc::channel(capacity);
    let (stop, stopped) = oneshot::channel();
    let task =
        Delivering { exporter, waiting, delivered: count("delivered"), failed: count("failed"), is_failing: false };
    let task = tokio::spawn(task.run(stopped));
    (Queue { spans, dropped: count("dropped") }, Exporting { stop, task })
}

fn count(outcome: &'static str) -> Counter {
    metrics::counter!(TRACE_SPANS.name, "outcome" => outcome)
}

impl Exporting {
    /// Delivers what waits, for at most as long as `within`.
    pub(super) async fn stop(self, within: Duration) {
        // The task may have ended with a panic, which its handle tells.
        let _ = self.stop.send(());
        let task = self.task.abort_handle();
        match timeout(within, self.task).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "The export of traces broke"),
            Err(_) => {
                task.abort();
                tracing::warn!(?within, "The collector did not take the last traces in time");
            }
        }
    }
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() && self.spans.try_send(span).is_err() {
            self.dropped.increment(1);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

struct Delivering<E> {
    exporter: E,
    waiting: mpsc::Receiver<SpanData>,
    delivered: Counter,
    failed: Counter,
    is_failing: bool,
}

impl<E: SpanExporter> Delivering<E> {
    async fn run(mut self, mut stopped: oneshot::Receiver<()>) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let is_over = tokio::select! {
                biased;
                // What waits is still taken, but nothing more gets in.
                _ = &mut stopped, if !self.waiting.is_closed() => {
                    self.waiting.close();
                    continue;
                }
                came = self.waiting.recv_many(&mut batch, BATCH) => came == 0,
            };
            if is_over {
                return;
            }
            let until = Instant::now() + LINGER;
            while batch.len() < BATCH && !self.waiting.is_closed() {
                let room = BATCH - batch.len();
                tokio::select! {
                    biased;
                    _ = &mut stopped => self.waiting.close(),
                    more = timeout_at(until, self.waiting.recv_many(&mut batch, room)) => if more.is_err() { break },
                }
            }
            self.deliver(std::mem::replace(&mut batch, Vec::with_capacity(BATCH))).await;
        }
    }

    async fn deliver(&mut self, batch: Vec<SpanData>) {
        let spans = batch.len();
        match self.exporter.export(batch).await {
            Ok(()) => {
                self.delivered.increment(spans as u64);
                if std::mem::take(&mut self.is_failing) {
                    tracing::info!("The collector takes traces again");
                }
            }
            Err(error) => {
                self.failed.increment(spans as u64);
                if !std::mem::replace(&mut self.is_failing, true) {
                    tracing::warn!(%error, spans, "The collector takes no traces; they are dropped until it does");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use opentelemetry::trace::{Span as _, Tracer as _};
    use opentelemetry_sdk::Resource;
    use opentelemetry_sdk::error::OTelSdkError;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::trace::{Settings, tracer};

    /// A collector that takes a delivery for each permit, and refuses those of a span called `refused`.
    #[derive(Debug, Clone)]
    struct Collector {
        taken: Arc<Mutex<Vec<String>>>,
        permits: Arc<Semaphore>,
    }

    impl SpanExporter for Collector {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            self.permits.acquire().await.unwrap().forget();
            if batch.iter().any(|span| span.name == "refused") {
                return Err(OTelSdkError::InternalFailure("refused".to_owned()));
            }
            self.taken.lock().unwrap().extend(batch.into_iter().map(|span| span.name.into_owned()));
            Ok(())
        }
    }

    fn collector(permits: usize) -> Collector {
        Collector { taken: Arc::default(), permits: Arc::new(Semaphore::new(permits)) }
    }

    fn sampling() -> crate::trace::Sampling {
        Settings::read(&mut crate::settings::Source::from_parts::<String, String>(None, [])).sampling
    }

    #[tokio::test(start_paused = true)]
    async fn a_collector_that_hangs_holds_nobody_up_and_what_ended_is_delivered_at_the_end() {
        let collector = collector(0);
        let (queue, exporting) = start(collector.clone(), 4);
        let tracer = tracer(queue, sampling(), Resource::builder_empty().build());
        tracer.start("first").end();
        // The one delivery under way hangs; four more find room, and the rest is dropped.
        tokio::time::sleep(LINGER * 2).await;
        for number in 0..10 {
            tracer.start(format!("span {number}")).end();
        }
        collector.permits.add_permits(10);
        exporting.stop(Duration::from_secs(5)).await;
        let taken = collector.taken.lock().unwrap().clone();
        assert_eq!(taken, ["first", "span 0", "span 1", "span 2", "span 3"]);
        tracer.start("late").end();
    }

    #[tokio::test(start_paused = true)]
    async fn a_delivery_that_is_refused_is_given_up_and_the_next_goes_on() {
        let collector = collector(10);
        let (queue, exporting) = start(collector.clone(), 4);
        let tracer = tracer(queue, sampling(), Resource::builder_empty().build());
        tracer.start("refused").end();
        tokio::time::sleep(LINGER * 2).await;
        tracer.start("taken").end();
        exporting.stop(Duration::from_secs(5)).await;
        assert_eq!(*collector.taken.lock().unwrap(), ["taken"]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_does_not_wait_for_a_collector_that_hangs() {
        let (queue, exporting) = start(collector(0), 4);
        let tracer = tracer(queue, sampling(), Resource::builder_empty().build());
        tracer.start("span").end();
        exporting.stop(Duration::from_secs(1)).await;
    }
}
