//! The projector on a real broker and a real database: rows are what the topics fold to, whoever writes them, whatever
//! is killed, and whatever stands between the facts.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use devstack::{Postgres, PostgresOptions};
use domain::{
    ConnectionId, ConnectionState, GmailConnectionStatusChanged, GmailJobStatusChanged, JobId, JobState,
    OrganisationId, Progress, Timestamp, TokenVersion, Trigger,
};
use events::headers::dead;
use futures_util::future::join_all;
use kafka::topics::{Topic, Topics};
use kafka::{Headers, OutRecord, Producer};
use projector::{Fact, Fold};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::util::Timeout;
use rdkafka::{Offset, TopicPartitionList};
use runtime::Shutdown;
use runtime::health::Health;
use store::Store;
use tokio::task::JoinHandle;
use tokio_postgres::NoTls;
use uuid::Uuid;

use crate::house::now;
use crate::support::{LONG, Place, committed, stack, wait_until};

const ORGANISATION: OrganisationId = OrganisationId::from_uuid(Uuid::from_u128(0x1234));

fn job(id: u128, state: JobState, step: i64) -> GmailJobStatusChanged {
    let at = now();
    GmailJobStatusChanged {
        job_id: JobId::from_uuid(Uuid::from_u128(id)),
        organisation_id: ORGANISATION,
        connection_id: ConnectionId::from_uuid(Uuid::from_u128(id % 7)),
        trigger: Trigger::Api,
        state,
        step,
        progress: Progress { pages: step, discovered: step * 3, ..Progress::default() },
        requested_at: Timestamp::from_millis(1_770_000_000_000),
        started_at: (state != JobState::Queued).then_some(at),
        ended_at: state.is_terminal().then_some(at),
        deadline: at + domain::Duration::from_hours(1),
        at,
        code: (state == JobState::Failed).then(|| "Gmail.ReauthRequired".to_owned()),
        detail: (state == JobState::Failed).then(|| "Connect the mailbox again".to_owned()),
    }
}

fn connection(id: u128, status: ConnectionState, step: i64) -> GmailConnectionStatusChanged {
    GmailConnectionStatusChanged {
        organisation_id: ORGANISATION,
        connection_id: ConnectionId::from_uuid(Uuid::from_u128(id)),
        status,
        step,
        last_history_id: Some(domain::HistoryId::new(u64::MAX - step.unsigned_abs())),
        last_synced_at: Some(now()),
        token_version: TokenVersion(1),
        code: None,
        at: now(),
        watch_expires_at: (step % 2 == 0).then(now),
        last_push_at: Some(now()),
        units_today: Some(step),
        units_day: Some(now()),
    }
}

/// Writes facts to the topics of a place.
struct Writer {
    producer: Producer,
    topics: Topics,
}

impl Writer {
    async fn new(place: &Place) -> Self {
        let settings = kafka::Settings::read(&mut place.source());
        let topics = Topics::new(place.prefix());
        kafka::topics::create(&settings, &topics, &[Topic::JobStatus, Topic::ConnectionStatus, Topic::DeadLetter])
            .await
            .unwrap();
        Self { producer: Producer::new(&settings, "facts").unwrap(), topics }
    }

    fn record(&self, fact: &Fact) -> OutRecord {
        let (topic, key, frame) = match fact {
            Fact::Job(fact) => (Topic::JobStatus, fact.job_id.to_string(), events::encode(fact)),
            Fact::Connection(fact) => (Topic::ConnectionStatus, fact.connection_id.to_string(), events::encode(fact)),
        };
        OutRecord::new(self.topics.name(topic), key, frame, Headers::new())
    }

    async fn send(&self, facts: &[Fact]) {
        let records: Vec<_> = facts.iter().map(|fact| self.record(fact)).collect();
        for result in join_all(records.iter().map(|record| self.producer.send(record))).await {
            result.unwrap();
        }
    }

