//! The scheduler on a real broker and a real database: every slot of every connection is one job, however many
//! schedulers run and whichever of them is killed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use domain::schedule::{self, Schedule};
use domain::{ConnectionId, ConnectionState, JobId, OrganisationId, PollGmailConnection, Timestamp, Trigger};
use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use runtime::Shutdown;
use runtime::health::Health;
use store::Store;
use store::connections::{self, Change, Consent};
use tokio::task::JoinHandle;
use tokio_postgres::NoTls;

use crate::house::now;
use crate::support::{LONG, Place, committed, wait_until};

/// A place with connections, and the schedule under which they are synced.
struct Office {
    place: Place,
    store: Store,
    organisation: OrganisationId,
    interval: Duration,
}

struct Running {
    shutdown: Shutdown,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Running {
    async fn stop(self) {
        self.shutdown.request();
        tokio::time::timeout(LONG, self.task).await.expect("the scheduler stops").unwrap().unwrap();
    }
}

impl Office {
    async fn new(name: &str, interval: Duration) -> Self {
        let place = Place::new(name);
        let store = Store::connect(&store::Settings::read(&mut place.source())).unwrap();
        store.migrate().await.unwrap();
        let organisation = store::organisations::create(&store, name, now()).await.unwrap().organisation_id;
        Self { place, store, organisation, interval }
    }

    async fn connect(&self, count: usize) -> Vec<ConnectionId> {
        let add = |n: usize| async move {
            let account = format!("{n}@example");
            let consent = Consent { account: &account, email: &account, refresh_token: &"token".into() };
            connections::add(&self.store, self.organisation, &consent, now()).await.unwrap().connection_id
        };
        join_all((0..count).map(add)).await
    }

    fn settings(&self) -> scheduler::Settings {
        scheduler::Settings {
            interval: self.interval,
            look_ahead: self.interval / 4,
            page: 7,
            ..scheduler::Settings::read(&mut self.place.source())
        }
    }

    fn start(&self) -> Running {
        let shutdown = Shutdown::new();
        let task = tokio::spawn(scheduler::run(self.settings(), Health::new(), shutdown.clone()));
        Running { shutdown, task }
    }

    fn schedule(&self) -> Schedule {
        Schedule::every(millis(self.interval)).unwrap()
    }

    async fn watermark(&self) -> Option<Timestamp> {
        store::schedule::fired_to(&self.store, scheduler::SCHEDULE).await.unwrap()
    }

    async fn fired_past(&self, at: Timestamp) {
        wait_until(LONG, "the schedule goes on", || async { self.watermark().await > Some(at) }).await;
    }

    /// The commands written so far, by job.
    async fn commands(&self) -> BTreeMap<JobId, Vec<PollGmailConnection>> {
        self.asked(false).await
    }

    /// Those of one schedule: audits, or syncs.
    async fn asked(&self, audits: bool) -> BTreeMap<JobId, Vec<PollGmailConnection>> {
        let mut jobs = BTreeMap::<_, Vec<_>>::new();
        for record in committed(&self.place.topic("gmail.connection.poll")).await {
            let command: PollGmailConnection = events::decode(record.value.as_deref().unwrap()).unwrap();
            if (command.trigger == Trigger::Audit) != audits {
                continue;
            }
            assert_eq!(record.key_text(), command.connection_id.to_string());
            assert_eq!(record.header("jobId"), Some(command.job_id.to_string()));
            let trigger = if audits { Trigger::Audit } else { Trigger::Schedule };
            assert_eq!((command.trigger, command.window.is_some()), (trigger, audits));
            assert!(command.requested_at < command.deadline);
            jobs.entry(command.job_id).or_default().push(command);
        }
        jobs
    }

