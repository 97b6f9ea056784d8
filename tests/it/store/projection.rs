//! Facts become rows: the same rows, whatever the batches, the repeats and the writers.

use std::collections::BTreeMap;

use domain::{
    ConnectionId, ConnectionState, GmailConnectionStatusChanged, GmailJobStatusChanged, HistoryId, JobId, JobState,
    OrganisationId, Progress, Timestamp, TokenVersion, Trigger,
};
use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use store::projection::{self, Batch, Move, Position};
use store::{Error, Store, jobs};
use tokio_postgres::Client;
use uuid::Uuid;

use super::rows::{anybody, command};
use super::{client, migrated, now};

const TOPIC: &str = "gmail.job.status";

fn fact(organisation_id: OrganisationId, job: u128, state: JobState, step: i64) -> GmailJobStatusChanged {
    let at = Timestamp::from_millis(1_700_000_000_000 + step);
    GmailJobStatusChanged {
        job_id: JobId::from_uuid(Uuid::from_u128(job)),
        organisation_id,
        connection_id: ConnectionId::from_uuid(Uuid::from_u128(job)),
        trigger: Trigger::Api,
        state,
        step,
        progress: Progress { pages: step, ..Progress::default() },
        requested_at: Timestamp::from_millis(1_700_000_000_000),
        started_at: (state != JobState::Queued).then_some(at),
        ended_at: state.is_terminal().then_some(at),
        deadline: Timestamp::from_millis(1_700_000_900_000),
        at,
        code: (state == JobState::Failed).then(|| "Gmail.Broken\0".to_owned()),
        detail: None,
    }
}

fn step(expected: Option<i64>, next_offset: i64) -> Vec<Move> {
    vec![Move { topic: TOPIC.to_owned(), partition: 0, expected, next_offset }]
}