    /// Bytes that are no fact.
    async fn garbage(&self, topic: Topic, key: &str, value: Option<Bytes>) {
        let record = OutRecord {
            topic: self.topics.name(topic).clone(),
            partition: None,
            key: Some(Bytes::copy_from_slice(key.as_bytes())),
            value,
            headers: Headers::new(),
        };
        self.producer.send(&record).await.unwrap();
    }
}

/// The lives of some jobs and connections, with steps left out, repeated, late, and ends that come after the end.
fn lives(rng: &mut StdRng, ids: std::ops::Range<u128>) -> Vec<Fact> {
    let mut facts = Vec::new();
    for id in ids {
        let end = [JobState::Succeeded, JobState::Failed, JobState::Cancelled][rng.random_range(0..3)];
        facts.push(Fact::Job(job(id, JobState::Queued, 0)));
        facts.extend((1..rng.random_range(2..6)).map(|step| Fact::Job(job(id, JobState::Running, step))));
        if rng.random_bool(0.8) {
            facts.push(Fact::Job(job(id, end, 9)));
            facts.push(Fact::Job(job(id, JobState::Failed, 10)));
        }
        let status = [ConnectionState::Active, ConnectionState::NeedsReauth, ConnectionState::Forgotten];
        facts.push(Fact::Connection(connection(id % 50, status[rng.random_range(0..3)], rng.random_range(0..9))));
    }
    let repeated: Vec<Fact> = facts.iter().filter(|_| rng.random_bool(0.2)).cloned().collect();
    facts.extend(repeated);
    facts.shuffle(rng);
    facts
}

/// What the committed records of a place fold to.
async fn folded(place: &Place) -> Fold {
    let mut fold = Fold::default();
    for record in committed(&place.topic("gmail.job.status")).await {
        if let Some(Ok(fact)) = record.value.as_deref().map(events::decode) {
            fold.take(Fact::Job(fact));
        }
    }
    for record in committed(&place.topic("gmail.connection.status")).await {
        if let Some(Ok(fact)) = record.value.as_deref().map(events::decode) {
            fold.take(Fact::Connection(fact));
        }
    }
    fold
}

/// The rows as facts: what a fact says and a row does not keep is nothing.
async fn rows(client: &tokio_postgres::Client, store: &Store) -> Fold {
    let mut fold = Fold::default();
    for row in client.query("SELECT job_id FROM jobs", &[]).await.unwrap() {
        let row = store::jobs::find(store, ORGANISATION, JobId::from_uuid(row.get(0))).await.unwrap().unwrap();
        let fact = GmailJobStatusChanged {
            job_id: row.job_id,
            organisation_id: row.organisation_id,
            connection_id: row.connection_id,
            trigger: row.trigger,
            state: row.state,
            step: row.step,
            progress: row.progress,
            requested_at: row.requested_at,
            started_at: row.started_at,
            ended_at: row.ended_at,
            deadline: row.deadline,
            at: row.changed_at,
            code: row.code,
            detail: row.detail,
        };
        fold.jobs.insert(fact.job_id, fact);
    }
    let sql = "SELECT connection_id, state, step, last_history_id, token_version, code,
                      (extract(epoch FROM last_synced_at) * 1000)::bigint,
                      (extract(epoch FROM changed_at) * 1000)::bigint,
                      (extract(epoch FROM watch_expires_at) * 1000)::bigint,
                      (extract(epoch FROM last_push_at) * 1000)::bigint, units_today,
                      (extract(epoch FROM units_day) * 1000)::bigint
               FROM connection_states";
    for row in client.query(sql, &[]).await.unwrap() {
        let status: String = row.get(1);
        let fact = GmailConnectionStatusChanged {
            organisation_id: ORGANISATION,
            connection_id: ConnectionId::from_uuid(row.get(0)),
            status: serde_json::from_value(status.into()).unwrap(),
            step: row.get(2),
            last_history_id: row.get::<_, Option<String>>(3).map(|text| text.parse().unwrap()),
            last_synced_at: row.get::<_, Option<i64>>(6).map(Timestamp::from_millis),
            token_version: TokenVersion(row.get(4)),
            code: row.get(5),
            at: Timestamp::from_millis(row.get(7)),
            watch_expires_at: row.get::<_, Option<i64>>(8).map(Timestamp::from_millis),
            last_push_at: row.get::<_, Option<i64>>(9).map(Timestamp::from_millis),
            units_today: row.get(10),
            units_day: row.get::<_, Option<i64>>(11).map(Timestamp::from_millis),
        };
        fold.connections.insert(fact.connection_id, fact);
    }
    fold
}

