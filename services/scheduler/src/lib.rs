//! The scheduler: asks for a sync of every connection twice a day, or as often as the connection says, and for an audit
//! once a day, each at a time of day of its own.
//!
//! When a connection is due is arithmetic ([`domain::schedule`]); all that is stored is one instant, the watermark, up
//! to which every slot has been fired and acknowledged. It moves after the acknowledgements, so a crash repeats slots
//! and never skips one; a repeated slot is the same job, which the poller knows. Any number of schedulers may run: the
//! one that is ahead fires, the others see its watermark and skip what it did.

mod fire;
mod lag;
mod metric;
mod pace;
mod plan;
mod settings;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use domain::Timestamp;
use domain::schedule::Schedule;
use kafka::Producer;
use kafka::rights::{self, Role};
use kafka::topics::{self, Topic, Topics};
use runtime::health::{Check, Health};
use runtime::{Backoff, Shutdown};
use store::Store;
use tokio::task::JoinHandle;

pub use metric::ALL as METRICS;
pub use settings::Settings;

use crate::fire::Fire;
use crate::pace::Pace;
use crate::plan::{Plan, Round};
use crate::settings::millis;

/// The watermark's name in the store.
pub const SCHEDULE: &str = "gmail-sync";

/// The name of the audits' watermark.
pub const AUDITS: &str = "gmail-audit";

/// How much time before its slot an audit compares. With a slot a day, each day is looked at twice.
pub const AUDITED: domain::Duration = domain::mailbox::Rules::DEFAULT.audit;

/// The schedule looks at the clock at least so often.
const TICK: Duration = Duration::from_secs(1);

/// And at most so often: what falls due within it is fired together.
const PAUSE: Duration = Duration::from_millis(200);

/// Slots fired between two moves of the watermark, so that a crash repeats few.
const BATCH: usize = 1_000;

/// With nothing to fire the watermark still moves so often.
const IDLE: domain::Duration = domain::Duration::from_secs(15);

/// Fires the schedule until the order to stop.
///
/// # Errors
/// When the topic cannot be had, or the settings or the schema of Postgres cannot be used. Servers that are away are
/// waited for.
pub async fn run(settings: Settings, health: Health, shutdown: Shutdown) -> anyhow::Result<()> {
    let checks = (health.readiness("scheduler"), health.readiness("scheduler-audits"));
    let topics = Topics::new(&settings.kafka.topic_prefix);
    rights::check(&settings.kafka, Role::Scheduler).await.context("asking what the scheduler may do")?;
    topics::create(&settings.kafka, &topics, &[Topic::Poll]).await.context("creating the scheduler's topic")?;
    let producer = Producer::new(&settings.kafka, "scheduler").context("making the scheduler's producer")?;
    let store = Store::connect(&settings.store).context("connecting the scheduler to Postgres")?;
    let office = Office {
        producer: producer.clone(),
        topic: topics.name(Topic::Poll).clone(),
        store,
        settings,
        health,
        shutdown,
    };
    let lag = async {
        lag::measure(&office.settings.kafka, &office.store, office.settings.lag_interval, &office.shutdown).await;
        Ok(())
    };
    let result = tokio::try_join!(office.run(Round::Sync, checks.0), office.run(Round::Audit, checks.1), lag);
    producer.flush().await;
    result.map(drop)
}

/// What both rounds share.
struct Office {
    producer: Producer,
    topic: Arc<str>,
    store: Store,
    settings: Settings,
    health: Health,
    shutdown: Shutdown,
}

