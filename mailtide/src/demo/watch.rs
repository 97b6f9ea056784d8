//! An independent reader of the topics: shows events and jobs as they come, and remembers what came.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use domain::{
    ConnectionId, GmailJobStatusChanged, GmailMessageDiscovered, GmailMessageFetched, JobId, JobState, MessageId,
};
use events::Event;
use kafka::reader::{Inspector, TopicPartition};
use kafka::snapshot::read_all;
use kafka::topics::{Topic, Topics};
use kafka::{OwnedRecord, Reader};
use tokio::task::JoinHandle;

use super::report::Counted;
use super::screen::{Screen, clock};

/// Of one batch, this many events are shown one by one.
const SHOWN: usize = 8;

/// The addresses of the connections, to show instead of ids.
pub(super) type Addresses = Arc<HashMap<ConnectionId, String>>;

/// What came so far.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The messages announced, by connection.
    pub(super) messages: HashMap<ConnectionId, HashSet<MessageId>>,
    /// When the first event of a job was seen.
    pub(super) first_of_job: HashMap<JobId, Instant>,
    /// The jobs that have ended.
    pub(super) ended: HashMap<JobId, JobState>,
}

impl Seen {
    /// Different messages announced, all connections together.
    pub(super) fn n_messages(&self) -> usize {
        self.messages.values().map(HashSet::len).sum()
    }
}

/// The reader, at work until it is dropped.
pub(super) struct Watch {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<kafka::reader::Error>,
}

impl Watch {
    /// Starts it at the beginning of both topics.
    pub(super) async fn start(
        settings: &kafka::Settings,
        addresses: Addresses,
        screen: Arc<Screen>,
    ) -> anyhow::Result<Self> {
        let topics = Topics::new(&settings.topic_prefix);
        let inspector = Inspector::new(settings)?;
        let mut positions = BTreeMap::new();
        for topic in [Topic::Discovered, Topic::JobStatus] {
            let topic = topics.name(topic);
            let partitions = inspector.partition_count(topic).await?;
            positions
                .extend((0..partitions).map(|partition| (TopicPartition { topic: Arc::clone(topic), partition }, 0)));
        }
        let mut reader = Reader::start(settings, "demo", positions)?;
        let seen = Arc::new(Mutex::new(Seen::default()));
        let discovered = Arc::clone(topics.name(Topic::Discovered));
        let task = tokio::spawn({
            let seen = Arc::clone(&seen);
            async move {
                loop {
                    match reader.next().await {
                        Ok(batch) => take(&batch, Instant::now(), &discovered, &seen, &addresses, &screen),
                        Err(error) => return error,
                    }
                }
            }
        });
        Ok(Self { seen, task })
    }

    /// Looks at what came so far.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Ends when nothing more can be read, and says why.
    pub(super) async fn failed(&mut self) -> anyhow::Error {
        match (&mut self.task).await {
            Ok(error) => error.into(),
            Err(panicked) => panicked.into(),
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Remembers and shows one batch.
fn take(
    batch: &[OwnedRecord],
    at: Instant,
    discovered: &Arc<str>,
    seen: &Mutex<Seen>,
    addresses: &Addresses,
    screen: &Screen,
) {
    let address = |connection: &ConnectionId| addresses.get(connection).map_or("?", String::as_str);
    let mut lines = Vec::new();
    let mut n_hidden = 0;
    // Of each job only where it stands at the end of the batch.
    let mut jobs: BTreeMap<JobId, GmailJobStatusChanged> = BTreeMap::new();
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    for record in batch {
        let value = record.value.as_deref().unwrap_or_default();
        if record.topic == *discovered {
            let event = match events::decode::<GmailMessageDiscovered>(value) {
                Ok(event) => event,
                Err(error) => {
                    lines.push(format!("a record that does not decode: {error}"));
                    continue;
                }
            };
            if let Some(job) = event.job_id {
                seen.first_of_job.entry(job).or_insert(at);
            }
            if lines.len() < SHOWN {
                let (address, origin) = (address(&event.connection_id), event.origin.as_str());
                lines.push(format!("discovered  {address}  {}  {origin}", event.message_id));
            } else {
                n_hidden += 1;
            }
            seen.messages.entry(event.connection_id).or_default().insert(event.message_id);
        } else if let Ok(status) = events::decode::<GmailJobStatusChanged>(value) {
            if status.state.is_terminal() {
                seen.ended.entry(status.job_id).or_insert(status.state);
            }
            jobs.insert(status.job_id, status);
        }
    }
    drop(seen);
    if n_hidden > 0 {
        lines.push(format!("…           and {n_hidden} more events"));
    }
    lines.extend(jobs.values().map(|status| job_line(status, address(&status.connection_id))));
    for line in &lines {
        screen.line(&format!("{}  {line}", clock()));
    }
}

fn job_line(status: &GmailJobStatusChanged, address: &str) -> String {
    let id = status.job_id.to_string();
    let progress = &status.progress;
    let mut line = format!(
        "job         {address}  …{}  {}: {} pages, {} discovered, {} units",
        id.get(24..).unwrap_or(&id),
        status.state.as_str(),
        progress.pages,
        progress.discovered,
        progress.quota_units
    );
    if let Some(code) = &status.code {
        line.push_str(&format!("  {code}"));
    }
    line
}

/// Everything that is announced by now, counted by a reader of its own from the topic's start.
pub(super) async fn count_announced(settings: &kafka::Settings) -> anyhow::Result<Counted> {
    let id = |event: GmailMessageDiscovered| (event.connection_id, event.message_id);
    count_committed(settings, Topic::Discovered, id).await
}

/// The same of what is fetched.
pub(super) async fn count_fetched(settings: &kafka::Settings) -> anyhow::Result<Counted> {
    let id = |event: GmailMessageFetched| (event.connection_id, event.message_id);
    count_committed(settings, Topic::Fetched, id).await
}

async fn count_committed<T: Event>(
    settings: &kafka::Settings,
    topic: Topic,
    id: impl Fn(T) -> (ConnectionId, MessageId) + Send + 'static,
) -> anyhow::Result<Counted> {
    let topics = Topics::new(&settings.topic_prefix);
    let topic = topics.name(topic);
    let counted = Arc::new(Mutex::new((Counted::new(), 0_usize)));
    let count = {
        let counted = Arc::clone(&counted);
        move |record: OwnedRecord| {
            let event = events::decode::<T>(record.value.as_deref().unwrap_or_default());
            let mut counted = counted.lock().unwrap_or_else(PoisonError::into_inner);
            match event {
                Ok(event) => {
                    let (connection, message) = id(event);
                    *counted.0.entry(connection).or_default().entry(message).or_default() += 1;
                }
                Err(_) => counted.1 += 1,
            }
        }
    };
    read_all(settings, "demo-check", topic, count).await?;
    let (counted, undecoded) = std::mem::take(&mut *counted.lock().unwrap_or_else(PoisonError::into_inner));
    anyhow::ensure!(undecoded == 0, "{undecoded} records of {topic} do not decode");
    Ok(counted)
}

/// The id in an answer of the API.
pub(super) fn job_id(text: &str) -> anyhow::Result<JobId> {
    JobId::from_str(text).map_err(|error| anyhow::anyhow!("the API's jobId is no UUID: {error}"))
}
