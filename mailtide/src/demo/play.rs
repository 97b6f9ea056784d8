//! What happens in the demo, in order: mail, a first sync, more mail while syncs run, a last sync, and the count.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use domain::{ConnectionId, JobId, MessageId};
use futures_util::{StreamExt, TryStreamExt, stream};
use simulator::{Control, Delivery, Mails};

use super::mail::{Post, ROUNDS};
use super::report::{Report, Row};
use super::screen::Screen;
use super::watch::{Watch, count_announced, count_fetched, job_id};
use crate::command::sync;
use crate::http::Client;

/// The pause between two rounds of mail: the demo's tempo.
const TEMPO: Duration = Duration::from_millis(400);

/// How often it is looked whether all has come.
const LOOK: Duration = Duration::from_millis(50);

/// How long mail may stay missing after every job has ended before one more sync is triggered: Gmail's reads lag.
const AGAIN: Duration = Duration::from_secs(2);

/// How long everything may take to come after the last delivery, and how much longer for each message.
const PATIENCE: Duration = Duration::from_secs(60);
const PATIENCE_EACH: Duration = Duration::from_millis(5);

/// Requests to the API under way at once.
const AT_ONCE: usize = 16;

/// A connected mailbox and its mail.
pub(super) struct Target {
    /// The connection.
    pub(super) connection: ConnectionId,
    /// Its mail.
    pub(super) post: Post,
}

/// A sync that was triggered.
struct Job {
    path: String,
    posted: Instant,
}

/// The demo's course.
pub(super) struct Play {
    targets: Vec<Target>,
    client: Client,
    control: Control,
    screen: Arc<Screen>,
    jobs: HashMap<JobId, Job>,
    delivered: usize,
}

impl Play {
    /// Nothing delivered, nothing triggered yet.
    pub(super) fn new(targets: Vec<Target>, client: Client, control: Control, screen: Arc<Screen>) -> Self {
        Self { targets, client, control, screen, jobs: HashMap::new(), delivered: 0 }
    }

    /// Delivers and triggers until all mail is delivered, announced and every job has ended, or patience is at its end.
    pub(super) async fn run(&mut self, watch: &Watch) -> anyhow::Result<()> {
        self.deliver(Post::deliver_first)?;
        self.trigger_all().await?;
        for round in 1..=ROUNDS {
            self.wait(TEMPO, watch, &format!("mail keeps coming, round {round} of {ROUNDS}")).await;
            self.deliver(Post::deliver_round)?;
            // The last of these comes after the last mail.
            self.trigger_all().await?;
        }
        self.settle(watch).await
    }

    fn deliver(&mut self, deliver: fn(&mut Post, &Control) -> anyhow::Result<usize>) -> anyhow::Result<()> {
        for target in &mut self.targets {
            self.delivered += deliver(&mut target.post, &self.control)?;
        }
        Ok(())
    }

    /// Delivers one mail to every mailbox and triggers their syncs; how many mailboxes there are.
    pub(super) async fn deliver_to_all(&mut self, mail: &[u8]) -> anyhow::Result<usize> {
        for target in &self.targets {
            self.control.deliver(&target.post.address, Mails::Raw(mail.to_vec()), &Delivery::default())?;
        }
        self.trigger_all().await?;
        Ok(self.targets.len())
    }

    /// Triggers a sync of each of the mailboxes.
    async fn trigger_all(&mut self) -> anyhow::Result<()> {
        let connections: Vec<ConnectionId> = self.targets.iter().map(|target| target.connection).collect();
        self.trigger(&connections).await
    }

    async fn trigger(&mut self, connections: &[ConnectionId]) -> anyhow::Result<()> {
        let triggered: Vec<(JobId, Job)> = stream::iter(connections)
            .map(|connection| triggered(self.client.clone(), *connection))
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        self.jobs.extend(triggered);
        Ok(())
    }

