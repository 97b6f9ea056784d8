//! The consumers in `examples/`, in Rust and in Python: one row for each invoice, whatever is killed, in however many
//! mailboxes it is, and however often it is told of.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use devstack::leash::{Leash, Process};
use domain::{Attachment, ConnectionId, EventId, GmailMessageFetched, MessageId, Origin};
use events::examples;
use kafka::topics::Topic;
use kafka::{Headers, OutRecord, Producer};
use tokio_postgres::NoTls;
use uuid::Uuid;

use crate::house::House;
use crate::support::clients::consumers_python;
use crate::support::{Service, stack, wait_until};

/// A consumer that was killed is missed by its group after ten seconds only.
const SLOW: Duration = Duration::from_secs(180);

/// What is told of a supplier's mail with an invoice in one mailbox; without a key nobody can tell its copies.
fn invoice(connection: ConnectionId, key: Option<&str>, number: usize) -> GmailMessageFetched {
    let message = MessageId::new(&format!("{number}-{}", key.unwrap_or("none")));
    let file = Attachment {
        part_id: "1".into(),
        filename: Some(format!("{number}.pdf")),
        mime_type: "application/pdf".into(),
        ..Attachment::default()
    };
    GmailMessageFetched {
        event_id: EventId::of(connection, &message),
        connection_id: connection,
        message_id: message,
        origin: Origin::Live,
        subject: Some(format!("Invoice {number}")),
        attachments: vec![file],
        content_key: key.map(|key| format!("v1:{key}")),
        ..examples::fetched()
    }
}

/// Writes to `gmail.message.fetched` as the pipeline does.
struct Fetched {
    producer: Producer,
    topic: Arc<str>,
}

impl Fetched {
    async fn tell(&self, mail: &GmailMessageFetched) {
        let (key, value) = (Some(mail.connection_id.to_string().into()), Some(events::encode(mail)));
        let record = OutRecord { topic: self.topic.clone(), partition: None, key, value, headers: Headers::new() };
        self.producer.send(&record).await.unwrap();
    }
}

/// A consumer, to be killed and started again.
enum Consumer {
    Rust(Box<Service>),
    Python { command: Box<dyn Fn() -> Command>, log: std::path::PathBuf, process: Option<Process> },
}

impl Consumer {
    fn start(&mut self) {
        match self {
            Self::Rust(service) => drop(service.start()),
            Self::Python { command, log, process } => {
                *process = Some(Leash::new(command(), log.clone()).start().unwrap());
            }
        }
    }

    fn kill(&mut self) {
        match self {
            Self::Rust(service) => service.kill(),
            Self::Python { process, .. } => drop(process.take().unwrap().kill().unwrap()),
        }
    }

    /// Panics with its last words if it has ended.
    fn assert_alive(&mut self) {
        match self {
            Self::Rust(service) => assert!(service.is_running(), "the consumer ended: {}", service.log()),
            Self::Python { process, .. } => {
                let process = process.as_mut().unwrap();
                assert!(process.ended().unwrap().is_none(), "the consumer ended: {}", process.log_tail());
            }
        }
    }
}

/// What a consumer wrote: its name there is also its group's and its schema's.
struct Books {
    database: tokio_postgres::Client,
    schema: String,
}

/// An invoice's row: its subject, and whether somebody has to look.
type Rows = BTreeMap<String, (String, bool)>;

impl Books {
    async fn open(house: &House, name: &str) -> Self {
        let (database, connection) = tokio_postgres::connect(house.place.database_url(), NoTls).await.unwrap();
        tokio::spawn(connection);
        let schema = format!("{}{name}", house.place.prefix()).replace(['-', '.'], "_");
        database.batch_execute(&format!("CREATE SCHEMA \"{schema}\"")).await.unwrap();
        Self { database, schema }
    }

    /// How many mails it has taken in; none before its tables are there.
    async fn mails(&self) -> i64 {
        let count = format!("SELECT count(*) FROM \"{}\".ap_mails", self.schema);
        self.database.query_one(&count, &[]).await.map_or(0, |row| row.get(0))
    }

    async fn invoices(&self) -> Rows {
        let all = format!("SELECT invoice_key, subject, needs_review FROM \"{}\".ap_invoices", self.schema);
        let rows = self.database.query(&all, &[]).await.unwrap();
        rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect()
    }

    async fn close(self) {
        self.database.batch_execute(&format!("DROP SCHEMA \"{}\" CASCADE", self.schema)).await.unwrap();
    }
}

