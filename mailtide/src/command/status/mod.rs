//! `mailtide status`: how things stand, over all organisations.
//!
//! Each part is asked for by itself and side by side: what cannot be told is named, and the rest is told.

mod service;
mod show;

use std::collections::BTreeMap;
use std::future::Future;
use std::io::IsTerminal;
use std::time::Duration;

use domain::Timestamp;
use kafka::topics::Topics;
use runtime::Shutdown;
use serde::Serialize;
use store::Store;
use store::overview::{self, Connections, Count, Precision, Recent};

use super::dead_letters::{self, Open};
use super::lag::{self, Behind};
use super::{ask, now, rfc3339};
use crate::Outcome;
use crate::cli::Status as Asked;
use crate::output;
use crate::settings::Settings;
use service::Service;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(2);

/// How long each part may take.
const PATIENCE: Duration = Duration::from_secs(25);

/// The slowest mailboxes that are named.
const SLOWEST: u32 = 10;

/// A day, in which the poller's units are counted.
const DAY: domain::Duration = domain::Duration::from_days(1);

/// How things stand.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    at: String,
    connections: Option<ShownConnections>,
    jobs: Option<ShownJobs>,
    /// Units that the poller spent today, and the limit of the project's day where there is one.
    units: Option<Units>,
    lag: Option<Vec<Behind>>,
    dead_letters: Option<Letters>,
    services: Vec<Service>,
    /// What could not be told, and why.
    failed: BTreeMap<&'static str, String>,
}

/// A number, and how far it can be relied on.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
struct Number {
    count: u64,
    precision: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ShownConnections {
    all: Number,
    /// What is none of the following.
    active: Number,
    needs_reauth: Number,
    quarantined: Number,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ShownJobs {
    since: String,
    precision: &'static str,
    counts: Vec<JobCount>,
    slowest: Vec<Slow>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JobCount {
    state: String,
    trigger: String,
    count: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Slow {
    organisation_id: String,
    connection_id: String,
    jobs: u64,
    open: u64,
    longest_ms: i64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Units {
    poller_today: Number,
    project_day: Option<u64>,
    poller_part: f64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Letters {
    open: Number,
    oldest: Option<String>,
}

/// Looks once, or until it is told to stop.
pub(crate) async fn run(asked: &Asked, settings: &Settings, shutdown: &Shutdown) -> anyhow::Result<Outcome> {
    loop {
        let status = Box::pin(look(asked, settings)).await;
        if asked.watch && !asked.output.json && std::io::stdout().is_terminal() {
            // Home, and everything below cleared.
            ask::say("\x1b[H\x1b[2J")?;
        }
        if asked.output.json {
            output::line(&status)?;
        } else {
            show::all(&status, asked.output)?;
        }
        if !asked.watch {
            return Ok(if status.failed.is_empty() { Outcome::Done } else { Outcome::Failed });
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = shutdown.requested() => return Ok(Outcome::Done),
        }
    }
}

async fn look(asked: &Asked, settings: &Settings) -> Status {
    let at = now();
    let since = asked.since.resolve(at);
    let names = Topics::new(&settings.kafka.topic_prefix);
    let store = Store::connect(&settings.store);
    let of_store = || store.as_ref().map_err(|error| anyhow::anyhow!("{error}"));
    let (connections, jobs, units, lag, letters, services) = tokio::join!(
        told(async { Ok(overview::connections(of_store()?).await?) }),
        told(async { Ok(overview::jobs(of_store()?, since, at, SLOWEST).await?) }),
        told(async { Ok(overview::units(of_store()?, at - DAY).await?) }),
        told(lag::summary(settings)),
        told(dead_letters::open(&settings.kafka, &names)),
        service::ask_all(&asked.services, settings.admin.address),
    );
    let mut failed = BTreeMap::new();
    let mut kept = Keep(&mut failed);
    let quota = &settings.gmail.quota;
    let tariff = &settings.gmail.tariff;
    Status {
        at: rfc3339(at),
        connections: kept.told("connections", connections).map(ShownConnections::from),
        jobs: kept.told("jobs", jobs).map(|recent| ShownJobs::of(recent, since)),
        units: kept.told("units", units).map(|spent| Units {
            poller_today: spent.into(),
            project_day: quota.project_day.or(tariff.project_day),
            poller_part: quota.poller,
        }),
        lag: kept.told("lag", lag),
        dead_letters: kept.told("deadLetters", letters).map(Letters::from),
        services,
        failed,
    }
}

/// What a part says, unless it takes too long.
async fn told<T>(part: impl Future<Output = anyhow::Result<T>>) -> Result<T, String> {
    match tokio::time::timeout(PATIENCE, part).await {
        Ok(told) => told.map_err(|error| format!("{error:#}")),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

/// Keeps what could not be told.
struct Keep<'f>(&'f mut BTreeMap<&'static str, String>);

impl Keep<'_> {
    fn told<T>(&mut self, part: &'static str, told: Result<T, String>) -> Option<T> {
        told.map_err(|why| self.0.insert(part, why)).ok()
    }
}

impl From<Count> for Number {
    fn from(Count { count, precision }: Count) -> Self {
        Self { count, precision: word(precision) }
    }
}

/// The word for it in JSON.
const fn word(precision: Precision) -> &'static str {
    match precision {
        Precision::Exact => "exact",
        Precision::AtLeast => "atLeast",
        Precision::Estimate => "estimate",
    }
}

impl From<Connections> for ShownConnections {
    fn from(Connections { all, needs_reauth, quarantined }: Connections) -> Self {
        let rest = all.count.saturating_sub(needs_reauth.count + quarantined.count);
        let active = Number { count: rest, precision: word(all.precision) };
        Self { all: all.into(), active, needs_reauth: needs_reauth.into(), quarantined: quarantined.into() }
    }
}

impl ShownJobs {
    fn of(Recent { jobs, slowest, precision }: Recent, since: Timestamp) -> Self {
        let counts = jobs.into_iter().map(|it| JobCount { state: it.state, trigger: it.trigger, count: it.count });
        let slowest = slowest.into_iter().map(|it| Slow {
            organisation_id: it.organisation_id.to_string(),
            connection_id: it.connection_id.to_string(),
            jobs: it.jobs,
            open: it.open,
            longest_ms: it.longest.as_millis(),
        });
        Self { since: rfc3339(since), precision: word(precision), counts: counts.collect(), slowest: slowest.collect() }
    }
}

impl From<Open> for Letters {
    fn from(Open { count, oldest }: Open) -> Self {
        Self { open: count.into(), oldest: oldest.map(rfc3339) }
    }
}