impl Office {
    /// Goes one round after the other until the order to stop.
    async fn run(&self, round: Round, ready: Check) -> anyhow::Result<()> {
        let Some((watermark, longest)) = begin(&self.store, round, &ready, &self.shutdown).await? else {
            return Ok(());
        };
        let settings = &self.settings;
        // Only now: a migration may take as long as it takes.
        let alive = match round {
            Round::Sync => "scheduler-loop",
            Round::Audit => "scheduler-audits-loop",
        };
        let alive = Arc::new(self.health.liveness(alive, settings.kafka.lane.max_poll_interval));
        let fire = Fire {
            producer: self.producer.clone(),
            topic: self.topic.clone(),
            deadline: millis(settings.job_deadline),
            in_flight: settings.in_flight,
            alive: alive.clone(),
        };
        let schedule = settings.schedule(round);
        let interval = schedule.interval().max(longest.unwrap_or_default());
        let pace = Pace::new(interval, settings.catch_up, millis(settings.look_ahead), watermark, clock());
        let (name, behind) = (round.name(), pace.behind().as_millis() / 1_000);
        tracing::info!(schedule = name, behind_seconds = behind, "The schedule runs");
        Scheduler {
            round,
            schedule,
            plan: Plan::empty(pace.at()),
            next_plan: None,
            fired_to: watermark,
            settings: settings.clone(),
            store: self.store.clone(),
            fire,
            pace,
            ready,
            alive,
            shutdown: self.shutdown.clone(),
        }
        .run()
        .await
    }
}

/// Where the schedule stands in the store: the watermark, and the longest interval that a connection has of its own.
type Begin = (Option<Timestamp>, Option<domain::Duration>);

/// Brings the schema up to date and reads where to begin; waits while Postgres is away. None when the stop was ordered.
async fn begin(store: &Store, round: Round, ready: &Check, shutdown: &Shutdown) -> anyhow::Result<Option<Begin>> {
    let mut backoff = Backoff::default();
    loop {
        let read = async {
            store.migrate().await?;
            let watermark = store::schedule::fired_to(store, round.name()).await?;
            Ok::<Begin, store::Error>((watermark, longest_interval(store, round).await?))
        };
        match read.await {
            Ok(begin) => return Ok(Some(begin)),
            Err(error) if error.is_unavailable() => {
                tracing::warn!(%error, "The scheduler waits for Postgres");
                ready.fail(error.to_string());
            }
            Err(error) => return Err(error).context("reading up to where the schedule has fired"),
        }
        if !backoff.pause(shutdown).await {
            return Ok(None);
        }
    }
}

/// The longest interval that a connection has of its own for this round.
async fn longest_interval(store: &Store, round: Round) -> Result<Option<domain::Duration>, store::Error> {
    match round {
        Round::Sync => store::connections::longest_interval(store).await,
        Round::Audit => Ok(None),
    }
}

struct Scheduler {
    round: Round,
    schedule: Schedule,
    settings: Settings,
    store: Store,
    fire: Fire,
    pace: Pace,
    /// Slots not fired yet, complete up to the plan's end.
    plan: Plan,
    /// The plan that follows, while it is being made.
    next_plan: Option<JoinHandle<Result<Option<Plan>, store::Error>>>,
    /// Where the watermark stands, as far as this process knows.
    fired_to: Option<Timestamp>,
    ready: Check,
    /// Passed with every step, of the plans that are made for it as well: one that is busy makes steps.
    alive: Arc<Check>,
    shutdown: Shutdown,
}

impl Scheduler {
    async fn run(mut self) -> anyhow::Result<()> {
        let mut backoff = Backoff::default();
        while !self.shutdown.is_requested() {
            self.alive.pass();
            match self.turn().await {
                Ok(()) => {
                    self.ready.pass();
                    backoff.reset();
                    self.sleep().await;
                }
                Err(error) if error.is_unavailable() => {
                    tracing::warn!(%error, "The schedule waits for Postgres");
                    self.ready.fail(error.to_string());
                    backoff.pause(&self.shutdown).await;
                }
                Err(error) => return Err(error).context("running the schedule"),
            }
        }
        if let Some(plan) = self.next_plan {
            plan.abort();
        }
        Ok(())
    }

