//! `mailtide state restore`: mailboxes go on after Kafka itself was lost.
//!
//! What Postgres knows of each living connection becomes a state again: history is walked from the projected cursor, and
//! what only the lost state knew is owed as a window. Jobs that were open are asked for again under their own ids. Each
//! page of connections is one transaction, together with how far the run is, so that one that died is taken up where it
//! was.
//!
//! Until all is written, a record of a mailbox that there is not bars every partition: it names a partition count that no
//! topic has, and pollers refuse to start with it.

mod records;

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::bail;
use domain::{ConnectionId, JobId, Timestamp};
use kafka::reader::Inspector;
use kafka::snapshot::{Spans, Step};
use kafka::topics::{self, Topic, Topics};
use kafka::{OutRecord, SoleWriter};
use runtime::Shutdown;
use serde::{Deserialize, Serialize};
use serde_json::json;
use store::{Store, jobs, living, projection};

use super::ask::{self, Answer};
use super::journal::{self, Journal};
use super::stopped::refuse_while_running;
use super::{now, rfc3339};
use crate::Outcome;
use crate::cli::Restore;
use crate::output;
use crate::settings::Settings;
use records::Writing;

/// Connections, or jobs, of one transaction.
const PAGE: u32 = 250;

/// How far a restore is, in the journal.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Run {
    begun_at: Timestamp,
    finished_at: Option<Timestamp>,
    partitions: i32,
    /// The last connection that is written, and the last job of those whose connection is gone.
    connection: Option<ConnectionId>,
    job: Option<JobId>,
    counts: Counts,
}

impl Run {
    const KEY: &str = "state-restore";
}

/// What was written.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Counts {
    mailboxes: u64,
    /// With a cursor to go on from.
    with_cursor: u64,
    needs_reauth: u64,
    /// Open jobs that are asked for again.
    jobs_asked: u64,
    /// Open jobs that fail, since their connection is gone.
    jobs_failed: u64,
}

/// What a restore works with.
struct Restoring {
    kafka: kafka::Settings,
    names: Topics,
    store: Store,
    shutdown: Shutdown,
    margin: domain::Duration,
}

/// Restores the state.
pub(crate) async fn restore(ask: &Restore, settings: &Settings, shutdown: &Shutdown) -> anyhow::Result<Outcome> {
    let kafka = settings.kafka.clone();
    let names = Topics::new(&kafka.topic_prefix);
    let store = Store::connect(&settings.store)?;
    store.migrate().await?;
    refuse_while_running(&kafka).await?;
    topics::create(&kafka, &names, &Topic::ALL).await?;
    topics::check(&kafka, &names, &Topic::ALL).await?;
    let margin = domain::Duration::from_hours(i64::from(ask.margin_hours));
    let restoring = Restoring { kafka, names, store, shutdown: shutdown.clone(), margin };
    let partitions = Inspector::new(&restoring.kafka)?.partition_count(restoring.names.name(Topic::State)).await?;
    let stands = restoring.stands(partitions).await?;
    let counted = if ask.dry_run || !ask.yes { Some(restoring.count(stands.clone()).await?) } else { None };
    if let Some(counts) = counted {
        if ask.dry_run {
            print(ask, counts, "dry run")?;
            return Ok(Outcome::Done);
        }
        ask::needs_terminal("restoring the state")?;
        print(ask, counts, "would restore")?;
        let question =
            "Was Kafka lost, are ingress, scheduler, pollers and fetchers stopped, and is this to be written?";
        if ask::confirm(question).await? == Answer::No {
            bail!("nothing was done");
        }
    }
    let on = restoring.kafka.clone();
    let writer = tokio::task::spawn_blocking(move || SoleWriter::take_over(&on, Run::KEY)).await??;
    // Once more: an earlier run can commit nothing from here on.
    let run = restoring.stands(partitions).await?;
    let (run, is_whole) = restoring.carry_out(writer, run).await?;
    print(ask, run.counts, if is_whole { "restored" } else { "stopped" })?;
    if !is_whole {
        eprintln!("Stopped; the same command goes on with what is left, and until then pollers refuse to start");
        return Ok(Outcome::Failed);
    }
    Ok(Outcome::Done)
}

impl Restoring {
    /// The run to begin, or the one to go on with.
    async fn stands(&self, partitions: i32) -> anyhow::Result<Run> {
        let known: Option<Run> = Journal::read(&self.kafka, &self.names).await?.get(Run::KEY);
        let has_state = self.has_state().await?;
        match known {
            Some(Run { finished_at: Some(at), .. }) if has_state => bail!(
                "the state was restored at {}; what pollers have written since would be lost by another restore",
                rfc3339(at)
            ),
            Some(run) if run.finished_at.is_none() && run.partitions != partitions => bail!(
                "a restore was begun for {} partitions, and there are {partitions}: delete the topics, then begin anew",
                run.partitions
            ),
            Some(run) if run.finished_at.is_none() => Ok(run),
            None if has_state => bail!(
                "{} holds the state of mailboxes, so it is not lost; start the services. Where it is of no use, delete the \
                 topic first",
                self.names.name(Topic::State)
            ),
            // The first one ever, or the state was lost once more.
            Some(_) | None => Ok(Run { begun_at: now(), partitions, ..Run::default() }),
        }
    }

