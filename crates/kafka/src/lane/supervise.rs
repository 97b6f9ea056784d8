//! Builds a lane, and builds it anew from what is committed when it fails.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use tracing::{error, info, warn};

use crate::client::{self, Context};
use crate::error::Cause;
use crate::lane::app::App;
use crate::lane::done::{self, LaneHandle, Waker};
use crate::lane::error::{Error, Failure};
use crate::lane::member::Member;
use crate::lane::restore::{Restorer, panic_message};
use crate::lane::status::{Phase, Shared};
use crate::lane::transaction::{Transactions, transactional_id};
use crate::lane::tuning::LaneSettings;
use crate::lane::turn::{Parts, Running};
use crate::settings::Settings;
use crate::{cluster, metrics as names, oauth, rights};

/// The pause after the first failure; it doubles with each that follows.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause between failures.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A lane that held this long has left its earlier failures behind.
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);

/// The life of a lane.
pub(crate) struct Supervisor<F> {
    settings: Settings,
    lane: LaneSettings,
    group: String,
    shared: Arc<Shared>,
    make_app: F,
}

impl<F> Supervisor<F> {
    pub(crate) fn new(settings: Settings, lane: LaneSettings, shared: Arc<Shared>, make_app: F) -> Self {
        let group = format!("{}{}", settings.topic_prefix, lane.service);
        Self { settings, lane, group, shared, make_app }
    }

    /// Runs the lane until it is stopped or given up.
    pub(crate) fn run<A>(mut self) -> Result<(), Error>
    where
        A: App,
        F: FnMut(LaneHandle<A::Done>) -> A,
    {
        let mut failures = 0;
        let mut pause = FIRST_PAUSE;
        let result = loop {
            let begun = Instant::now();
            let mut has_committed = false;
            let attempt = catch_unwind(AssertUnwindSafe(|| self.attempt(&mut has_committed)));
            let attempt = attempt.unwrap_or_else(|panic| Err(Failure::Panicked(panic_message(panic.as_ref()))));
            let Err(failure) = attempt else { break Ok(()) };
            let failure = self.explained(failure);
            let LaneSettings { service, lane, .. } = self.lane;
            if failure.is_final() {
                break Err(Error::Unworkable { service, lane, failure: Box::new(failure) });
            }
            if has_committed || begun.elapsed() > FORGIVEN_AFTER {
                (failures, pause) = (0, FIRST_PAUSE);
            }
            // A lane that cannot reach Kafka waits for it: to give up would not bring it nearer.
            if !failure.is_unreachable() {
                failures += 1;
            }
            self.note(&failure, failures, pause);
            if failures >= self.settings.lane.max_failures {
                break Err(Error::GivenUp { service, lane, failures, failure: Box::new(failure) });
            }
            if !self.pause_for(jittered(pause)) {
                break Ok(());
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        };
        let mut status = self.shared.status();
        status.phase = Phase::Stopped;
        status.partitions.clear();
        drop(status);
        if let Err(error) = &result {
            error!(%error, "A lane has ended");
        }
        result
    }

    /// Builds the lane and runs it. Returns without an error only when it was stopped.
    fn attempt<A>(&mut self, has_committed: &mut bool) -> Result<(), Failure>
    where
        A: App,
        F: FnMut(LaneHandle<A::Done>) -> A,
    {
        let Self { settings, lane, group, shared, make_app } = self;
        let partitions = check_topics(settings, lane)?;
        // First the producer: from here on the predecessor is fenced, and what it left open is aborted, so that the
        // stable fetch of its partitions need not wait for the broker to do so.
        let transactions = Transactions::take_over(settings, lane, || shared.is_stopping())?;
        if shared.is_stopping() {
            return Ok(());
        }
        let waker = Waker::current();
        let restorer = Restorer::start(settings, lane, group, waker.clone())?;
        let (sender, done) = done::queue(settings.lane.done_queue, waker.clone());
        let app = make_app(LaneHandle { done: sender, partitions, lane: lane.lane });
        let member = Member::join(settings, lane, group, waker)?;
        info!(service = lane.service, lane = lane.lane, topic = %lane.input, "Lane started");
        let parts = Parts { app, done, restorer, member, transactions };
        let mut running = Running::new(parts, lane, &settings.lane, shared.clone());
        let result = catch_unwind(AssertUnwindSafe(|| running.run()));
        *has_committed = running.commits() > 0;
        result.unwrap_or_else(|panic| Err(Failure::Panicked(panic_message(panic.as_ref()))))
    }

    /// A failure that is for want of a right says which.
    fn explained(&self, failure: Failure) -> Failure {
        let cause = match &failure {
            Failure::Call { cause, .. } | Failure::Record { cause, .. } if cause.is_denied() => Some(cause),
            // The last reason is known as a text only.
            Failure::Aborting { .. } => None,
            Failure::Client { .. }
            | Failure::Call { .. }
            | Failure::Undrained { .. }
            | Failure::Fenced { .. }
            | Failure::Record { .. }
            | Failure::Rewound { .. }
            | Failure::Denied { .. }
            | Failure::Panicked(_)
            | Failure::Thread(_)
            | Failure::Refused { .. }
            | Failure::CoPartitioning { .. } => return failure,
        };
        let id = transactional_id(&self.settings, &self.lane);
        match rights::explain(&self.settings, self.lane.service, &id, cause) {
            Some(lacking) => Failure::Denied { what: failure.to_string(), lacking },
            None => failure,
        }
    }

    fn note(&self, failure: &Failure, failures: u32, pause: Duration) {
        let LaneSettings { service, lane, .. } = self.lane;
        warn!(%failure, service, lane, failures, ?pause, "A lane is dropped and built anew");
        metrics::counter!(names::RESTARTS.name, "service" => service, "lane" => lane.to_string()).increment(1);
        if failure.is_fenced() {
            metrics::counter!(names::TRANSACTIONS.name, "service" => service, "lane" => lane.to_string(),
                "outcome" => "fenced")
            .increment(1);
        }
        let mut status = self.shared.status();
        status.phase = Phase::Recovering;
        status.partitions.clear();
        status.restarts += 1;
        status.fenced += u64::from(failure.is_fenced());
        status.last_failure = Some(failure.to_string());
        status.last_turn = Instant::now();
    }

    /// Waits; false if the lane is to stop.
    fn pause_for(&self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        while !self.shared.is_stopping() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            thread::park_timeout(left);
        }
        false
    }
}

/// Between half of it and all of it, so that lanes that failed together do not return together.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(0.5..=1.0))
}

/// The input's partition count, which must be the state's, too.
fn check_topics(settings: &Settings, lane: &LaneSettings) -> Result<i32, Failure> {
    const ANSWER: Duration = Duration::from_secs(5);
    let consumer: BaseConsumer<Context> = client::base(settings, &format!("{}-{}-check", lane.service, lane.lane))
        .create_with_context(Context::of(settings))
        .map_err(|error| Failure::Client { what: "checking client", cause: error.into() })?;
    oauth::authorise(settings, consumer.client());
    let count = |topic: &str, what: &'static str| {
        let count = cluster::partition_count(&consumer, topic, ANSWER);
        count.map_err(|error| Failure::Call { what, cause: Cause::from(error) })
    };
    let input_partitions = count(&lane.input, "looking up the input topic")?;
    if let Some(state) = &lane.state {
        let state_partitions = count(state, "looking up the state topic")?;
        if state_partitions != input_partitions {
            let (input, state) = (lane.input.clone(), state.clone());
            return Err(Failure::CoPartitioning { input, input_partitions, state, state_partitions });
        }
    }
    Ok(input_partitions)
}