    /// Waits until all is announced and every job has ended; triggers again what stays missing.
    async fn settle(&mut self, watch: &Watch) -> anyhow::Result<()> {
        let begun = Instant::now();
        let patience = PATIENCE + PATIENCE_EACH * u32::try_from(self.delivered).unwrap_or(u32::MAX);
        let mut since_trigger = Instant::now();
        while begun.elapsed() < patience {
            let behind = self.behind(watch)?;
            let n_open = self.n_open(watch);
            if behind.is_empty() && n_open == 0 {
                return Ok(());
            }
            if n_open > 0 {
                since_trigger = Instant::now();
            } else if since_trigger.elapsed() >= AGAIN {
                self.trigger(&behind).await?;
                since_trigger = Instant::now();
            }
            self.wait(LOOK, watch, "waiting for the rest").await;
        }
        self.screen.line(&format!(
            "Giving up after {} s: {} of {} messages announced, {} of {} jobs still open",
            patience.as_secs(),
            watch.look(super::watch::Seen::n_messages),
            self.delivered,
            self.n_open(watch),
            self.jobs.len()
        ));
        Ok(())
    }

    /// The mailboxes with messages that have not been announced yet.
    fn behind(&self, watch: &Watch) -> anyhow::Result<Vec<ConnectionId>> {
        if watch.look(super::watch::Seen::n_messages) < self.delivered {
            let short = |target: &&Target| {
                let n_announced = watch.look(|seen| seen.messages.get(&target.connection).map_or(0, HashSet::len));
                self.control.messages(&target.post.address).is_ok_and(|truth| n_announced < truth.len())
            };
            return Ok(self.targets.iter().filter(short).map(|target| target.connection).collect());
        }
        Ok(Vec::new())
    }

    fn n_open(&self, watch: &Watch) -> usize {
        watch.look(|seen| self.jobs.keys().filter(|job| !seen.ended.contains_key(job)).count())
    }

    async fn wait(&self, time: Duration, watch: &Watch, what: &str) {
        let n_seen = watch.look(super::watch::Seen::n_messages);
        let (n_open, n_jobs) = (self.n_open(watch), self.jobs.len());
        let jobs = format!("{} of {n_jobs} jobs ended", n_jobs - n_open);
        self.screen.status(format!("{what}: {n_seen} of {} messages announced, {jobs}", self.delivered));
        tokio::time::sleep(time).await;
    }

    /// Compares what Gmail lists with what is committed, and asks the API how each job ended.
    pub(super) async fn report(&self, watch: &Watch, kafka: &kafka::Settings) -> anyhow::Result<Report> {
        let (announced, fetched) = (count_announced(kafka).await?, count_fetched(kafka).await?);
        let nothing = HashMap::new();
        let mut report = Report::default();
        for target in &self.targets {
            let truth = self.control.messages(&target.post.address)?;
            let truth: HashSet<MessageId> = truth.iter().map(|message| MessageId::new(&message.id)).collect();
            let [announced, fetched] =
                [&announced, &fetched].map(|counted| counted.get(&target.connection).unwrap_or(&nothing));
            report.rows.push(Row::compare(&target.post.address, &truth, announced, fetched));
        }
        let states: Vec<String> = stream::iter(self.jobs.values())
            .map(|job| self.final_state(&job.path))
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        for state in states {
            *report.jobs.entry(state).or_default() += 1;
        }
        report.latencies = watch.look(|seen| {
            let first =
                |(id, job): (&JobId, &Job)| Some(seen.first_of_job.get(id)?.saturating_duration_since(job.posted));
            self.jobs.iter().filter_map(first).collect()
        });
        Ok(report)
    }

    /// A mailbox, and the path of a job, to try things on.
    pub(super) fn example(&self) -> Option<(&Target, &str)> {
        self.targets.first().zip(self.jobs.values().next().map(|job| job.path.as_str()))
    }

    /// The job's state as the API tells it; waits a little for the projector where the job has not ended there.
    async fn final_state(&self, path: &str) -> anyhow::Result<String> {
        let begun = Instant::now();
        loop {
            let job = sync::look(&self.client, path).await?;
            if sync::is_terminal(&job) || begun.elapsed() > Duration::from_secs(10) {
                return Ok(job["state"].as_str().context("a job without a state")?.to_owned());
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// One sync, asked for as a patient client does: again when the API says that it may be asked again.
async fn triggered(client: Client, connection: ConnectionId) -> anyhow::Result<(JobId, Job)> {
    let begun = Instant::now();
    loop {
        let posted = Instant::now();
        let answer = sync::trigger(&client, &connection.to_string()).await?;
        match answer.retry_after() {
            Some(pause) if begun.elapsed() < PATIENCE => tokio::time::sleep(pause).await,
            Some(_) | None => {
                let (id, path) = sync::accepted(&answer)?;
                return Ok((job_id(&id)?, Job { path, posted }));
            }
        }
    }
}
