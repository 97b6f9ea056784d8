//! One run: everything is started, troubled while the load goes on, left in peace until it has settled, and checked.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use rand::seq::IndexedRandom;

use crate::api::Api;
use crate::checker::secrets::Secrets;
use crate::checker::{Evidence, Findings, Place, check};
use crate::crew::{CREW, Hand};
use crate::ledger;
use crate::load::{self, Load};
use crate::plan::{self, Kind, When};
use crate::report::{Report, Struck};
use crate::world::{PREFIX, Tenant, World};

/// How a run is made.
#[derive(Debug, Clone)]
pub struct Options {
    /// The program, built with its deliberate faults.
    pub program: PathBuf,
    /// Where logs and reports go.
    pub folder: PathBuf,
    /// How long faults go on.
    pub minutes: u64,
    /// What the plan and the load are drawn from.
    pub seed: u64,
    /// The kinds of faults, each once a round; none: all of them, see [`plan::steps`].
    pub only: Vec<Kind>,
    /// Mailboxes that are connected from the start.
    pub mailboxes: usize,
}

/// How long the system may take to settle after a fault; beyond it the next one comes all the same.
pub(crate) const SETTLES: Duration = Duration::from_secs(60);

/// How long it may take in the end, until the last job has ended and the last message is fetched.
const ENDS: Duration = Duration::from_secs(600);

/// The longest log of a process: beyond it something repeats itself, and would until the disk is full.
const LONGEST_LOG: u64 = 512 * 1024 * 1024;

/// Between two looks at the processes.
const TICK: Duration = Duration::from_millis(100);

/// Between two looks at everything, which are dear.
const LOOK: Duration = Duration::from_secs(3);

/// A run.
pub struct Run {
    pub(crate) options: Options,
    pub(crate) world: World,
    pub(crate) tenant: Tenant,
    pub(crate) crew: Vec<Hand>,
    pub(crate) api: Api,
    pub(crate) report: Report,
    begun: Instant,
}

