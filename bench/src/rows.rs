//! How fast facts of jobs become rows: the projector on a topic that is full of them, against one loop that writes the same
//! rows by the same kind of statement and does nothing else.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail};
use domain::{
    ConnectionId, GmailJobStatusChanged, JobId, JobState, OrganisationId, Progress as Done, Timestamp, Trigger,
};
use futures_util::future::try_join_all;
use kafka::reader::Inspector;
use kafka::topics::{self, Topic, Topics};
use kafka::{Headers, OutRecord, Producer};
use runtime::Shutdown;
use runtime::health::Health;
use store::{Store, projection};
use tokio_postgres::NoTls;
use uuid::Uuid;

use crate::options::Options;
use crate::place::Place;
use crate::progress::Progress;
use crate::report::Outcome;

/// Jobs of a round; each has two facts, that it runs and that it succeeded.
const JOBS: usize = 50_000;

/// Facts in a statement, on both sides.
const BATCH: usize = 5_000;

/// Jobs of as many connections.
const CONNECTIONS: usize = 1_000;

/// Nothing that is waited for takes as long.
const DEADLINE: Duration = Duration::from_secs(300);

/// Between two looks at how far the projector is.
const LOOK: Duration = Duration::from_millis(5);

pub(crate) async fn run(place: &Place, options: &Options) -> anyhow::Result<Vec<Outcome>> {
    let progress = Progress::start("rows");
    progress.say("warming up");
    let kafka = place.kafka("rows");
    let store = place.store().await?;
    let names = Topics::new(&kafka.topic_prefix);
    topics::create(&kafka, &names, &Topic::ALL).await?;
    let bare = bare(place).await?;
    let settings = projector::Settings {
        linger: Duration::from_millis(3),
        batch: BATCH,
        stand_by: Duration::from_secs(1),
        kafka: kafka.clone(),
        store: place.store_settings()?,
    };
    let mut rounds = Vec::new();
    // The first is for both sides to get warm.
    for number in 0..=options.rounds {
        let facts = facts();
        write(&kafka, &names, &facts).await?;
        let ours = project(&settings, &store, &names).await?;
        let limit = upsert(&bare, &facts).await?;
        if number == 0 {
            continue;
        }
        let rate = |time: Duration| facts.len() as f64 / time.as_secs_f64();
        rounds.push((rate(ours), rate(limit)));
        let rounds = options.rounds;
        progress.say(&format!("round {number} of {rounds}: {:.0}/s, bare {:.0}/s", rate(ours), rate(limit)));
    }
    Ok(vec![Outcome::of_rates("facts of jobs into rows", "facts/s", &rounds, 0.5)])
}

/// The facts of new jobs, the second of each a batch behind the first, so that each is written.
fn facts() -> Vec<GmailJobStatusChanged> {
    let organisation_id = OrganisationId::from_uuid(Uuid::new_v4());
    let connections: Vec<_> = (0..CONNECTIONS).map(|_| ConnectionId::from_uuid(Uuid::new_v4())).collect();
    let now = Timestamp::from_millis(1_700_000_000_000);
    let mut facts = Vec::with_capacity(2 * JOBS);
    for batch in 0..JOBS / BATCH {
        let running: Vec<_> = (0..BATCH)
            .map(|number| GmailJobStatusChanged {
                job_id: JobId::from_uuid(Uuid::new_v4()),
                organisation_id,
                connection_id: connections[(batch * BATCH + number) % CONNECTIONS],
                trigger: Trigger::Api,
                state: JobState::Running,
                step: 1,
                progress: Done::default(),
                requested_at: now,
                started_at: Some(now),
                ended_at: None,
                deadline: now,
                at: now,
                code: None,
                detail: None,
            })
            .collect();
        let ended = running.iter().cloned().map(|fact| GmailJobStatusChanged {
            state: JobState::Succeeded,
            step: 2,
            ended_at: Some(now),
            ..fact
        });
        let ended: Vec<_> = ended.collect();
        facts.extend(running);
        facts.extend(ended);
    }
    facts
}

/// Fills the topic while nobody reads it.
async fn write(kafka: &kafka::Settings, names: &Topics, facts: &[GmailJobStatusChanged]) -> anyhow::Result<()> {
    // A topic that is filled as fast as the brokers take it is behind by more than a caller would wait for.
    let kafka = kafka::Settings { delivery_timeout: DEADLINE, ..kafka.clone() };
    let producer = Producer::new(&kafka, "bench")?;
    for batch in facts.chunks(BATCH) {
        let records: Vec<OutRecord> = batch
            .iter()
            .map(|fact| {
                let (topic, key) = (names.name(Topic::JobStatus), fact.job_id.to_string());
                OutRecord::new(topic, key, events::encode(fact), Headers::new())
            })
            .collect();
        try_join_all(records.iter().map(|record| producer.send(record))).await?;
    }
    Ok(())
}

