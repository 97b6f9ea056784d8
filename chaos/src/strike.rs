//! Does the faults, and undoes them.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use proxy::Trouble;
use simulator::{Fault as Misbehaviour, Latency, Refusal, Rule};

use crate::crew::{CREW, clock_library};
use crate::plan::{Fault, Scenario, Severance};
use crate::report::Outcome;
use crate::run::Run;
use crate::world::SESSION;

/// Beyond its session: others have taken over, and its transactions live on, so that it comes back with one that it could
/// commit.
const HUNG: Duration = Duration::from_millis(1_500);

/// When the others have given up a broker that does not move, with some to spare.
const BROKER_HUNG: Duration = Duration::from_secs(9);

/// When a broker has noticed that its disk is full.
const NOTICED: Duration = Duration::from_secs(30);

/// How long one process may take to be ready again in a rolling restart, before the next one's turn.
const READY: Duration = Duration::from_secs(30);

const DONE: Outcome = Outcome { kills: 0, not_possible: None };

const fn killed(kills: usize) -> Outcome {
    Outcome { kills, not_possible: None }
}

fn not_possible(reason: &str) -> Outcome {
    Outcome { kills: 0, not_possible: Some(reason.to_owned()) }
}

/// Waits for what blocks, on a thread that may.
fn blocking<T>(work: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(work)
}

impl Run {
    /// Does a fault, waits as long as it lasts, and undoes it.
    pub(crate) async fn strike(&mut self, fault: &Fault) -> anyhow::Result<Outcome> {
        let ms = Duration::from_millis;
        match fault {
            Fault::Kill { processes, down_ms } => self.kill(processes, ms(*down_ms)).await,
            Fault::Hang { process } => {
                let process = *process;
                self.crew[process].signal(Signal::SIGSTOP)?;
                self.pause(SESSION + HUNG).await?;
                self.crew[process].signal(Signal::SIGCONT)?;
                Ok(DONE)
            }
            Fault::RebalanceStorm { times, pause_ms } => self.rebalance(*times, ms(*pause_ms)).await,
            Fault::RollingRestart => self.roll(None).await,
            Fault::RollingUpgrade => {
                let writes_previous = self.crew[0].writes_previous;
                self.roll(Some(!writes_previous)).await
            }
            Fault::BrokerKilled { broker, down_ms } => self.kill_broker(*broker, ms(*down_ms)).await,
            Fault::ControllerLost { down_ms } => match self.world.cluster.controller() {
                Some(broker) => self.kill_broker(broker, ms(*down_ms)).await,
                None => Ok(not_possible("no broker has written down who leads the controllers")),
            },
            Fault::LeadersMoved { broker } => {
                blocking(|| self.world.cluster.stop(*broker))?;
                blocking(|| self.world.cluster.restart(*broker))?;
                Ok(DONE)
            }
            Fault::BrokerHung { broker } => {
                self.signal_broker(*broker, Signal::SIGSTOP)?;
                self.pause(BROKER_HUNG).await?;
                self.signal_broker(*broker, Signal::SIGCONT)?;
                Ok(DONE)
            }
            Fault::DiskFull { broker, full_ms } => self.fill_disk(*broker, ms(*full_ms)).await,
            Fault::PostgresRestarted => {
                blocking(|| self.world.postgres.restart())?;
                Ok(DONE)
            }
            Fault::PostgresLost { down_ms } => {
                blocking(|| self.world.postgres.kill())?;
                self.pause(ms(*down_ms)).await?;
                blocking(|| self.world.postgres.restart())?;
                Ok(killed(1))
            }
            Fault::Partition { process, from, how, lasts_ms } => {
                let trouble = match how {
                    Severance::Cut => Trouble::Cut,
                    Severance::BlackHole => Trouble::BlackHole,
                    Severance::Delay { ms } => Trouble::Delay(Duration::from_millis(*ms)),
                    Severance::Throttle { rate } => Trouble::Throttle(*rate),
                };
                self.world.trouble(*process, *from, trouble);
                self.pause(ms(*lasts_ms)).await?;
                self.world.trouble(*process, *from, Trouble::None);
                Ok(DONE)
            }
            Fault::ClockJump { process, by_seconds, lasts_ms } => {
                if clock_library().is_none() {
                    return Ok(not_possible("libfaketime, which moves a process' clock, is not installed"));
                }
                self.crew[*process].set_clock(*by_seconds)?;
                self.pause(ms(*lasts_ms)).await?;
                self.crew[*process].set_clock(0)?;
                Ok(DONE)
            }
            Fault::BadDay { scenario, lasts_ms } => {
                let control = self.world.simulator.control().clone();
                rules(*scenario).into_iter().for_each(|rule| control.add_fault(rule));
                self.pause(ms(*lasts_ms)).await?;
                control.clear_faults();
                Ok(DONE)
            }
        }
    }