async fn dump(client: &Client) -> Vec<String> {
    let rows = "SELECT j::text FROM jobs j UNION ALL SELECT c::text FROM connection_states c ORDER BY 1";
    client.query(rows, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

/// The rule of the rows, told once more: the later fact stands, the first end for ever.
fn fold(facts: &[GmailJobStatusChanged]) -> BTreeMap<JobId, (JobState, i64)> {
    let mut rows = BTreeMap::<JobId, (JobState, i64)>::new();
    for fact in facts {
        let row = rows.entry(fact.job_id).or_insert((fact.state, fact.step));
        if !row.0.is_terminal() && (row.0.rank(), row.1) < (fact.state.rank(), fact.step) {
            *row = (fact.state, fact.step);
        }
    }
    rows
}

#[tokio::test]
async fn any_split_into_batches_gives_the_rows_of_the_fold() {
    let (_place, store) = migrated("fold").await;
    let states = [
        JobState::Queued,
        JobState::Running,
        JobState::Running,
        JobState::Succeeded,
        JobState::Failed,
        JobState::Cancelled,
    ];
    for seed in 0..40 {
        let mut random = StdRng::seed_from_u64(seed);
        // Jobs of their own for each round; facts out of order, repeated, with more than one end.
        let organisation = anybody();
        let base = Uuid::new_v4().as_u128() & !0xff;
        let mut facts: Vec<_> = (0..60)
            .map(|_| {
                let state = states[random.random_range(0..states.len())];
                fact(organisation, base + random.random_range(0..8), state, random.random_range(0..10))
            })
            .collect();
        facts.extend_from_within(20..40);
        let mut expected = None;
        let mut next = 0;
        let projection = format!("round {seed}");
        let mut rest = facts.as_slice();
        while !rest.is_empty() {
            let (batch, later) = rest.split_at(random.random_range(1..=rest.len()));
            next += i64::try_from(batch.len()).unwrap();
            let batch = Batch { jobs: batch.to_vec(), moves: step(expected, next), ..Batch::default() };
            projection::apply(&store, &projection, batch).await.unwrap();
            (expected, rest) = (Some(next), later);
        }
        for (job_id, (state, step)) in fold(&facts) {
            let row = jobs::find(&store, organisation, job_id).await.unwrap().unwrap();
            assert_eq!((row.state, row.step), (state, step), "seed {seed}, job {job_id}");
            assert_eq!((row.progress.pages, row.ended_at.is_some()), (step, state.is_terminal()));
        }
        let position = Position { topic: TOPIC.to_owned(), partition: 0, next_offset: 80 };
        assert_eq!(projection::positions(&store, &projection).await.unwrap(), [position]);
    }
}

#[tokio::test]
async fn a_fact_goes_over_what_ingress_put_and_ingress_never_over_a_fact() {
    let (_place, store) = migrated("overtaken").await;
    let (early, late) = (command(anybody()), command(anybody()));
    jobs::insert_queued(&store, std::slice::from_ref(&early)).await.unwrap();
    let facts = [&early, &late].map(|command| {
        let job = command.job_id.as_uuid().as_u128();
        fact(command.organisation_id, job, JobState::Queued, 0)
    });
    projection::apply(&store, "p", Batch { jobs: facts.to_vec(), ..Batch::default() }).await.unwrap();
    jobs::insert_queued(&store, &[early.clone(), late.clone()]).await.unwrap();
    for command in [early, late] {
        let job = jobs::find(&store, command.organisation_id, command.job_id).await.unwrap().unwrap();
        assert_eq!(job.step, 0);
    }
}

#[tokio::test]
async fn of_two_writers_at_one_offset_one_wins_and_the_other_writes_nothing() {
    let (_place, store) = migrated("fenced").await;
    let ours = anybody();
    for (round, expected) in [(0, None), (1, Some(10)), (2, Some(20))] {
        let writers = (0..8_u8).map(|writer| {
            let job = u128::from(writer) + 100 * u128::try_from(round).unwrap();
            let jobs = vec![fact(ours, job, JobState::Running, 1)];
            projection::apply(&store, "p", Batch { jobs, moves: step(expected, 10 * (round + 1)), ..Batch::default() })
        });
        let mut won = Vec::new();
        for (writer, result) in (0_u128..).zip(join_all(writers).await) {
            match result {
                Ok(applied) => {
                    assert_eq!(applied.jobs, 1);
                    won.push(writer);
                }
                Err(Error::Fenced { topic, partition, expected: told, .. }) => {
                    assert_eq!((topic.as_str(), partition, told), (TOPIC, 0, expected));
                    let job = JobId::from_uuid(Uuid::from_u128(writer + 100 * u128::try_from(round).unwrap()));
                    assert_eq!(jobs::find(&store, ours, job).await.unwrap(), None, "a fenced writer wrote");
                }
                Err(other) => panic!("{other:?}"),
            }
        }
        assert_eq!(won.len(), 1, "round {round}");
    }
    // One partition out of place fences the whole batch.
    let mut moves = step(Some(30), 40);
    moves.push(Move { topic: TOPIC.to_owned(), partition: 1, expected: Some(5), next_offset: 6 });
    let error = projection::apply(&store, "p", Batch { moves, ..Batch::default() }).await.unwrap_err();
    assert!(matches!(error, Error::Fenced { partition: 1, .. }), "{error:?}");
    assert_eq!(projection::positions(&store, "p").await.unwrap()[0].next_offset, 30);
}

#[tokio::test]
async fn ingress_and_projector_never_lock_crosswise() {
    let (_place, store) = migrated("crosswise").await;
    let ours = anybody();
    let work = (0..8).map(|seed| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut random = StdRng::seed_from_u64(seed);
            for round in 0..25_i64 {
                let base = u128::try_from(round).unwrap() * 1_000;
                let mut order: Vec<u128> = (0..64).map(|job| base + job).collect();
                order.shuffle(&mut random);
                if seed % 2 == 0 {
                    let commands: Vec<_> = order
                        .iter()
                        .map(|job| domain::PollGmailConnection {
                            job_id: JobId::from_uuid(Uuid::from_u128(*job)),
                            ..command(ours)
                        })
                        .collect();
                    jobs::insert_queued(&store, &commands).await.unwrap();
                } else {
                    let jobs = order.iter().map(|job| fact(ours, *job, JobState::Running, round)).collect();
                    projection::apply(&store, "p", Batch { jobs, ..Batch::default() }).await.unwrap();
                }
            }
        })
    });
    for worker in join_all(work).await {
        worker.unwrap();
    }
}