/// Where a consumer reads and writes, as environment variables.
fn settings(house: &House, books: &Books) -> [(&'static str, String); 6] {
    [
        ("KAFKA_BOOTSTRAP_SERVERS", stack().kafka.bootstrap().to_owned()),
        ("DATABASE_URL", house.place.database_url().to_owned()),
        ("AP_TOPIC", house.place.topic("gmail.message.fetched")),
        ("AP_GROUP", books.schema.clone()),
        ("AP_SCHEMA", books.schema.clone()),
        ("PYTHONUNBUFFERED", "1".to_owned()),
    ]
}

async fn rust(house: &House, books: &Books) -> Consumer {
    let service = house.place.service("ap-rust", &["accounts-payable"]);
    let service = settings(house, books).into_iter().fold(service, |service, (name, value)| service.set(name, value));
    Consumer::Rust(Box::new(service))
}

async fn python(house: &House, books: &Books) -> Consumer {
    let (python, settings, registry) = (consumers_python().await, settings(house, books), house.url(""));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/accounts-payable/accounts_payable.py");
    let command = move || {
        let mut command = Command::new(&python);
        // The registry that ingress is.
        command.arg(&script).envs(settings.clone()).env("SCHEMA_REGISTRY_URL", &registry);
        command
    };
    Consumer::Python { command: Box::new(command), log: house.place.folder().join("ap-python.log"), process: None }
}

#[tokio::test]
async fn accounts_payable_pays_each_invoice_once_in_rust_and_in_python() {
    const OWN: usize = 40;
    let house = House::new("accounts-payable").await;
    let _ingress = house.ingress().await;
    let fetched = Fetched {
        producer: Producer::new(&house.kafka("tests"), "tests").unwrap(),
        topic: house.topics().name(Topic::Fetched).clone(),
    };
    let connections = [1, 2].map(|number| ConnectionId::from_uuid(Uuid::from_u128(number)));
    let mut told = Vec::new();
    for (at, connection) in connections.into_iter().enumerate() {
        let own = (0..OWN).map(|number| invoice(connection, Some(&format!("own-{at}-{number}")), number));
        told.extend(own);
        told.push(invoice(connection, Some("shared"), 4711));
        told.push(invoice(connection, None, 4712));
        // Neither a mail with no file beside its text nor one that is gone is an invoice.
        let no_file = GmailMessageFetched { attachments: Vec::new(), ..invoice(connection, Some("no-file"), 1) };
        told.extend([no_file, GmailMessageFetched { connection_id: connection, ..examples::gone() }]);
    }
    for mail in &told {
        fetched.tell(mail).await;
    }
    let [for_rust, for_python] = [Books::open(&house, "rust").await, Books::open(&house, "python").await];
    let mut consumers = [(rust(&house, &for_rust).await, &for_rust), (python(&house, &for_python).await, &for_python)];
    for (consumer, books) in &mut consumers {
        consumer.start();
        wait_until(SLOW, "the consumer has begun", || {
            consumer.assert_alive();
            async { books.mails().await > 0 }
        })
        .await;
        consumer.kill();
    }
    // More comes while nobody reads: the same five mails in both mailboxes.
    for connection in connections {
        for number in 0..5 {
            fetched.tell(&invoice(connection, Some(&format!("late-{number}")), 5000 + number)).await;
        }
    }
    let mails = i64::try_from(2 * (OWN + 2 + 5)).unwrap();
    for (consumer, books) in &mut consumers {
        consumer.start();
        wait_until(SLOW, "every mail with an invoice is in the books", || {
            consumer.assert_alive();
            async { books.mails().await == mails }
        })
        .await;
    }
    // Told of once more, under the same ids: by a backfill, or a replay.
    for mail in &told {
        fetched.tell(&GmailMessageFetched { origin: Origin::Backfill, ..mail.clone() }).await;
    }
    let all = house.committed("gmail.message.fetched").await;
    assert_eq!(all.len(), 2 * told.len() + 10);
    for (consumer, books) in &mut consumers {
        let (group, topic) = (books.schema.clone(), house.place.topic("gmail.message.fetched"));
        let last: BTreeMap<i32, i64> = all.iter().map(|record| (record.partition, record.offset)).collect();
        wait_until(SLOW, "the consumer has read all", || {
            consumer.assert_alive();
            let (group, topic, last) = (group.clone(), topic.clone(), last.clone());
            async move { tokio::task::spawn_blocking(move || has_read(&group, &topic, &last)).await.unwrap() }
        })
        .await;
        consumer.kill();
    }
    let [by_rust, by_python] = [for_rust.invoices().await, for_python.invoices().await];
    assert_eq!(by_rust, by_python, "both consumers keep the same books");
    assert_eq!(by_rust.len(), 2 * OWN + 1 + 2 + 5);
    let of = |subject: &str| by_rust.iter().filter(|(_, row)| row.0 == subject).collect::<Vec<_>>();
    assert_eq!(of("Invoice 4711").len(), 1, "one mail in two mailboxes is paid once");
    assert!(!of("Invoice 4711")[0].1.1);
    let unsure = of("Invoice 4712");
    assert_eq!(unsure.len(), 2, "without a key nothing tells a copy");
    assert!(unsure.iter().all(|(key, row)| key.starts_with("event:") && row.1), "somebody has to look: {unsure:?}");
    assert_eq!((for_rust.mails().await, for_python.mails().await), (mails, mails));
    for_rust.close().await;
    for_python.close().await;
}

/// Whether a group has committed offsets behind these last records of a topic.
fn has_read(group: &str, topic: &str, last: &BTreeMap<i32, i64>) -> bool {
    use rdkafka::consumer::{BaseConsumer, Consumer};
    let consumer: BaseConsumer = rdkafka::ClientConfig::new()
        .set("bootstrap.servers", stack().kafka.bootstrap())
        .set("group.id", group)
        .create()
        .unwrap();
    let mut asked = rdkafka::TopicPartitionList::new();
    for partition in last.keys() {
        asked.add_partition(topic, *partition);
    }
    let committed = consumer.committed_offsets(asked, Duration::from_secs(30)).unwrap();
    last.iter().all(|(partition, last)| {
        let found = committed.find_partition(topic, *partition).unwrap().offset().to_raw();
        found.is_some_and(|next| next > *last)
    })
}
