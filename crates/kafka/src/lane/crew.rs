//! All lanes of a service in one process: started together, watched by the health checks, stopped together.

use std::time::Duration;

use runtime::Shutdown;
use runtime::health::{Check, Health};

use crate::lane::{self, App, Error, Lane, LaneHandle, LaneSettings, Phase, Watch};
use crate::settings::Settings;

/// How often a lane's state is looked at for the health checks.
const WATCH_EVERY: Duration = Duration::from_millis(250);

/// The lanes of one service, at work.
#[derive(Debug)]
pub struct Crew {
    lanes: Vec<Lane>,
    checks: Vec<Checks>,
}

impl Crew {
    /// Starts `count` lanes like `first`, numbered from it on, and lets the health of the process hear of them: each is
    /// ready when its partitions are restored, and alive as long as its loop turns within the longest time between polls.
    ///
    /// # Errors
    /// As [`lane::spawn`]; lanes that were started before stop.
    pub fn spawn<A, F>(
        settings: &Settings,
        first: &LaneSettings,
        count: u16,
        health: &Health,
        make_app: F,
    ) -> Result<Self, Error>
    where
        A: App,
        F: FnMut(LaneHandle<A::Done>) -> A + Clone + Send + 'static,
    {
        let numbers = first.lane..first.lane + usize::from(count);
        let lanes = numbers.map(|lane| lane::spawn(settings, LaneSettings { lane, ..first.clone() }, make_app.clone()));
        let lanes = lanes.collect::<Result<Vec<Lane>, Error>>()?;
        let stuck = settings.lane.max_poll_interval;
        let checks = lanes.iter().map(|lane| Checks::of(lane, health, stuck)).collect();
        Ok(Self { lanes, checks })
    }

    /// Waits until the order to stop, or until a lane gives up; stops them all.
    ///
    /// # Errors
    /// What the lane that gave up said, or the first that could not stop in order.
    pub async fn run(self, shutdown: &Shutdown) -> Result<(), Error> {
        let Self { mut lanes, checks } = self;
        let reports = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(WATCH_EVERY);
            loop {
                ticks.tick().await;
                checks.iter().for_each(Checks::report);
            }
        });
        let result = {
            let mut ends: Vec<_> = lanes.iter_mut().map(|lane| Box::pin(lane.ended())).collect();
            tokio::select! {
                () = shutdown.requested() => Ok(()),
                (result, ..) = futures_util::future::select_all(&mut ends) => result,
            }
        };
        reports.abort();
        lanes.iter().for_each(Lane::stop);
        for lane in &mut lanes {
            if result.is_ok() {
                lane.ended().await?;
            }
        }
        result
    }
}

/// What the health of the process hears of one lane.
#[derive(Debug)]
struct Checks {
    watch: Watch,
    ready: Check,
    alive: Check,
    stuck: Duration,
}

impl Checks {
    fn of(lane: &Lane, health: &Health, stuck: Duration) -> Self {
        let name = format!("{}-lane-{}", lane.service, lane.lane);
        Self {
            watch: lane.watch(),
            ready: health.readiness(format!("{name}-restored")),
            alive: health.liveness(name, stuck),
            stuck,
        }
    }

    fn report(&self) {
        let status = self.watch.status();
        if status.is_ready() {
            self.ready.pass();
        } else {
            self.ready.fail(match &status.last_failure {
                Some(failure) => format!("{:?}: {failure}", status.phase),
                None => format!("{:?}", status.phase),
            });
        }
        // One that waits for Kafka does not turn, and a restart would not bring Kafka back.
        let is_waiting = matches!(status.phase, Phase::Starting | Phase::Recovering);
        let idle = status.idle_for();
        if is_waiting || idle < self.stuck {
            self.alive.pass();
        } else {
            // However much there is to do, a lane that works turns: each turn is bounded.
            self.alive.fail(format!("its loop has not turned for {} s", idle.as_secs()));
        }
    }
}
