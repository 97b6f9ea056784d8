//! The consumers in `examples/`, in Rust and in Python, behind the whole pipeline: one row for each invoice, whatever is
//! killed, in however many mailboxes it is, and however often it is told of.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use devstack::leash::{Leash, Process};
use serde_json::json;
use simulator::{Delivery, Mails};
use tokio_postgres::NoTls;

use crate::house::{House, Mailbox, gmail};
use crate::support::clients::consumers_python;
use crate::support::{Service, stack, wait_for, wait_until};

/// A consumer that was killed is missed by its group after ten seconds only.
const SLOW: Duration = Duration::from_secs(180);

/// A supplier's mail with an invoice; without an id nobody can tell its copies.
fn invoice(id: Option<&str>, number: usize) -> Vec<u8> {
    let id = id.map(|id| format!("Message-ID: <{id}@supplier.example>\r\n")).unwrap_or_default();
    format!(
        "From: Billing <billing@supplier.example>\r\nTo: ap@acme.example\r\nSubject: Invoice {number}\r\n\
         Date: Tue, 3 Feb 2026 04:05:06 +0000\r\n{id}MIME-Version: 1.0\r\n\
         Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nPlease pay.\r\n\
         --b\r\nContent-Type: application/pdf; name=\"{number}.pdf\"\r\n\
         Content-Disposition: attachment; filename=\"{number}.pdf\"\r\nContent-Transfer-Encoding: base64\r\n\r\n\
         JVBERi0=\r\n--b--\r\n"
    )
    .into_bytes()
}

fn deliver(mailbox: &Mailbox, mail: Vec<u8>) {
    gmail().deliver(&mailbox.email, Mails::Raw(mail), &Delivery::default()).unwrap();
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
    let _services = house.open().await;
    let fetcher = house.fetcher("one");
    fetcher.ready().await;
    let mailboxes = [house.mailbox("one").await, house.mailbox("two").await];
    for (at, mailbox) in mailboxes.iter().enumerate() {
        for number in 0..OWN {
            deliver(mailbox, invoice(Some(&format!("own-{at}-{number}")), number));
        }
        deliver(mailbox, invoice(Some("shared"), 4711));
        deliver(mailbox, invoice(None, 4712));
        deliver(mailbox, b"From: a@b.example\r\nSubject: Invoice without a file\r\n\r\nLook at our site.\r\n".to_vec());
        house.sync(mailbox).await;
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
    for mailbox in &mailboxes {
        for number in 0..5 {
            deliver(mailbox, invoice(Some(&format!("late-{number}")), 5000 + number));
        }
        house.sync(mailbox).await;
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
    // Told of once more, under the same ids.
    let path = format!("/gmail-connections/{}/backfill", mailboxes[0].id);
    let backfill = house.request(reqwest::Method::POST, &path).json(&json!({"since": "2020-01-01T00:00:00Z"}));
    let job = backfill.send().await.unwrap().json::<serde_json::Value>().await.unwrap();
    assert_eq!(house.ended(job["jobId"].as_str().unwrap()).await["state"], "succeeded");
    let all = wait_for(SLOW, "all is fetched, and what the backfill named once more", || async {
        let fetched = house.committed("gmail.message.fetched").await;
        let again = fetched.iter().filter(|record| {
            let fetched: domain::GmailMessageFetched = events::decode(record.value.as_deref().unwrap()).unwrap();
            fetched.origin == domain::Origin::Backfill
        });
        (again.count() >= OWN + 3 + 5).then_some(fetched)
    })
    .await;
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
