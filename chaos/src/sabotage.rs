//! Deliberate damage, one for each of the checker's rules, done to the real topics, rows, logs and budgets of a run: so
//! that it is known of each rule that it fires. Only tests do it.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::Context;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use simulator::{Delivery, Mails};
use uuid::Uuid;

use crate::checker::{Evidence, Fact, Findings};
use crate::ledger::query;
use crate::records::{Record, committed_blocking};
use crate::run::Run;
use crate::world::PREFIX;

/// Damage, by the rule that has to see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// Mail arrives that nobody is left to announce.
    Lost,
    /// A live announcement is written once more.
    Twice,
    /// An early live announcement of a mailbox is written behind its later ones.
    Disorder,
    /// A job begins that nobody works on.
    Open,
    /// A job goes on after its end.
    Changed,
    /// A process logs its API key.
    Secrets,
    /// Somebody changes a row by hand.
    Rows,
    /// A message is announced that is in no mailbox.
    Strange,
    /// Gmail allows less than the services were told. The last, for it leaves jobs open, and rows behind.
    OverBudget,
}

impl Damage {
    /// All of it.
    pub const ALL: [Self; 9] = [
        Self::Lost,
        Self::Twice,
        Self::Disorder,
        Self::Open,
        Self::Changed,
        Self::Secrets,
        Self::Rows,
        Self::Strange,
        Self::OverBudget,
    ];

    /// What the rule that has to see it found.
    #[must_use]
    pub fn seen_in(self, findings: &Findings) -> &[String] {
        match self {
            Self::Lost => &findings.lost,
            Self::Twice => &findings.twice,
            Self::Disorder => &findings.disorder,
            Self::Open => &findings.open,
            Self::Changed => &findings.changed,
            Self::OverBudget => &findings.over_budget,
            Self::Secrets => &findings.secrets,
            Self::Rows => &findings.rows,
            Self::Strange => &findings.strange,
        }
    }
}

const DISCOVERED: &str = "gmail.message.discovered";
const JOBS: &str = "gmail.job.status";

/// How long brokers, Gmail and the start of processes may take.
const LONG: Duration = Duration::from_secs(120);

impl Run {
    /// Does damage, after [`Run::go_through`]: all processes have ended, so that nobody mends it or works on it.
    ///
    /// # Errors
    /// When there is nothing yet to do it to, or it cannot be done.
    pub async fn sabotage(&mut self, damage: Damage) -> anyhow::Result<()> {
        match damage {
            Damage::Lost => {
                let (_, email) = self.api.ledger.living().pop().context("a mailbox is connected")?;
                self.world.simulator.control().deliver(&email, Mails::Synthetic(1), &Delivery::default())?;
            }
            Damage::Twice => {
                let one = self.find(DISCOVERED, |fact| fact.text("origin") == "live").await?;
                self.write(DISCOVERED, &one, |value| value).await?;
            }
            Damage::Disorder => {
                let prompt = self.api.ledger.owed(&self.world).await?.prompt;
                let live = Evidence::gather(&self.place()).await?.discovered;
                let of = |fact: &&Fact| fact.text("origin") == "live" && prompt.contains(fact.text("connectionId"));
                let early = live.iter().filter(of).find(|early| {
                    live.iter().filter(of).any(|late| late.key == early.key && late.offset > early.offset)
                });
                let early = early.context("some mailbox was announced more than one live message")?;
                let (partition, offset) = (early.partition, early.offset);
                let all = self.records(DISCOVERED).await?;
                let early = all.into_iter().find(|record| (record.partition, record.offset) == (partition, offset));
                self.write(DISCOVERED, &early.context("it is there still")?, |value| value).await?;
            }
            Damage::Open => {
                let mut one = self.find(JOBS, |fact| fact.text("state") == "running").await?;
                let (old, new) = (one.key_text(), Uuid::new_v4().to_string());
                one.key = Some(new.clone().into());
                self.write(JOBS, &one, |value| replaced(value, &old, &new)).await?;
            }
            Damage::Changed => {
                let one = self.find(JOBS, |fact| fact.text("state") == "running").await?;
                self.write(JOBS, &one, |value| value).await?;
            }
            Damage::OverBudget => self.lower_budget().await?,
            Damage::Secrets => {
                let at = self.named("projector_a")?;
                let mut log = std::fs::File::options().append(true).open(self.crew[at].log())?;
                writeln!(log, "{{\"message\":\"Asked with {}\"}}", self.tenant.key)?;
            }
            Damage::Rows => {
                let sql = "UPDATE jobs SET detail = 'by hand' WHERE job_id = (SELECT min(job_id::text)::uuid FROM jobs) \
                           RETURNING 1";
                anyhow::ensure!(query(&self.world, sql).await?.len() == 1, "there is no job to change");
            }
            Damage::Strange => {
                let one = self.find(DISCOVERED, |_| true).await?;
                let fact = self.fact(DISCOVERED, &one).await?;
                let (old, new) = (fact.text("messageId").to_owned(), "ffffffffffffffff");
                self.write(DISCOVERED, &one, |value| replaced(value, &old, new)).await?;
            }
        }
        Ok(())
    }