fn connection_fact(
    organisation_id: OrganisationId,
    id: u128,
    status: ConnectionState,
    step: i64,
) -> GmailConnectionStatusChanged {
    GmailConnectionStatusChanged {
        organisation_id,
        connection_id: ConnectionId::from_uuid(Uuid::from_u128(id)),
        status,
        step,
        last_history_id: Some(HistoryId::new(u64::MAX - u64::try_from(step).unwrap())),
        last_synced_at: Some(Timestamp::from_millis(1_700_000_000_000 + step)),
        token_version: TokenVersion(1),
        code: None,
        at: Timestamp::from_millis(1_700_000_000_000 + step),
        watch_expires_at: Some(Timestamp::from_millis(1_700_604_800_000 + step)),
        last_push_at: None,
        units_today: Some(step),
        units_day: Some(Timestamp::from_millis(1_699_999_200_000)),
    }
}

async fn project(store: &Store, facts: &[GmailJobStatusChanged], connections: &[GmailConnectionStatusChanged]) {
    let mut expected = None;
    for (next, jobs) in (1..).zip(facts.chunks(3)) {
        let batch = Batch { jobs: jobs.to_vec(), connections: connections.to_vec(), moves: step(expected, next) };
        projection::apply(store, "p", batch).await.unwrap();
        expected = Some(next);
    }
}

#[tokio::test]
async fn a_rebuild_gives_the_same_rows_and_keeps_what_the_topics_no_longer_tell() {
    let (place, store) = migrated("rebuild").await;
    let client = client(&place, &store).await;
    let ours = anybody();
    let retained_since = now();
    let recent = |job, state, step| GmailJobStatusChanged { requested_at: now(), ..fact(ours, job, state, step) };
    let old = [
        fact(ours, 1, JobState::Running, 1),
        fact(ours, 1, JobState::Failed, 2),
        // A second end, later on the topic than the retention's edge: alone it would give another row.
        fact(ours, 1, JobState::Succeeded, 3),
    ];
    let new = [
        recent(2, JobState::Queued, 0),
        recent(2, JobState::Running, 4),
        recent(2, JobState::Succeeded, 5),
        recent(3, JobState::Queued, 0),
    ];
    let connections = [
        connection_fact(ours, 7, ConnectionState::Active, 3),
        connection_fact(ours, 7, ConnectionState::NeedsReauth, 2),
        connection_fact(ours, 8, ConnectionState::Forgotten, 1),
        connection_fact(ours, 8, ConnectionState::Active, 2),
    ];
    project(&store, &[old.as_slice(), &new].concat(), &connections).await;
    let unseen = command(ours);
    jobs::insert_queued(&store, std::slice::from_ref(&unseen)).await.unwrap();
    let before = dump(&client).await;
    assert_eq!(before.len(), 6, "{before:?}");

    projection::wipe(&store, "p", retained_since).await.unwrap();
    assert_eq!(projection::positions(&store, "p").await.unwrap(), []);
    let job = |id| JobId::from_uuid(Uuid::from_u128(id));
    assert_eq!(jobs::find(&store, ours, job(2)).await.unwrap(), None, "the wipe wiped nothing");
    assert_eq!(dump(&client).await.len(), 3, "the old job, the unseen one, the forgotten connection");
    // A projector that did not notice is out.
    let zombie = Batch { jobs: vec![recent(9, JobState::Running, 1)], moves: step(Some(3), 4), ..Batch::default() };
    assert!(matches!(projection::apply(&store, "p", zombie).await, Err(Error::Fenced { .. })));
    // What is retained of the topics: the old job's last fact, and no record of the forgotten connection.
    project(&store, &[&old[2..], &new].concat(), &connections[..2]).await;
    assert_eq!(dump(&client).await, before);
}