/// How long the projector takes from its start until it stands at the end of the topic.
async fn project(settings: &projector::Settings, store: &Store, names: &Topics) -> anyhow::Result<Duration> {
    let topic = names.name(Topic::JobStatus);
    let ends = Inspector::new(&settings.kafka)?.ends(topic).await?;
    let end: i64 = ends.iter().map(|ends| ends.end).sum();
    let shutdown = Shutdown::new();
    let begun = Instant::now();
    let running = tokio::spawn(projector::run(settings.clone(), Health::new(), shutdown.clone()));
    let time = loop {
        let positions = projection::positions(store, projector::PROJECTION).await?;
        let of_jobs = positions.iter().filter(|position| position.topic.as_str() == topic.as_ref());
        if of_jobs.map(|position| position.next_offset).sum::<i64>() >= end {
            break begun.elapsed();
        }
        if running.is_finished() || begun.elapsed() > DEADLINE {
            bail!("The projector has not come to the end of its topic");
        }
        tokio::time::sleep(LOOK).await;
    };
    shutdown.request();
    running.await?.context("The projector")?;
    Ok(time)
}

/// A connection of its own, and a table like that of the jobs.
async fn bare(place: &Place) -> anyhow::Result<tokio_postgres::Client> {
    let (client, connection) = tokio_postgres::connect(place.database_url(), NoTls).await?;
    tokio::spawn(connection);
    let schema = place.store_settings()?.schema;
    client.batch_execute(&format!("CREATE TABLE bare_rows (LIKE {schema}.jobs INCLUDING ALL)")).await?;
    Ok(client)
}

/// How long the same rows take by one loop: a batch, a statement, a transaction.
async fn upsert(client: &tokio_postgres::Client, facts: &[GmailJobStatusChanged]) -> anyhow::Result<Duration> {
    let statement = client
        .prepare(
            "INSERT INTO bare_rows AS j (job_id, organisation_id, connection_id, trigger, state, rank, step, progress,
                                         requested_at, started_at, ended_at, deadline, changed_at)
             SELECT job_id, organisation_id, connection_id, trigger, state, rank, step, progress::jsonb, at, at, ended_at,
                    at, at
             FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::smallint[], $7::bigint[],
                         $8::text[], $9::timestamptz[], $10::timestamptz[])
                  AS u(job_id, organisation_id, connection_id, trigger, state, rank, step, progress, at, ended_at)
             ON CONFLICT (job_id) DO UPDATE SET
                 state = excluded.state, rank = excluded.rank, step = excluded.step, progress = excluded.progress,
                 ended_at = excluded.ended_at, changed_at = excluded.changed_at
             WHERE (j.rank, j.step) < (excluded.rank, excluded.step)",
        )
        .await?;
    let at = |at: Timestamp| SystemTime::UNIX_EPOCH + Duration::from_millis(at.as_millis().unsigned_abs());
    let begun = Instant::now();
    for batch in facts.chunks(BATCH) {
        let uuids = |of: fn(&GmailJobStatusChanged) -> Uuid| batch.iter().map(of).collect::<Vec<_>>();
        let triggers: Vec<&str> = batch.iter().map(|fact| fact.trigger.as_str()).collect();
        let states: Vec<&str> = batch.iter().map(|fact| fact.state.as_str()).collect();
        let ranks: Vec<i16> = batch.iter().map(|fact| fact.state.rank()).collect();
        let steps: Vec<i64> = batch.iter().map(|fact| fact.step).collect();
        let progress: Vec<String> =
            batch.iter().map(|fact| serde_json::to_string(&fact.progress)).collect::<Result<_, _>>()?;
        let times: Vec<SystemTime> = batch.iter().map(|fact| at(fact.at)).collect();
        let ends: Vec<Option<SystemTime>> = batch.iter().map(|fact| fact.ended_at.map(at)).collect();
        client
            .execute(
                &statement,
                &[
                    &uuids(|fact| *fact.job_id.as_uuid()),
                    &uuids(|fact| *fact.organisation_id.as_uuid()),
                    &uuids(|fact| *fact.connection_id.as_uuid()),
                    &triggers,
                    &states,
                    &ranks,
                    &steps,
                    &progress,
                    &times,
                    &ends,
                ],
            )
            .await?;
    }
    Ok(begun.elapsed())
}