    /// Fires what is due, in batches, and moves the watermark after each.
    async fn turn(&mut self) -> Result<(), store::Error> {
        self.look_ahead().await?;
        if let Some(watermark) = store::schedule::fired_to(&self.store, self.round.name()).await? {
            self.pace.skip_to(watermark);
            self.fired_to = self.fired_to.max(Some(watermark));
            // What lies ahead of the clock was fired under a clock that ran ahead; its jobs are known.
            self.plan.skip_to(watermark.min(self.pace.at()));
        }
        let stood = self.pace.at();
        self.pace.advance(clock(), self.plan.until);
        let to = self.pace.at();
        if to < stood {
            tracing::warn!("The clock went back; the schedule begins anew there");
            self.forget_plans();
            return Ok(());
        }
        let mut moves = self.fired_to.is_none_or(|fired_to| to.since(fired_to) >= IDLE);
        loop {
            let slots = self.plan.take(to, BATCH);
            let last = slots.last().map(|slot| slot.at);
            moves |= last.is_some();
            if !slots.is_empty() && !self.fire.all(&slots, clock(), &self.shutdown).await {
                // Not all are written. They are fired again from where the watermark stands.
                return Ok(());
            }
            // A full batch may end between slots of one instant: only what lies before it is complete.
            match last {
                Some(last) if slots.len() == BATCH => self.fired(last - domain::Duration::from_millis(1)).await?,
                _ => break,
            }
        }
        if moves {
            self.fired(to).await?;
        }
        metric::behind(self.round, self.pace.behind());
        metric::planned(self.round, self.plan.len());
        Ok(())
    }

    /// Moves the watermark.
    async fn fired(&mut self, to: Timestamp) -> Result<(), store::Error> {
        if self.fired_to.is_none_or(|fired_to| fired_to < to) {
            store::schedule::advance(&self.store, self.round.name(), to).await?;
            self.fired_to = Some(to);
        }
        Ok(())
    }

    /// Sees to it that there is a plan for the time to come, and begins the next one before this one ends: reading a
    /// million connections takes a while, and what falls due meanwhile must not wait for it.
    async fn look_ahead(&mut self) -> Result<(), store::Error> {
        if self.plan.until < self.pace.at() {
            // More than one interval was missed; what was planned is of no use.
            self.forget_plans();
        }
        // While behind, time runs faster, and a plan has to reach further to last as long.
        let behind = self.pace.behind() > domain::Duration::ZERO;
        let factor = if behind { i64::from(self.settings.catch_up) } else { 1 };
        let reach = domain::Duration::from_millis(millis(self.settings.look_ahead).as_millis().saturating_mul(factor));
        let left = self.plan.until.since(self.pace.at());
        if self.next_plan.is_none() && left.as_millis() <= reach.as_millis() / 2 {
            let (store, shutdown, alive) = (self.store.clone(), self.shutdown.clone(), self.alive.clone());
            let (schedule, page) = ((self.round, self.schedule), self.settings.page);
            let (from, until) = (self.plan.until, self.plan.until + reach);
            self.next_plan =
                Some(tokio::spawn(
                    async move { plan::make(&store, schedule, page, from, until, &alive, &shutdown).await },
                ));
        }
        // Without anything planned there is nothing to do but wait for it.
        let due = left == domain::Duration::ZERO || self.next_plan.as_ref().is_some_and(JoinHandle::is_finished);
        if let Some(plan) = self.next_plan.take_if(|_| due) {
            match plan.await {
                Ok(Ok(Some(plan))) => {
                    self.plan.append(plan);
                    let longest = longest_interval(&self.store, self.round).await?;
                    self.pace.reach(longest.unwrap_or_default());
                }
                // The stop was ordered.
                Ok(Ok(None)) => {}
                Ok(Err(error)) => return Err(error),
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            }
        }
        Ok(())
    }

    /// Begins planning anew where the schedule's time stands.
    fn forget_plans(&mut self) {
        self.plan = Plan::empty(self.pace.at());
        if let Some(plan) = self.next_plan.take() {
            plan.abort();
        }
    }

    /// Sleeps until the next slot is due, at most for a tick.
    async fn sleep(&self) {
        let until =
            self.plan.next().map_or(TICK, |next| Duration::from_millis(next.since(clock()).as_millis().unsigned_abs()));
        tokio::select! {
            () = tokio::time::sleep(until.clamp(PAUSE, TICK)) => {}
            () = self.shutdown.requested() => {}
        }
    }
}

/// What the clock says.
fn clock() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
