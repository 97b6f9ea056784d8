//! What is committed in the topics of a place, and the rows in its database.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context;
use serde_json::Value;

use super::rows::Rows;
use super::schemas;
use super::secrets::Secrets;
use crate::records::{Record, committed_blocking, until_decided_blocking};

/// Where to look.
#[derive(Debug, Clone, Default)]
pub struct Place {
    /// The brokers, `host:port` with commas between.
    pub bootstrap: String,
    /// What the topics' names begin with.
    pub prefix: String,
    /// The database, with the password.
    pub database: String,
    /// The schema in it.
    pub schema: String,
    /// Whether everything is at work: all that is announced has to be fetched, nothing put aside, and every topic there.
    pub whole: bool,
    /// Whether a projector is at work, whose rows have to be what the topics say.
    pub projects: bool,
    /// What must be seen nowhere.
    pub secrets: Secrets,
    /// The logs of all processes.
    pub logs: Vec<PathBuf>,
}

/// The topics that are always looked at.
const TOPICS: [&str; 4] =
    ["gmail.connection.poll", "gmail.message.discovered", "gmail.job.status", "gmail.connection.status"];

/// Those that are looked at, too, where everything is at work.
const MORE: [&str; 5] = [
    "gmail.connection.state",
    "gmail.message.fetched",
    "gmail.fetch.state",
    "gmail.dead.letter",
    "gmail.operator.journal",
];

/// Everything committed in the topics of a place, and the rows in its database.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// `gmail.connection.poll`, what of it decodes.
    pub commands: Vec<Fact>,
    /// `gmail.message.discovered`.
    pub discovered: Vec<Fact>,
    /// `gmail.message.fetched`; none: nobody fetches here.
    pub fetched: Option<Vec<Fact>>,
    /// `gmail.job.status`.
    pub jobs: Vec<Fact>,
    /// `gmail.connection.status`.
    pub connections: Vec<Fact>,
    /// The table `jobs`, by id; none: nobody keeps rows here.
    pub job_rows: Option<BTreeMap<String, Value>>,
    /// The table `connection_states`, by id.
    pub connection_rows: Option<BTreeMap<String, Value>>,
    /// What there should be none of: what was put into `gmail.dead.letter`, each with its reason.
    pub dead: Vec<String>,
    /// Where secrets were seen.
    pub secrets_seen: Vec<String>,
    /// In how many bytes they were looked for.
    pub searched: u64,
}

/// One decoded record.
#[derive(Debug, Clone)]
pub struct Fact {
    /// Its key.
    pub key: String,
    /// Its partition.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// Its value.
    pub value: Value,
}

impl Fact {
    /// A member that is text; empty where there is none.
    #[must_use]
    pub fn text(&self, field: &str) -> &str {
        self.value[field].as_str().unwrap_or_default()
    }

    pub(super) fn step(&self) -> i64 {
        self.value["step"].as_i64().unwrap_or(i64::MIN)
    }

    /// Partition and offset.
    pub(super) fn place(&self) -> String {
        format!("{}/{}", self.partition, self.offset)
    }
}

impl Evidence {
    /// Reads everything that is committed, and the rows.
    ///
    /// # Errors
    /// When the brokers, the database or a log cannot be read, or an event does not decode.
    pub async fn gather(place: &Place) -> anyhow::Result<Self> {
        let from = place.clone();
        let mut this = tokio::task::spawn_blocking(move || Self::read(&from)).await.context("reading the topics")??;
        if place.projects {
            let rows = Rows::connect(place).await?;
            this.job_rows = Some(rows.jobs().await?);
            this.connection_rows = Some(rows.connections().await?);
        }
        Ok(this)
    }

    fn read(place: &Place) -> anyhow::Result<Self> {
        let mut this = Self { fetched: place.whole.then(Vec::new), ..Self::default() };
        let names: Vec<_> = TOPICS.iter().chain(if place.whole { MORE.as_slice() } else { &[] }).copied().collect();
        // Side by side: most of it is waiting for brokers.
        let topics: Vec<_> = std::thread::scope(|scope| {
            let read = |base: &'static str| {
                scope.spawn(move || {
                    let topic = format!("{}{base}", place.prefix);
                    until_decided_blocking(&place.bootstrap, &topic);
                    (base, committed_blocking(&place.bootstrap, &topic))
                })
            };
            let reading: Vec<_> = names.into_iter().map(read).collect();
            reading.into_iter().map(|topic| topic.join().expect("a topic that cannot be read ends the check")).collect()
        });
        for (base, records) in topics {
            let topic = format!("{}{base}", place.prefix);
            for record in &records {
                for part in record.parts() {
                    let at = || format!("{topic} {}/{}", record.partition, record.offset);
                    this.search(&place.secrets, part, at);
                }
            }
            match base {
                "gmail.connection.poll" => this.commands = facts(&records, base)?,
                "gmail.message.discovered" => this.discovered = facts(&records, base)?,
                "gmail.message.fetched" => this.fetched = Some(facts(&records, base)?),
                "gmail.job.status" => this.jobs = facts(&records, base)?,
                "gmail.connection.status" => this.connections = facts(&records, base)?,
                "gmail.dead.letter" => this.dead = records.iter().map(dead).collect(),
                _ => {}
            }
        }
        for log in &place.logs {
            let bytes = std::fs::read(log).with_context(|| format!("reading {}", log.display()))?;
            this.search(&place.secrets, &bytes, || log.display().to_string());
        }
        Ok(this)
    }

    fn search(&mut self, secrets: &Secrets, bytes: &[u8], place: impl Fn() -> String) {
        self.searched += bytes.len() as u64;
        self.secrets_seen.extend(secrets.seen(bytes, place));
    }
}

/// The records that decode. Only commands may fail to, since anybody may write them.
fn facts(records: &[Record], topic: &str) -> anyhow::Result<Vec<Fact>> {
    let mut facts = Vec::new();
    for record in records {
        let Some(value) = record.value.as_deref() else { continue };
        match schemas::decode(value) {
            Some(value) => {
                facts.push(Fact { key: record.key_text(), partition: record.partition, offset: record.offset, value });
            }
            None if topic == "gmail.connection.poll" => {}
            None => anyhow::bail!("{topic} {}/{} does not decode", record.partition, record.offset),
        }
    }
    Ok(facts)
}

fn dead(record: &Record) -> String {
    let headers = record.headers.iter().filter_map(|(name, value)| {
        let value = String::from_utf8_lossy(value.as_deref()?).into_owned();
        Some(format!("{name}={value:.80}"))
    });
    let headers = headers.collect::<Vec<_>>().join(" ");
    format!("{} at {}/{}: {headers}", record.key_text(), record.partition, record.offset)
}
