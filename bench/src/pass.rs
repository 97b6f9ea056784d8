//! The scheduler's pass over its connections: part after part, as it reads them, and the slots of each by the schedule's
//! arithmetic, against one statement that brings the same rows; and whether a connection costs the same when there are ten
//! times as many.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use anyhow::ensure;
use domain::schedule::Schedule;
use domain::{ConnectionState, Timestamp};
use futures_util::StreamExt;
use store::{Store, connections};
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

use crate::options::Options;
use crate::place::Place;
use crate::progress::Progress;
use crate::report::Outcome;

/// Connections of a page: the scheduler's.
const PAGE: u16 = 5_000;

/// Rounds of each side.
const ROUNDS: u32 = 3;

/// How much more a connection may cost when there are ten times as many.
const FLAT: f64 = 1.2;

pub(crate) async fn run(place: &Place, options: &Options) -> anyhow::Result<Vec<Outcome>> {
    let progress = Progress::start("the scheduler's pass");
    let store = place.store().await?;
    let (client, connection) = tokio_postgres::connect(place.database_url(), NoTls).await?;
    tokio::spawn(connection);
    client.batch_execute(&format!("SET search_path TO {}", place.store_settings()?.schema)).await?;
    let mut rounds = Vec::new();
    let mut each = Vec::new();
    for count in [options.mailboxes / 10, options.mailboxes] {
        progress.say(&format!("making {count} connections"));
        make(&client, count).await?;
        let mut best = Duration::MAX;
        for number in 1..=options.rounds.min(ROUNDS) {
            let ours = pass(&store, count).await?;
            let limit = plain(&client, count).await?;
            best = best.min(ours);
            let rate = |time: Duration| f64::from(count) / time.as_secs_f64();
            progress.say(&format!("round {number} of {count}: {:.0}/s, plain {:.0}/s", rate(ours), rate(limit)));
            if count == options.mailboxes {
                rounds.push((rate(ours), rate(limit)));
            }
        }
        each.push(best.as_secs_f64() / f64::from(count) * 1e6);
    }
    client.batch_execute("TRUNCATE connections, connection_states CASCADE").await?;
    let [few, many] = each.as_slice() else { anyhow::bail!("Two sizes are measured") };
    Ok(vec![
        Outcome::of_rates("the scheduler's pass", "connections/s", &rounds, 0.3),
        Outcome::of_growth("a connection's part when there are ten times as many", "µs", *many, *few, FLAT),
    ])
}

/// So many living connections with their states, and no others.
async fn make(client: &Client, count: u32) -> anyhow::Result<()> {
    client.batch_execute("TRUNCATE connections, connection_states CASCADE").await?;
    let organisation = Uuid::new_v4();
    let statement = "INSERT INTO organisations (organisation_id, name, created_at) VALUES ($1, 'bench', now())";
    client.execute(statement, &[&organisation]).await?;
    client
        .execute(
            "INSERT INTO connections (connection_id, organisation_id, account, email, token_version, token_ciphertext,
                                      token_nonce, token_key_id, created_at)
             SELECT gen_random_uuid(), $1, 'm' || n || '@bench.example', 'm' || n || '@bench.example', 1, '\\x00',
                    decode(repeat('00', 24), 'hex'), 'bench', now()
             FROM generate_series(1, $2::bigint) n",
            &[&organisation, &i64::from(count)],
        )
        .await?;
    client
        .execute(
            "INSERT INTO connection_states (connection_id, organisation_id, state, step, last_history_id,
                                            last_synced_at, token_version, changed_at)
             SELECT connection_id, organisation_id, 'active', 1, '4000000', now(), 1, now() FROM connections",
            &[],
        )
        .await?;
    client.batch_execute("ANALYZE connections; ANALYZE connection_states").await?;
    Ok(())
}

/// All connections, part by part, and the slots that they have in an hour.
async fn pass(store: &Store, count: u32) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let (schedule, from) = (Schedule::default(), Timestamp::from_millis(1_770_000_000_000));
    let until = from + domain::Duration::from_hours(1);
    let (mut seen, mut slots) = (0, 0);
    connections::pass(store, PAGE, |page| {
        seen += page.len();
        let active = page.iter().filter(|due| due.state == ConnectionState::Active);
        slots += active.flat_map(|due| schedule.due(due.connection_id, from, until)).count();
        ControlFlow::Continue(())
    })
    .await?;
    // A twelfth of them, evenly spread.
    ensure!((seen / 13..=seen / 11).contains(&slots), "{slots} slots of {seen} connections are within an hour");
    ensure!(seen == usize::try_from(count)?, "{seen} of {count} connections were seen");
    Ok(begun.elapsed())
}

/// The same rows by one statement, looked at one by one.
async fn plain(client: &Client, count: u32) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let none: [&str; 0] = [];
    let rows = client
        .query_raw(
            "SELECT c.connection_id, c.organisation_id, c.token_version, c.sync_interval_hours, s.state,
                    s.token_version AS state_token_version
             FROM connections c LEFT JOIN connection_states s USING (connection_id, organisation_id)
             WHERE c.revoked_at IS NULL AND NOT c.paused",
            none,
        )
        .await?;
    let mut rows = std::pin::pin!(rows);
    let mut seen = 0_u32;
    while let Some(row) = rows.next().await {
        let _: Uuid = row?.try_get(0)?;
        seen += 1;
    }
    ensure!(seen == count, "{seen} of {count} connections were seen");
    Ok(begun.elapsed())
}