/// A projector as a task, to be stopped.
struct Running {
    shutdown: Shutdown,
    health: Health,
    task: JoinHandle<anyhow::Result<()>>,
}

fn start(settings: projector::Settings) -> Running {
    let (shutdown, health) = (Shutdown::new(), Health::new());
    let task = tokio::spawn(projector::run(settings, health.clone(), shutdown.clone()));
    Running { shutdown, health, task }
}

impl Running {
    async fn stop(self) {
        self.shutdown.request();
        tokio::time::timeout(LONG, self.task).await.expect("the projector stops").unwrap().unwrap();
    }
}

fn settings(place: &Place) -> projector::Settings {
    projector::Settings { stand_by: Duration::from_millis(200), ..projector::Settings::read(&mut place.source()) }
}

async fn open(store: &Store, url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute(&format!("SET search_path = {}", store.schema())).await.unwrap();
    client
}

async fn migrated(place: &Place) -> (Store, tokio_postgres::Client) {
    let store = Store::connect(&store::Settings::read(&mut place.source())).unwrap();
    store.migrate().await.unwrap();
    let client = open(&store, place.database_url()).await;
    (store, client)
}

/// Waits until the rows are what the topics fold to.
async fn settled(place: &Place, client: &tokio_postgres::Client, store: &Store) {
    let owed = folded(place).await;
    assert!(!owed.is_empty());
    wait_until(LONG, "the rows are what the topics fold to", || async { rows(client, store).await == owed }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_what_the_topics_fold_to_whoever_writes_them() {
    let place = Place::new("projected");
    let (store, client) = migrated(&place).await;
    let writer = Writer::new(&place).await;
    let mut rng = StdRng::seed_from_u64(1);
    let (one, mut other) = (start(settings(&place)), start(settings(&place)));
    for wave in 0..6_u128 {
        writer.send(&lives(&mut rng, wave * 40..wave * 40 + 60)).await;
        if wave % 2 == 1 {
            other.stop().await;
            other = start(settings(&place));
        }
    }
    settled(&place, &client, &store).await;
    // One goes, and the other is enough.
    one.stop().await;
    writer.send(&lives(&mut rng, 1_000..1_050)).await;
    settled(&place, &client, &store).await;
    assert!(other.health.not_ready().is_empty(), "{:?}", other.health.not_ready());
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_decode_goes_to_the_dead_letters_and_holds_nothing_up() {
    let place = Place::new("dead");
    let (store, client) = migrated(&place).await;
    let writer = Writer::new(&place).await;
    let mut rng = StdRng::seed_from_u64(2);
    let foreign = events::encode(&events::examples::from_history());
    let cut = events::encode(&job(7, JobState::Succeeded, 3)).slice(..40);
    let projector = start(settings(&place));
    for (n, value) in [Bytes::from_static(b"{\"no\": \"frame\"}"), foreign.clone(), cut.clone()].iter().enumerate() {
        writer.send(&lives(&mut rng, 0..20)).await;
        writer.garbage(Topic::JobStatus, &format!("bad-{n}"), Some(value.clone())).await;
    }
    writer.garbage(Topic::JobStatus, "null", None).await;
    // A tombstone is no news: the connection was forgotten before.
    writer.garbage(Topic::ConnectionStatus, &Uuid::from_u128(1).to_string(), None).await;
    writer.send(&[Fact::Job(job(77, JobState::Succeeded, 1))]).await;
    settled(&place, &client, &store).await;
    projector.stop().await;

    let mut dead: BTreeMap<String, _> = BTreeMap::new();
    for record in committed(&place.topic("gmail.dead.letter")).await {
        dead.insert(record.key_text(), record);
    }
    assert_eq!(dead.keys().map(String::as_str).collect::<Vec<_>>(), ["bad-0", "bad-1", "bad-2", "null"]);
    assert_eq!((dead["bad-1"].value.as_ref(), dead["bad-2"].value.as_ref()), (Some(&foreign), Some(&cut)));
    assert_eq!(dead["null"].value, None);
    let source = committed(&place.topic("gmail.job.status")).await;
    for (key, letter) in &dead {
        let at = source.iter().find(|record| record.key_text() == *key).unwrap();
        assert_eq!(letter.header(dead::TOPIC), Some(place.topic("gmail.job.status")));
        assert_eq!(letter.header(dead::PARTITION), Some(at.partition.to_string()));
        assert_eq!(letter.header(dead::OFFSET), Some(at.offset.to_string()));
        assert!(letter.header(dead::REASON).is_some_and(|reason| reason.len() > 10), "{letter:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projector_killed_at_any_moment_loses_nothing_and_counts_nothing_twice() {
    let place = Place::new("killed");
    let (store, client) = migrated(&place).await;
    let writer = Writer::new(&place).await;
    let mut rng = StdRng::seed_from_u64(3);
    let mut processes = [place.service("one", &["projector"]), place.service("two", &["projector"])];
    processes.iter_mut().for_each(|process| {
        process.start();
    });
    for wave in 0..10_u128 {
        let facts = lives(&mut rng, wave * 30..wave * 30 + 60);
        let (first, rest) = facts.split_at(rng.random_range(0..facts.len()));
        writer.send(first).await;
        let struck = &mut processes[rng.random_range(0..2)];
        struck.kill();
        writer.send(rest).await;
        struck.start();
    }
    settled(&place, &client, &store).await;
    for mut process in processes {
        assert_eq!(process.stop(), 0, "{}", process.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_gives_the_same_rows_while_a_projector_runs_and_without_one() {
    let place = Place::new("rebuilt");
    let (store, client) = migrated(&place).await;
    let writer = Writer::new(&place).await;
    let mut rng = StdRng::seed_from_u64(4);
    writer.send(&lives(&mut rng, 0..200)).await;
    let running = start(settings(&place));
    settled(&place, &client, &store).await;
    for keep_running in [true, false] {
        let damage = "UPDATE jobs SET state = 'running', rank = 1, step = 1000000, detail = 'damaged';
                      DELETE FROM connection_states WHERE state <> 'forgotten'";
        client.batch_execute(damage).await.unwrap();
        let rebuilt = if keep_running {
            projector::rebuild(settings(&place), Shutdown::new()).await.unwrap()
        } else {
            running.shutdown.request();
            wait_until(LONG, "the projector stops", || std::future::ready(running.task.is_finished())).await;
            projector::rebuild(settings(&place), Shutdown::new()).await.unwrap()
        };
        assert_eq!(rebuilt.kept_before, None, "retention has taken nothing");
        settled(&place, &client, &store).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_keeps_the_rows_that_retention_no_longer_lets_it_derive() {
    let place = Place::new("retained");
    let (store, client) = migrated(&place).await;
    let writer = Writer::new(&place).await;
    let (long_ago, lately) = (now() - domain::Duration::from_hours(2), now() - domain::Duration::from_minutes(20));
    let ended = |id, requested_at| GmailJobStatusChanged { requested_at, ..job(id, JobState::Succeeded, 4) };
    let (old, new): (Vec<_>, Vec<_>) =
        ((0..40).map(|id| ended(id, long_ago)).collect(), (100..140).map(|id| ended(id, lately)).collect());
    write_at(&writer, &old, long_ago).await;
    let ends = ends(&place).await;
    // The oldest record left is from an hour ago; the new jobs were asked for well after it.
    write_at(&writer, &new, now() - domain::Duration::from_hours(1)).await;
    let projector = start(settings(&place));
    settled(&place, &client, &store).await;
    let whole = rows(&client, &store).await;
    projector.stop().await;

    delete_before(&place, &ends).await;
    client
        .execute("UPDATE jobs SET detail = 'damaged' WHERE requested_at > now() - interval '1 hour'", &[])
        .await
        .unwrap();
    let rebuilt = projector::rebuild(settings(&place), Shutdown::new()).await.unwrap();
    assert_eq!(rebuilt.records, new.len());
    assert!(rebuilt.kept_before.is_some_and(|before| long_ago < before && before <= lately), "{rebuilt:?}");
    assert_eq!(rows(&client, &store).await, whole, "the new rows are derived anew, the old ones kept");
}

/// Writes facts as they would have been written then.
async fn write_at(writer: &Writer, facts: &[GmailJobStatusChanged], at: Timestamp) {
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", stack().kafka.bootstrap())
        .set("partitioner", "murmur2_random")
        .create()
        .unwrap();
    for fact in facts {
        let (key, frame) = (fact.job_id.to_string(), events::encode(fact));
        let record = FutureRecord::to(writer.topics.name(Topic::JobStatus))
            .key(&key)
            .payload(&frame[..])
            .timestamp(at.as_millis());
        producer.send(record, Timeout::After(LONG)).await.unwrap();
    }
}

/// The next offset of each partition of the job topic.
async fn ends(place: &Place) -> Vec<i64> {
    let mut ends = vec![0; 4];
    for record in committed(&place.topic("gmail.job.status")).await {
        ends[usize::try_from(record.partition).unwrap()] = record.offset + 1;
    }
    ends
}

/// Removes records as retention does.
async fn delete_before(place: &Place, ends: &[i64]) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", stack().kafka.bootstrap()).create().unwrap();
    let mut list = TopicPartitionList::new();
    for (partition, end) in (0..).zip(ends) {
        list.add_partition_offset(&place.topic("gmail.job.status"), partition, Offset::Offset(*end)).unwrap();
    }
    admin.delete_records(&list, &AdminOptions::new().operation_timeout(Some(LONG))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn facts_written_while_postgres_is_away_become_rows_when_it_is_back() {
    let place = Place::new("away");
    let writer = Writer::new(&place).await;
    let mut postgres = Postgres::start(&PostgresOptions { own: true }).unwrap();
    let database = postgres.database("away").unwrap();
    let url = database.url().to_owned();
    let mut settings = settings(&place);
    settings.store = store::Settings { url: Some(url.as_str().into()), ..store::Settings::default() };
    let store = Store::connect(&settings.store).unwrap();
    let mut rng = StdRng::seed_from_u64(5);
    let projector = start(settings);
    writer.send(&lives(&mut rng, 0..50)).await;
    wait_until(LONG, "the projector is ready", || std::future::ready(projector.health.not_ready().is_empty())).await;
    settled(&place, &open(&store, &url).await, &store).await;

    postgres.kill().unwrap();
    writer.send(&lives(&mut rng, 30..80)).await;
    wait_until(LONG, "the projector says so", || std::future::ready(!projector.health.not_ready().is_empty())).await;
    postgres.restart().unwrap();
    wait_until(LONG, "the projector is ready", || std::future::ready(projector.health.not_ready().is_empty())).await;
    let client = open(&store, &url).await;
    settled(&place, &client, &store).await;
    projector.stop().await;
}
