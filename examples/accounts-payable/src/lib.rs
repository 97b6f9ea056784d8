//! An accounts payable system's way in: reads `gmail.message.fetched`, picks the mails that look like invoices, and
//! writes one row for each invoice to pay. Made to be copied.
//!
//! It may be killed at any moment. Offsets are committed after the row is, so a record may come again, and changes
//! nothing then: rows are keyed by `eventId` and by `contentKey`, and what is there already stays as it is. So it needs no
//! transaction over Kafka and Postgres, and a replay or a backfill of mail that it knows pays nothing twice.

mod books;

use std::env;

use anyhow::{Context, bail};
use domain::GmailMessageFetched;
use rdkafka::ClientConfig;
use rdkafka::consumer::{CommitMode, Consumer, StreamConsumer};
use rdkafka::message::Message;
use runtime::settings::Source;
use tokio_postgres::{Client, NoTls};

pub use books::{Invoice, invoices};

const TABLES: &str = include_str!("invoices.sql");

/// One statement, so both rows or none; who comes second, from another mailbox or by another delivery, adds nothing.
const WRITE: &str = "
    WITH mail AS (
        INSERT INTO ap_mails (event_id, organisation_id, connection_id, message_id, invoice_key)
        VALUES ($1, $2, $3, $4, $5) ON CONFLICT (event_id) DO NOTHING
    )
    INSERT INTO ap_invoices (organisation_id, invoice_key, event_id, sender, subject, files, needs_review)
    VALUES ($2, $5, $1, $6, $7, $8, $9) ON CONFLICT (organisation_id, invoice_key) DO NOTHING";

/// Words by which a subject or a file's name says that it is an invoice.
const WORDS: [&str; 6] = ["invoice", "rechnung", "facture", "factura", "fattura", "faktura"];

/// Where to read and where to write.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Kafka's brokers, `host:port` with commas between.
    pub bootstrap_servers: String,
    /// The topic's full name.
    pub topic: String,
    /// The consumer group; those that share it share the work.
    pub group: String,
    /// Postgres, as a URL or key=value words.
    pub database_url: String,
    /// The schema of the tables.
    pub schema: String,
    /// The schema registry, if the pipeline has one.
    pub registry: registry::Settings,
}

impl Settings {
    /// From `KAFKA_BOOTSTRAP_SERVERS`, `DATABASE_URL`, and where set `AP_TOPIC`, `AP_GROUP`, `AP_SCHEMA`,
    /// `SCHEMA_REGISTRY_URL`.
    ///
    /// # Errors
    /// When one of the first two is missing.
    pub fn from_environment() -> anyhow::Result<Self> {
        let needed = |name: &str| env::var(name).with_context(|| format!("{name} is not set"));
        let or = |name: &str, default: &str| env::var(name).unwrap_or_else(|_| default.to_owned());
        Ok(Self {
            bootstrap_servers: needed("KAFKA_BOOTSTRAP_SERVERS")?,
            database_url: needed("DATABASE_URL")?,
            topic: or("AP_TOPIC", "gmail.message.fetched"),
            group: or("AP_GROUP", "accounts-payable"),
            schema: or("AP_SCHEMA", "public"),
            registry: registry::Settings::read(&mut Source::load(None)?),
        })
    }
}

/// Consumes until it fails or is dropped.
///
/// # Errors
/// When Kafka or Postgres fails, or a record does not decode: to skip it would be to lose an invoice.
pub async fn run(settings: &Settings) -> anyhow::Result<()> {
    registry::look_up(&settings.registry).await?;
    let (database, connection) =
        tokio_postgres::connect(&settings.database_url, NoTls).await.context("connecting to Postgres")?;
    let work = async {
        database.batch_execute(&format!("SET search_path TO \"{}\"; {TABLES}", settings.schema)).await?;
        consume(settings, &database).await
    };
    tokio::select! {
        ended = work => ended,
        ended = connection => { ended.context("the connection to Postgres")?; bail!("Postgres closed the connection") }
    }
}

async fn consume(settings: &Settings, database: &Client) -> anyhow::Result<()> {
    let consumer: StreamConsumer = ClientConfig::new()
        .set("bootstrap.servers", &settings.bootstrap_servers)
        .set("group.id", &settings.group)
        // Without it aborted records would be read, too, and an event could be seen that never was.
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        // One that was killed is missed soon, and its partitions are read on by another.
        .set("session.timeout.ms", "10000")
        .set("auto.offset.reset", "earliest")
        .create()?;
    consumer.subscribe(&[&settings.topic])?;
    loop {
        let record = consumer.recv().await?;
        if let Some(value) = record.payload() {
            let place = || format!("{} {}/{}", record.topic(), record.partition(), record.offset());
            let mail: GmailMessageFetched = events::decode(value).with_context(place)?;
            write(database, &mail).await.with_context(place)?;
        }
        // After the row, never before it.
        consumer.commit_message(&record, CommitMode::Async)?;
    }
}

/// The row for the mail, if it is an invoice and there is none for it yet.
async fn write(database: &Client, mail: &GmailMessageFetched) -> anyhow::Result<()> {
    let files = invoice_files(mail);
    if mail.gone || files.is_empty() {
        return Ok(());
    }
    let event = mail.event_id.as_uuid();
    let key = mail.content_key.clone().unwrap_or_else(|| format!("event:{event}"));
    let sender = mail.from.first().and_then(|from| from.address.as_deref());
    let (organisation, connection) = (mail.organisation_id.as_uuid(), mail.connection_id.as_uuid());
    let (message, needs_review) = (mail.message_id.to_string(), mail.content_key.is_none());
    database
        .execute(
            WRITE,
            &[&event, &organisation, &connection, &message, &key, &sender, &mail.subject, &files, &needs_review],
        )
        .await?;
    Ok(())
}

/// The names of the files that look like an invoice: a PDF or XML beside the text, where its name or the subject says so.
fn invoice_files(mail: &GmailMessageFetched) -> Vec<&str> {
    let says_so = |text: &str| WORDS.iter().any(|word| text.to_lowercase().contains(word));
    let subject = mail.subject.as_deref().is_some_and(says_so);
    mail.attachments
        .iter()
        .filter(|file| !file.inline && (file.mime_type.contains("pdf") || file.mime_type.contains("xml")))
        .map(|file| file.filename.as_deref().unwrap_or(&file.part_id))
        .filter(|name| subject || says_so(name))
        .collect()
}
