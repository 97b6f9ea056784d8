//! Forgets what the topics can tell again and reads them from their start.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use domain::{Duration, Timestamp};
use kafka::OwnedRecord;
use kafka::reader::{Ends, Inspector};
use kafka::topics::Topic;
use runtime::{Backoff, Shutdown};
use tokio::sync::mpsc;

use crate::batch::{Batch, Positions, SOURCES};
use crate::write::{Writer, Written};
use crate::{PROJECTION, Settings, start};

/// How far the clocks of the services may differ: a job asked for this much after the oldest record that is left is
/// taken to have all its facts left.
const SKEW: Duration = Duration::from_minutes(10);

/// Records on their way from the reading thread at most.
const QUEUE: usize = 10_000;

/// What a rebuild did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rebuilt {
    /// Records read.
    pub records: usize,
    /// Rows of jobs asked for before this instant were kept as they were; none: retention has taken nothing yet, and
    /// all rows were derived anew.
    pub kept_before: Option<Timestamp>,
}

/// Wipes the rows that the topics can tell again and derives them from the topics, up to where these end now. Rows that
/// retention no longer lets it derive are kept. A projector that runs meanwhile may go on: it begins where the rebuilt
/// projection stands, and both lead to the same rows.
///
/// # Errors
/// When Kafka or Postgres is away or refuses. What was wiped is then derived by the next projector that runs.
pub async fn rebuild(settings: Settings, shutdown: Shutdown) -> anyhow::Result<Rebuilt> {
    let writer = start(&settings, &shutdown).await?;
    writer.store.migrate().await.context("bringing the schema up to date")?;
    let kept_before = retained_since(&settings, &writer).await?;
    let all = Timestamp::from_millis(i64::MIN);
    store::projection::wipe(&writer.store, PROJECTION, kept_before.unwrap_or(all)).await.context("wiping the rows")?;
    tracing::info!(kept = kept_before.is_some(), "Rows are wiped, reading the topics from their start");
    let mut records = 0;
    for topic in SOURCES {
        records += replay(&settings, &writer, writer.topics.name(topic).clone()).await?;
    }
    writer.producer.flush().await;
    tracing::info!(records, "The rows are rebuilt");
    Ok(Rebuilt { records, kept_before })
}

/// From when on the job topic is whole in every partition; none when nothing of it was ever removed.
async fn retained_since(settings: &Settings, writer: &Writer) -> anyhow::Result<Option<Timestamp>> {
    let topic = writer.topics.name(Topic::JobStatus);
    let ends = Inspector::new(&settings.kafka)?.ends(topic).await?;
    if ends.iter().all(|Ends { low, .. }| *low == 0) {
        return Ok(None);
    }
    let (mut records, reading) = read(settings, topic.clone());
    let mut oldest: BTreeMap<i32, Timestamp> = BTreeMap::new();
    while let Some(record) = records.recv().await {
        // Without a time it could be from whenever.
        let at = record.timestamp.map_or(now(), Timestamp::from_millis);
        oldest.entry(record.partition).or_insert(at);
    }
    reading.await??;
    // A partition with nothing left in it is whole from now on only.
    let shortened = ends.iter().enumerate().filter(|(_, Ends { low, .. })| *low > 0);
    let since = shortened.map(|(partition, _)| {
        i32::try_from(partition).ok().and_then(|partition| oldest.get(&partition)).copied().unwrap_or_else(now)
    });
    Ok(since.max().map(|since| since + SKEW))
}

/// Writes all that is committed in a topic; returns how many records that is.
async fn replay(settings: &Settings, writer: &Writer, topic: Arc<str>) -> anyhow::Result<usize> {
    let (mut records, reading) = read(settings, topic.clone());
    let mut positions = Positions::new();
    let mut total = 0;
    let mut pending = Vec::new();
    while records.recv_many(&mut pending, settings.batch).await > 0 {
        total += pending.len();
        if !write(writer, &mut positions, &pending).await? {
            bail!("the rebuild was stopped; a projector goes on with it");
        }
        pending.clear();
    }
    reading.await?.with_context(|| format!("reading {topic}"))?;
    Ok(total)
}

/// Writes records, or finds that another projector has. False when the stop was ordered.
async fn write(writer: &Writer, positions: &mut Positions, records: &[OwnedRecord]) -> anyhow::Result<bool> {
    let mut backoff = Backoff::default();
    loop {
        let mut batch = Batch::default();
        for record in records {
            batch.take(record.clone(), &writer.topics, positions);
        }
        if batch.records == 0 {
            return Ok(true);
        }
        match writer.write(batch, positions).await.context("writing rows and positions")? {
            Written::Done(after) => {
                *positions = after;
                return Ok(true);
            }
            Written::Stopped => return Ok(false),
            Written::Fenced => tracing::info!("A projector is running and does a part of it"),
            Written::Unknown(error) => {
                tracing::warn!(%error, "The rebuild waits for Postgres");
                if !backoff.pause(&writer.shutdown).await {
                    return Ok(false);
                }
            }
        }
        // What stands there now says what is left to be done of these.
        match writer.positions().await {
            Ok(now) => *positions = now,
            Err(error) if error.is_unavailable() => {}
            Err(error) => return Err(error).context("reading where the projection stands"),
        }
    }
}

type Reading = tokio::task::JoinHandle<Result<(), kafka::reader::Error>>;

/// Reads all that is committed in a topic, no faster than it is taken.
fn read(settings: &Settings, topic: Arc<str>) -> (mpsc::Receiver<OwnedRecord>, Reading) {
    let (sender, records) = mpsc::channel(QUEUE);
    let kafka = settings.kafka.clone();
    let reading = tokio::spawn(async move {
        kafka::read_all(&kafka, "projector-rebuild", &topic, move |record| {
            // Nobody takes them any more when the rebuild has failed; that error is the one to tell.
            let _ = sender.blocking_send(record);
        })
        .await
    });
    (records, reading)
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