    async fn kill(&mut self, processes: &[usize], down: Duration) -> anyhow::Result<Outcome> {
        let mut kills = 0;
        for at in processes {
            kills += usize::from(blocking(|| self.crew[*at].kill())?);
        }
        self.pause(down).await?;
        for at in processes {
            self.crew[*at].start()?;
        }
        Ok(killed(kills))
    }

    async fn kill_broker(&mut self, broker: usize, down: Duration) -> anyhow::Result<Outcome> {
        blocking(|| self.world.cluster.kill(broker))?;
        self.pause(down).await?;
        blocking(|| self.world.cluster.restart(broker))?;
        Ok(killed(1))
    }

    fn signal_broker(&mut self, broker: usize, signal: Signal) -> anyhow::Result<()> {
        if let Some(process) = self.world.cluster.process(broker) {
            process.signal(signal)?;
        }
        Ok(())
    }

    async fn fill_disk(&mut self, broker: usize, full: Duration) -> anyhow::Result<Outcome> {
        if !blocking(|| self.world.cluster.fill_disk(broker))? {
            return Ok(not_possible("the system lets us make no disk of a broker's own"));
        }
        let begun = Instant::now();
        while begun.elapsed() < NOTICED {
            let process = self.world.cluster.process(broker);
            if process.map(|process| process.ended()).transpose()?.flatten().is_some() {
                break;
            }
            self.pause(Duration::from_millis(100)).await?;
        }
        self.pause(full).await?;
        self.world.cluster.free_disk(broker)?;
        blocking(|| self.world.cluster.restart(broker))?;
        Ok(DONE)
    }

    /// Members of both groups leave and come back.
    async fn rebalance(&mut self, times: usize, pause: Duration) -> anyhow::Result<Outcome> {
        let members: Vec<usize> =
            (0..CREW.len()).filter(|at| matches!(CREW[*at].service, "poller" | "fetcher")).collect();
        for time in 0..times {
            let at = members[time % members.len()];
            self.stop_one(at)?;
            self.crew[at].start()?;
            self.pause(pause).await?;
        }
        Ok(DONE)
    }

    /// Ends every process in order and starts it again, writing the schemas' versions before the newest if that is said.
    async fn roll(&mut self, writes_previous: Option<bool>) -> anyhow::Result<Outcome> {
        for at in 0..self.crew.len() {
            self.stop_one(at)?;
            self.crew[at].writes_previous = writes_previous.unwrap_or(self.crew[at].writes_previous);
            self.crew[at].start()?;
            self.is_ready_within(READY).await?;
        }
        Ok(DONE)
    }
}

/// A rule for some of all calls; without names it is for all of them.
fn rule(calls: &[&str], probability: f64, fault: Misbehaviour) -> Rule {
    let calls = calls.iter().map(|call| (*call).to_owned()).collect();
    Rule { mailboxes: Vec::new(), calls, probability, after: 0, times: None, from_ms: None, until_ms: None, fault }
}

fn rules(scenario: Scenario) -> Vec<Rule> {
    let error = |probability, refusal| rule(&[], probability, Misbehaviour::Error(refusal));
    match scenario {
        Scenario::Unavailable => vec![error(0.4, Refusal::Backend(503)), error(0.1, Refusal::Backend(500))],
        Scenario::Broken => vec![
            rule(&[], 0.15, Misbehaviour::Reset),
            rule(&[], 0.1, Misbehaviour::Truncate(0.5)),
            rule(&[], 0.05, Misbehaviour::Malformed),
        ],
        Scenario::Slow => vec![rule(&[], 1.0, Misbehaviour::Latency(Latency::LogNormal(150.0, 1.2)))],
        Scenario::Throttling => vec![
            error(0.3, Refusal::UserRate(3_000)),
            error(0.1, Refusal::RateShort),
            error(0.1, Refusal::Concurrency),
            error(0.1, Refusal::Quota),
        ],
        Scenario::Tokens => {
            vec![rule(&["token"], 0.5, Misbehaviour::Error(Refusal::Backend(503))), error(0.1, Refusal::Unauthorized)]
        }
        Scenario::Html => vec![rule(&[], 0.3, Misbehaviour::Html(502))],
    }
}
