//! All lanes of a service in one process: started together, watched by the health checks, stopped together.

use std::time::Duration;

use runtime::Shutdown;
use runtime::health::{Check, Health};
use tokio::sync::oneshot;
use tokio::time::MissedTickBehavior;

use crate::lane::{self, App, Error, Lane, LaneHandle, LaneSettings, Phase, Watch};
use crate::settings::Settings;

/// How often a lane's state is looked at for the health checks.
const WATCH_EVERY: Duration = Duration::from_millis(250);

/// After so many of the longest times between polls a lane that does not turn is given up. Each of its turns is bounded by
/// one of them, were it not for librdkafka: `send_offsets_to_transaction` never returns when the group's coordinator was
/// away for a moment and is known under a new handle since (confluentinc/librdkafka#5511, #5456, up to 2.14 at least).
/// Its thread cannot be called back. After the first of these times the group has given its partitions to others.
const HUNG_AFTER: u32 = 2;

/// In so many looks on end: a process that was suspended as a whole finds all its lanes late, and they turn at once.
const HUNG_FOR: u32 = 20;

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

    /// Waits until the order to stop, or until a lane gives up or hangs; stops them all.
    ///
    /// # Errors
    /// What the lane that gave up said, or the first that could not stop in order, or that one hangs: its thread is left
    /// behind and ends with the process.
    pub async fn run(self, shutdown: &Shutdown) -> Result<(), Error> {
        let Self { mut lanes, checks } = self;
        let (hangs, hung) = oneshot::channel();
        let reports = tokio::spawn(async move {
            let mut hangs = Some(hangs);
            let mut looks = 0;
            let mut ticks = tokio::time::interval(WATCH_EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                checks.iter().for_each(Checks::report);
                let Some(error) = checks.iter().find_map(Checks::hung) else {
                    looks = 0;
                    continue;
                };
                looks += 1;
                if looks >= HUNG_FOR
                    && let Some(hangs) = hangs.take()
                {
                    // Nobody hears it who is stopping anyway.
                    let _ = hangs.send(error);
                }
            }
        });
        let result = {
            let mut ends: Vec<_> = lanes.iter_mut().map(|lane| Box::pin(lane.ended())).collect();
            tokio::select! {
                () = shutdown.requested() => Ok(()),
                (result, ..) = futures_util::future::select_all(&mut ends) => result,
                Ok(error) = hung => {
                    tracing::error!(%error, "A lane hangs");
                    Err(error)
                }
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
    service: &'static str,
    lane: usize,
    watch: Watch,
    ready: Check,
    alive: Check,
    stuck: Duration,
}

impl Checks {
    fn of(lane: &Lane, health: &Health, stuck: Duration) -> Self {
        let name = format!("{}-lane-{}", lane.service, lane.lane);
        Self {
            service: lane.service,
            lane: lane.lane,
            watch: lane.watch(),
            ready: health.readiness(format!("{name}-restored")),
            alive: health.liveness(name, stuck),
            stuck,
        }
    }

    /// How long the loop of a lane that has no reason to stand still has not turned.
    fn stands_still(&self) -> Option<Duration> {
        let status = self.watch.status();
        // One that waits for Kafka does not turn, and a restart would not bring Kafka back.
        let is_waiting = matches!(status.phase, Phase::Starting | Phase::Recovering);
        let idle = status.idle_for();
        // However much there is to do, a lane that works turns: each turn is bounded.
        (!is_waiting && idle >= self.stuck).then_some(idle)
    }

    fn hung(&self) -> Option<Error> {
        let (service, lane) = (self.service, self.lane);
        let is_over = self.watch.status().phase == Phase::Stopped;
        let idle = self.stands_still().filter(|idle| !is_over && *idle >= self.stuck * HUNG_AFTER)?;
        Some(Error::Hung { service, lane, seconds: idle.as_secs() })
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
        match self.stands_still() {
            None => self.alive.pass(),
            Some(idle) => self.alive.fail(format!("its loop has not turned for {} s", idle.as_secs())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::lane::status::Shared;

    /// What is told of a lane in `phase` that has not turned at all, if it is `stuck` after so long.
    fn told(phase: Phase, stuck: Duration) -> (bool, bool) {
        let shared = Arc::new(Shared::new());
        shared.status().phase = phase;
        let health = Health::default();
        let (ready, alive) = (health.readiness("lane-restored"), health.liveness("lane", stuck));
        let checks = Checks { service: "poller", lane: 0, watch: Watch(shared), ready, alive, stuck };
        (checks.stands_still().is_some(), checks.hung().is_some())
    }

    #[test]
    fn a_lane_hangs_that_works_and_does_not_turn() {
        let long = Duration::from_secs(3_600);
        assert_eq!(told(Phase::Running, Duration::ZERO), (true, true));
        assert_eq!(told(Phase::Running, long), (false, false));
        // It waits for Kafka.
        assert_eq!(told(Phase::Starting, Duration::ZERO), (false, false));
        assert_eq!(told(Phase::Recovering, Duration::ZERO), (false, false));
        // It has ended, and was waited for.
        assert_eq!(told(Phase::Stopped, Duration::ZERO), (true, false));
    }
}