    /// The jobs that the slots of these connections are.
    fn slots(&self, connections: &[ConnectionId], from: Timestamp, to: Timestamp) -> BTreeSet<JobId> {
        let due = |id: &ConnectionId| {
            let id = *id;
            self.schedule().due(id, from, to).map(move |slot| schedule::job_id(id, slot))
        };
        connections.iter().flat_map(due).collect()
    }
}

fn millis(span: Duration) -> domain::Duration {
    domain::Duration::from_millis(i64::try_from(span.as_millis()).unwrap())
}

/// Every slot after `from`, the first watermark seen, and up to the present one is fired; and nothing that is no slot since
/// `started`, or not yet one, is.
async fn assert_whole(office: &Office, connections: &[ConnectionId], started: Timestamp, from: Timestamp) {
    let watermark = office.watermark().await.unwrap();
    let fired: BTreeSet<JobId> = office.commands().await.into_keys().collect();
    let owed = office.slots(connections, from, watermark);
    let missing: Vec<_> = owed.difference(&fired).collect();
    assert!(!owed.is_empty() && missing.is_empty(), "not fired: {missing:?}");
    let allowed = office.slots(connections, started, now());
    let strange: Vec<_> = fired.difference(&allowed).collect();
    assert!(strange.is_empty(), "no slots: {strange:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_schedulers_at_once_make_one_job_of_each_slot() {
    let office = Office::new("slots", Duration::from_secs(4)).await;
    let connections = office.connect(60).await;
    let started = now();
    let (one, other) = (office.start(), office.start());
    wait_until(LONG, "the schedule begins", || async { office.watermark().await.is_some() }).await;
    let begin = office.watermark().await.unwrap();
    office.fired_past(begin + millis(office.interval) + millis(office.interval)).await;
    one.stop().await;
    let middle = office.watermark().await.unwrap();
    office.fired_past(middle + millis(office.interval)).await;
    other.stop().await;
    assert_whole(&office, &connections, started, begin).await;
    let commands = office.commands().await;
    let written: usize = commands.values().map(Vec::len).sum();
    assert!(written <= 2 * commands.len(), "each slot at most once by each: {written} of {}", commands.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduler_killed_at_any_moment_skips_no_slot() {
    let office = Office::new("stopped", Duration::from_secs(4)).await;
    let connections = office.connect(60).await;
    let mut process = office
        .place
        .service("scheduler", &["scheduler"])
        .set("MAILTIDE_SCHEDULER_INTERVAL", "4s")
        .set("MAILTIDE_SCHEDULER_LOOK_AHEAD", "1s");
    let started = now();
    process.start();
    wait_until(LONG, "the schedule begins", || async { office.watermark().await.is_some() }).await;
    let begin = office.watermark().await.unwrap();
    let mut rng = StdRng::seed_from_u64(6);
    for _ in 0..5 {
        let at = office.watermark().await.unwrap();
        office.fired_past(at + domain::Duration::from_millis(rng.random_range(0..900))).await;
        process.kill();
        process.start();
    }
    let at = office.watermark().await.unwrap();
    office.fired_past(at + millis(office.interval)).await;
    assert_eq!(process.stop(), 0, "{}", process.log());
    assert_whole(&office, &connections, started, begin).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_downtime_each_connection_is_synced_once_and_not_all_at_once() {
    let office = Office::new("downtime", Duration::from_secs(20)).await;
    let connections = office.connect(100).await;
    let stopped_at = now() - domain::Duration::from_hours(3);
    store::schedule::advance(&office.store, scheduler::SCHEDULE, stopped_at).await.unwrap();
    let started_at = now();
    let scheduler = office.start();
    office.fired_past(stopped_at).await;
    // The schedule's time began one interval before this instant, or earlier.
    office.fired_past(now()).await;
    scheduler.stop().await;

    let commands = office.commands().await;
    let mut fired: BTreeMap<ConnectionId, usize> = BTreeMap::new();
    for command in commands.values().map(|commands| &commands[0]) {
        *fired.entry(command.connection_id).or_default() += 1;
    }
    assert_eq!(fired.len(), connections.len(), "every connection has missed a slot");
    let ended_at = office.watermark().await.unwrap();
    let allowed = office.slots(&connections, started_at - millis(office.interval), ended_at);
    assert!(commands.keys().all(|job| allowed.contains(job)), "none but the latest of the missed slots");
    // Twenty seconds are made up for at ten times the pace: in about two, and evenly.
    let first = commands.values().map(|commands| commands[0].requested_at).min().unwrap();
    let of_first_half_second =
        commands.values().filter(|commands| commands[0].requested_at.since(first).as_millis() < 500).count();
    assert!(of_first_half_second < connections.len() / 2, "{of_first_half_second} in the first half second");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_cannot_be_synced_are_left_alone() {
    let office = Office::new("unsynced", Duration::from_secs(2)).await;
    let connections = office.connect(12).await;
    let paused = Change { paused: Some(true), ..Change::default() };
    connections::change(&office.store, office.organisation, connections[3], paused).await.unwrap().unwrap();
    let (client, connection) = tokio_postgres::connect(office.place.database_url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute(&format!("SET search_path = {}", office.store.schema())).await.unwrap();
    client
        .execute("UPDATE connections SET revoked_at = now() WHERE connection_id = $1", &[connections[0].as_uuid()])
        .await
        .unwrap();
    for (id, state) in [(connections[1], ConnectionState::NeedsReauth), (connections[2], ConnectionState::Quarantined)]
    {
        let sql =
            "INSERT INTO connection_states (connection_id, organisation_id, state, step, token_version, changed_at)
                   VALUES ($1, $2, $3, 1, 1, now())";
        client.execute(sql, &[id.as_uuid(), office.organisation.as_uuid(), &state.as_str()]).await.unwrap();
    }
    let started = now();
    let scheduler = office.start();
    wait_until(LONG, "the schedule begins", || async { office.watermark().await.is_some() }).await;
    let begin = office.watermark().await.unwrap();
    office.fired_past(begin + millis(office.interval) + millis(office.interval)).await;
    scheduler.stop().await;
    assert_whole(&office, &connections[4..], started, begin).await;
}

/// The daily round: each connection's slot is one job, with the window before it, however many schedulers run.
#[tokio::test(flavor = "multi_thread")]
async fn every_connection_is_audited_once_a_round() {
    const ROUND: Duration = Duration::from_secs(4);
    let office = Office::new("audits", Duration::from_secs(12 * 3600)).await;
    let connections = office.connect(40).await;
    let start = || {
        let shutdown = Shutdown::new();
        let look_ahead = Duration::from_secs(1);
        let settings = scheduler::Settings { audit_interval: ROUND, look_ahead, ..office.settings() };
        let task = tokio::spawn(scheduler::run(settings, Health::new(), shutdown.clone()));
        Running { shutdown, task }
    };
    let running = [start(), start()];
    let watermark = async || store::schedule::fired_to(&office.store, scheduler::AUDITS).await.unwrap();
    wait_until(LONG, "the round begins", || async { watermark().await.is_some() }).await;
    let from = watermark().await.unwrap();
    let to = from + millis(2 * ROUND);
    wait_until(LONG, "two rounds are done", || async { watermark().await > Some(to) }).await;
    for one in running {
        one.stop().await;
    }
    let asked = office.asked(true).await;
    let round = Schedule::every(millis(ROUND)).unwrap();
    for id in connections {
        for slot in round.due(id, from, to) {
            let commands = asked.get(&schedule::audit_id(id, slot)).expect("every slot is fired");
            let window = commands[0].window.unwrap();
            assert_eq!((window.since, window.until), (slot - scheduler::AUDITED, slot));
        }
    }
}