impl Run {
    /// Starts everything, connects the mailboxes, and waits until all is well.
    ///
    /// # Errors
    /// When something does not come up.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let begun = Instant::now();
        let logs = options.folder.join("logs");
        // Those of an earlier run would be read as this one's.
        if logs.exists() {
            std::fs::remove_dir_all(&logs).with_context(|| format!("removing {}", logs.display()))?;
        }
        std::fs::create_dir_all(&logs).with_context(|| format!("creating {}", logs.display()))?;
        let world = World::start(&options.program, options.minutes).await?;
        let tenant = world.tenant().await?;
        let hand = |(at, member)| Hand::new(member, &options.program, &logs, world.settings_of(Some(at)));
        let crew = CREW.into_iter().enumerate().map(hand).collect();
        let api = Api::new(&tenant.key)?;
        let report = Report::new(&options);
        let mut this = Self { options, world, tenant, crew, api, report, begun };
        this.say(&format!("seed {}; brokers, Postgres and Gmail are up", this.options.seed));
        for hand in &mut this.crew {
            // Half of the way to the next version of the schemas: the plan has the rest.
            hand.writes_previous = true;
            hand.start()?;
        }
        anyhow::ensure!(this.is_ready_within(ENDS).await?, "the processes do not become ready");
        load::connect_all(&this.api, this.world.simulator.control(), this.options.mailboxes, this.options.seed).await?;
        anyhow::ensure!(this.settles(ENDS).await?.is_some(), "nothing is troubled, and yet it does not settle");
        this.say(&format!("{} processes are ready, {} mailboxes connected", CREW.len(), this.options.mailboxes));
        Ok(this)
    }

    /// All of it: troubled, left in peace, stopped and checked. What went wrong is in the report, too.
    ///
    /// # Errors
    /// When a fault cannot be done or undone, or something cannot be read.
    pub async fn go_through(&mut self) -> anyhow::Result<Findings> {
        let done = async {
            self.storm(Duration::from_secs(60 * self.options.minutes)).await?;
            self.settle().await?;
            self.stop()?;
            self.finish().await
        };
        let done = done.await;
        if let Err(error) = &done {
            self.report.broken_off = Some(format!("{error:#}"));
            self.report.write(&self.options.folder)?;
        }
        done
    }

    /// Goes through the plan while the load goes on, until the time is over.
    async fn storm(&mut self, lasts: Duration) -> anyhow::Result<()> {
        let load = Load::begin(&self.api, self.world.simulator.control(), self.options.mailboxes, self.options.seed);
        let until = Instant::now() + lasts;
        let mut steps = plan::steps(self.options.seed, &self.options.only);
        let mut settled = true;
        while Instant::now() < until {
            let step = steps.next().expect("a plan has no end");
            let (When::Settled { after_ms } | When::Regardless { after_ms }) = step.when;
            self.pause(Duration::from_millis(after_ms)).await?;
            let at = self.begun.elapsed();
            let outcome = self.strike(&step.fault).await?;
            let over = Instant::now();
            // Whoever does not wait for it is counted with those that hit what had not settled: the next one is.
            let waits = matches!(step.when, When::Settled { .. });
            let recovered = if waits { self.settles(SETTLES).await? } else { None };
            let struck = Struck {
                at_ms: u64::try_from(at.as_millis())?,
                lasted_ms: u64::try_from((over - (self.begun + at)).as_millis())?,
                when_settled: settled,
                fault: step.fault,
                outcome,
                waited_for: waits,
                recovered_ms: recovered.map(|time| u64::try_from(time.as_millis())).transpose()?,
            };
            let text = struck.to_string();
            settled = recovered.is_some();
            self.report.struck.push(struck);
            self.report.accepted = self.api.ledger.n_accepted();
            self.report.write(&self.options.folder)?;
            let (of_settled, others) = self.report.kills();
            self.say(&format!("{} faults, {} kills; {text}", self.report.struck.len(), of_settled + others));
            self.logs_are_bounded()?;
        }
        load.end().await;
        self.report.accepted = self.api.ledger.n_accepted();
        self.say(&format!("the load ended; {} jobs were accepted", self.api.ledger.n_accepted()));
        Ok(())
    }

    /// Leaves everything in peace until all that is owed is done, or time is up.
    async fn settle(&mut self) -> anyhow::Result<()> {
        let begun = Instant::now();
        anyhow::ensure!(self.is_ready_within(ENDS).await?, "the processes do not become ready");
        // Schedulers would ask for more and more.
        for at in 0..self.crew.len() {
            if self.crew[at].member.service == "scheduler" {
                self.stop_one(at)?;
            }
        }
        // History shows all by then.
        self.pause(load::LAG).await?;
        let living = ledger::Connections::read(&self.world).await?.0;
        for (connection, _) in living.iter().filter(|(_, connection)| !connection.revoked) {
            while self.api.sync(connection).await.is_none() {
                anyhow::ensure!(begun.elapsed() < ENDS, "a sync of {connection} is not accepted");
                self.pause(TICK).await?;
            }
        }
        while begun.elapsed() < ENDS {
            self.pause(LOOK).await?;
            if ledger::unfinished(&self.world).await? == 0 {
                // What cannot mend itself ends nothing: beside it there may be work under way.
                if !self.check().await?.may_mend() {
                    break;
                }
            }
        }
        self.report.settled_ms = Some(u64::try_from(begun.elapsed().as_millis())?);
        self.say(&format!("the dust has settled, {:.1} s after the load", begun.elapsed().as_secs_f64()));
        Ok(())
    }

    /// Stops all processes in order.
    fn stop(&mut self) -> anyhow::Result<()> {
        for at in 0..self.crew.len() {
            self.stop_one(at)?;
        }
        Ok(())
    }

    /// Stops one; who does not end well is reported.
    pub(crate) fn stop_one(&mut self, at: usize) -> anyhow::Result<()> {
        let hand = &mut self.crew[at];
        let code = tokio::task::block_in_place(|| hand.stop())?;
        if let Some(code) = code.filter(|code| *code != 0) {
            self.report.ended.push(format!(
                "{} ended with {code} when asked to stop: {}",
                hand.member.name,
                hand.last_words()
            ));
        }
        Ok(())
    }

    /// Compares what is owed with what is committed.
    ///
    /// # Errors
    /// When something cannot be read.
    pub async fn check(&self) -> anyhow::Result<Findings> {
        let place = self.place();
        Ok(check(&self.api.ledger.owed(&self.world).await?, &Evidence::gather(&place).await?))
    }

    /// Checks for good, and ends the report.
    async fn finish(&mut self) -> anyhow::Result<Findings> {
        let findings = self.check().await?;
        self.say(&findings.to_string());
        self.report.findings = Some(findings.clone());
        self.report.write(&self.options.folder)?;
        self.say(&format!("the report is in {}", self.options.folder.display()));
        Ok(findings)
    }

    pub(crate) fn place(&self) -> Place {
        Place {
            bootstrap: self.world.cluster.bootstrap_untroubled(),
            prefix: PREFIX.to_owned(),
            database: self.world.database.url().to_owned(),
            schema: self.world.database.schema().unwrap_or("mailtide").to_owned(),
            whole: true,
            projects: true,
            secrets: Secrets::new(&self.world.secrets(&self.tenant)),
            logs: self.crew.iter().map(|hand| hand.log().to_owned()).collect(),
        }
    }

    /// Lets time pass while the processes are looked after.
    pub(crate) async fn pause(&mut self, lasts: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + lasts;
        loop {
            self.look_after()?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            tokio::time::sleep(left.min(TICK)).await;
        }
    }

    /// Starts again who has ended by itself, as whatever runs services does, and notes where the API is.
    pub(crate) fn look_after(&mut self) -> anyhow::Result<()> {
        for hand in &mut self.crew {
            if let Some(code) = hand.ended_by_itself()? {
                let words = format!("{} ended by itself with {code}: {}", hand.member.name, hand.last_words());
                self.report.ended.push(words);
                hand.start()?;
            }
            hand.look();
        }
        let addresses = self.crew.iter().filter(|hand| !hand.is_down).filter_map(|hand| hand.api.clone());
        self.api.is_at(addresses.collect());
        Ok(())
    }

    /// Waits until every process is ready that is not meant to be down.
    pub(crate) async fn is_ready_within(&mut self, limit: Duration) -> anyhow::Result<bool> {
        let begun = Instant::now();
        let http = reqwest::Client::builder().timeout(Duration::from_secs(2)).build()?;
        let mut ready = vec![None; self.crew.len()];
        while begun.elapsed() < limit {
            self.pause(TICK).await?;
            for (hand, ready) in self.crew.iter().zip(&mut ready) {
                // Who is stopped for good is not waited for.
                if hand.is_down {
                    *ready = Some(String::new());
                    continue;
                }
                // Started again, it has said no new address yet, or another.
                let Some(address) = &hand.admin else {
                    *ready = None;
                    continue;
                };
                if ready.as_ref() != Some(address) {
                    let answer = http.get(format!("http://{address}/readyz")).send().await;
                    *ready = answer.is_ok_and(|answer| answer.status().is_success()).then(|| address.clone());
                }
            }
            if ready.iter().all(Option::is_some) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Waits until the system works again: every broker serves, every process is ready, and a sync asked for now ends.
    /// How long that took; none: longer than `limit`.
    pub(crate) async fn settles(&mut self, limit: Duration) -> anyhow::Result<Option<Duration>> {
        let begun = Instant::now();
        if !self.is_ready_within(limit).await? {
            return Ok(None);
        }
        let mut job = None;
        while begun.elapsed() < limit {
            let serves =
                tokio::task::block_in_place(|| (0..devstack::NODES).all(|node| self.world.cluster.serves(node)));
            if serves {
                if job.is_none() {
                    // One that was deleted without an answer is refused; then another is asked for.
                    let living = self.api.ledger.living();
                    let Some((connection, _)) = living.choose(&mut rand::rng()) else {
                        return Ok(Some(begun.elapsed()));
                    };
                    job = self.api.sync(connection).await;
                }
                if let Some(job) = &job
                    && self.api.has_ended(job).await
                {
                    return Ok(Some(begun.elapsed()));
                }
            }
            self.pause(TICK).await?;
        }
        Ok(None)
    }

    fn logs_are_bounded(&self) -> anyhow::Result<()> {
        for hand in &self.crew {
            let length = std::fs::metadata(hand.log()).map_or(0, |log| log.len());
            anyhow::ensure!(
                length < LONGEST_LOG,
                "{} has logged {length} bytes, last: {}",
                hand.member.name,
                hand.last_words()
            );
        }
        Ok(())
    }

    pub(crate) fn say(&self, text: &str) {
        eprintln!("{:>6.1} s  {text}", self.begun.elapsed().as_secs_f64());
    }

    /// A process by its name.
    pub(crate) fn named(&self, name: &str) -> anyhow::Result<usize> {
        CREW.iter().position(|member| member.name == name).context("it is one of the crew")
    }
}