    /// Lets Gmail allow next to nothing until a call was refused for it, of those processes that make one.
    async fn lower_budget(&mut self) -> anyhow::Result<()> {
        let needed = [self.named("poller_a")?, self.named("ingress_a")?];
        for at in needed {
            self.crew[at].start()?;
        }
        anyhow::ensure!(self.is_ready_within(LONG).await?, "two processes do not become ready again");
        let control = self.world.simulator.control().clone();
        let (tariff, limits) = control.tariff();
        control.set_tariff(tariff, simulator::Limits { user_minute: 1, ..limits });
        let begun = Instant::now();
        while control.usage().total.throttled == 0 {
            anyhow::ensure!(begun.elapsed() < LONG, "no call was refused, though Gmail allows none");
            let (connection, _) = self.api.ledger.living().pop().context("a mailbox is connected")?;
            self.api.sync(&connection).await;
            self.pause(Duration::from_millis(200)).await?;
        }
        control.set_tariff(tariff, limits);
        needed.into_iter().try_for_each(|at| self.stop_one(at))
    }

    async fn records(&self, topic: &str) -> anyhow::Result<Vec<Record>> {
        let (bootstrap, topic) = (self.world.cluster.bootstrap_untroubled(), format!("{PREFIX}{topic}"));
        Ok(tokio::task::spawn_blocking(move || committed_blocking(&bootstrap, &topic)).await?)
    }

    /// A record of a topic, by what is in it.
    async fn find(&self, topic: &str, is: impl Fn(&Fact) -> bool) -> anyhow::Result<Record> {
        let evidence = Evidence::gather(&self.place()).await?;
        let facts = if topic == JOBS { &evidence.jobs } else { &evidence.discovered };
        let fact = facts.iter().find(|fact| is(fact)).with_context(|| format!("{topic} has no such record"))?;
        let mut all = self.records(topic).await?.into_iter();
        all.find(|record| (record.partition, record.offset) == (fact.partition, fact.offset))
            .context("it is there still")
    }

    async fn fact(&self, topic: &str, record: &Record) -> anyhow::Result<Fact> {
        let evidence = Evidence::gather(&self.place()).await?;
        let facts = if topic == JOBS { evidence.jobs } else { evidence.discovered };
        let mut facts = facts.into_iter();
        facts.find(|fact| (fact.partition, fact.offset) == (record.partition, record.offset)).context("it decodes")
    }

    /// Writes a record once more, in the same partition, with something done to its value.
    async fn write(&self, topic: &str, record: &Record, change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> anyhow::Result<()> {
        let value = change(record.value.as_deref().context("it has a value")?.to_vec());
        let (topic, key) = (format!("{PREFIX}{topic}"), record.key.clone().context("it has a key")?);
        let (bootstrap, partition) = (self.world.cluster.bootstrap_untroubled(), record.partition);
        let written = tokio::task::spawn_blocking(move || -> anyhow::Result<()> {
            let producer: ThreadedProducer<DefaultProducerContext> =
                ClientConfig::new().set("bootstrap.servers", bootstrap).set("acks", "all").create()?;
            let record = BaseRecord::to(&topic).partition(partition).key(&*key).payload(&value);
            producer.send(record).map_err(|(error, _)| error)?;
            Ok(producer.flush(LONG)?)
        });
        written.await?
    }
}

/// The same bytes with each `old` replaced by `new`, which is as long.
fn replaced(mut bytes: Vec<u8>, old: &str, new: &str) -> Vec<u8> {
    assert_eq!(old.len(), new.len(), "a datum's texts keep their length");
    while let Some(at) = memchr::memmem::find(&bytes, old.as_bytes()) {
        bytes[at..at + old.len()].copy_from_slice(new.as_bytes());
    }
    bytes
}