    /// Whether there is any record on the state topic.
    async fn has_state(&self) -> anyhow::Result<bool> {
        let topic = self.names.name(Topic::State).clone();
        kafka::snapshot::until_decided(&self.kafka, "state-restore", &topic).await?;
        let count = Inspector::new(&self.kafka)?.partition_count(&topic).await?;
        let kafka = self.kafka.clone();
        let look = move || -> anyhow::Result<bool> {
            let whole: BTreeMap<_, _> = (0..count).map(|partition| (partition, 0..i64::MAX)).collect();
            let mut reading = Spans::open(&kafka, "state-restore", &topic, whole)?;
            loop {
                match reading.step()? {
                    Step::Record(_) => return Ok(true),
                    Step::Waiting => {}
                    Step::End => return Ok(false),
                }
            }
        };
        tokio::task::spawn_blocking(look).await?
    }

    fn writing(&self, partitions: i32) -> Writing<'_> {
        Writing { names: &self.names, partitions, margin: self.margin, now: now() }
    }

    /// The next page of connections as records; none when there are no more.
    async fn page(&self, run: &mut Run) -> anyhow::Result<Option<Vec<OutRecord>>> {
        let page = living::page(&self.store, run.connection, PAGE).await?;
        let Some(last) = page.last() else { return Ok(None) };
        run.connection = Some(last.connection_id);
        let of: Vec<_> = page.iter().map(|it| (it.organisation_id, it.connection_id)).collect();
        let mut open: BTreeMap<ConnectionId, Vec<jobs::Job>> = BTreeMap::new();
        for job in jobs::of_connections(&self.store, &of).await? {
            open.entry(job.connection_id).or_default().push(job);
        }
        let writing = self.writing(run.partitions);
        let mut records = Vec::new();
        for living in page {
            let jobs = open.remove(&living.connection_id).unwrap_or_default();
            run.counts.mailboxes += 1;
            run.counts.with_cursor += u64::from(living.synced.is_some());
            run.counts.needs_reauth += u64::from(living.needs_reauth.is_some());
            run.counts.jobs_asked += jobs.len() as u64;
            records.extend(writing.mailbox(living, jobs));
        }
        Ok(Some(records))
    }

    /// The next page of jobs whose connection is gone, as their failures; none when there are no more.
    async fn orphans(&self, run: &mut Run) -> anyhow::Result<Option<Vec<OutRecord>>> {
        let page = jobs::orphaned(&self.store, run.job, PAGE).await?;
        let Some(last) = page.last() else { return Ok(None) };
        run.job = Some(last.job_id);
        run.counts.jobs_failed += page.len() as u64;
        let writing = self.writing(run.partitions);
        Ok(Some(page.into_iter().map(|job| writing.failed(job)).collect()))
    }

    /// Counts what is left to be written.
    async fn count(&self, mut run: Run) -> anyhow::Result<Counts> {
        while !self.shutdown.is_requested() && self.page(&mut run).await?.is_some() {}
        while !self.shutdown.is_requested() && self.orphans(&mut run).await?.is_some() {}
        Ok(run.counts)
    }

    /// Writes all that is left. False when it was stopped.
    async fn carry_out(&self, writer: SoleWriter, mut run: Run) -> anyhow::Result<(Run, bool)> {
        // What was read of topics that are gone says nothing of those that there are now; who reads them again from their
        // start comes to the same rows. A projector that runs is fenced by it.
        let sources = [Topic::JobStatus, Topic::ConnectionStatus].map(|topic| self.names.name(topic).to_string());
        projection::forget_positions(&self.store, projector::PROJECTION, &sources).await?;
        let bars = (0..run.partitions).map(|partition| self.writing(run.partitions).bar(partition));
        let mut writer = self.commit(writer, bars.collect(), &run).await?;
        let progress = ask::spinner();
        loop {
            if self.shutdown.is_requested() {
                progress.finish_and_clear();
                return Ok((run, false));
            }
            let records = match self.page(&mut run).await? {
                Some(records) => records,
                None => match self.orphans(&mut run).await? {
                    Some(records) => records,
                    None => break,
                },
            };
            writer = self.commit(writer, records, &run).await?;
            progress.set_message(format!("{} mailboxes", run.counts.mailboxes));
        }
        progress.finish_and_clear();
        refuse_while_running(&self.kafka).await?;
        run.finished_at = Some(now());
        let unbarred = (0..run.partitions).map(|partition| self.writing(run.partitions).unbar(partition));
        self.commit(writer, unbarred.collect(), &run).await?;
        Ok((run, true))
    }

    /// Writes records, and how far the run is with them.
    async fn commit(
        &self,
        mut writer: SoleWriter,
        mut records: Vec<OutRecord>,
        run: &Run,
    ) -> anyhow::Result<SoleWriter> {
        records.push(journal::entry(&self.names, Run::KEY.to_owned(), run));
        let records: Arc<[OutRecord]> = records.into();
        let write = move || writer.commit(&records).map(|()| writer);
        Ok(tokio::task::spawn_blocking(write).await??)
    }
}

fn print(ask: &Restore, counts: Counts, state: &str) -> anyhow::Result<()> {
    if ask.output.json {
        let mut shown = json!(counts);
        shown["state"] = state.into();
        return output::line(&shown);
    }
    let rows = [
        ("mailboxes", counts.mailboxes.to_string()),
        ("with a cursor to go on from", counts.with_cursor.to_string()),
        ("that need a consent", counts.needs_reauth.to_string()),
        ("open jobs, asked for again", counts.jobs_asked.to_string()),
        ("open jobs of connections that are gone, failed", counts.jobs_failed.to_string()),
        ("state", state.to_owned()),
    ];
    output::print(ask.output, &(), ["what", "value"], rows.map(|(what, value)| [what.to_owned(), value]))
}
