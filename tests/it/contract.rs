//! What consumers rely on: clients of others read our topics with no code of ours, by the registry that ingress is and by
//! a real one (Apicurio Registry), and a schema that does not fit there stops the start.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use serde_json::{Value, json};
use simulator::{Delivery, Mails};
use tokio::net::TcpListener;

use crate::cli::command;
use crate::house::{House, Mailbox, gmail};
use crate::support::clients::{NODE, consumers_python, go, node, run, sources};
use crate::support::{LONG, Place, Service, apicurio, stack, wait_for, wait_until};

/// Reading a topic anew by a process of its own takes seconds on a quiet machine.
const READ: Duration = Duration::from_secs(180);

/// What the topics that others may read carry, and the pipeline's own state.
const TOPICS: [&str; 5] = [
    "gmail.connection.poll",
    "gmail.message.discovered",
    "gmail.message.fetched",
    "gmail.job.status",
    "gmail.connection.status",
];
const STATE: &str = "gmail.connection.state";

/// An invoice as a supplier sends it, with names that have to be decoded.
const INVOICE: &str = "From: =?utf-8?Q?B=C3=BCro?= <billing@supplier.example>\r\nTo: ap@acme.example\r\n\
    Subject: =?utf-8?Q?Rechnung_4711_f=C3=BCr_Februar?=\r\nDate: Tue, 3 Feb 2026 04:05:06 +0000\r\n\
    Message-ID: <4711@supplier.example>\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n\
    --b\r\nContent-Type: text/plain\r\n\r\nPlease pay.\r\n--b\r\nContent-Type: application/pdf; name=\"4711.pdf\"\r\n\
    Content-Disposition: attachment; filename=\"4711.pdf\"\r\nContent-Transfer-Encoding: base64\r\n\r\nJVBERi0=\r\n--b--\r\n";

/// A record of a topic as somebody decoded it, by topic, partition and offset.
type Decoded = BTreeMap<(String, i64, i64), Value>;

/// A pipeline whose every service is a process, so that each takes up the ids of a registry by itself.
struct Pipeline {
    house: Arc<House>,
    services: Vec<Service>,
}

impl Pipeline {
    async fn start(name: &str, changes: &[(&str, &str)]) -> Self {
        let house = House::with(name, changes).await;
        let mut services = Vec::new();
        for service in ["ingress", "projector", "fetcher", "poller"] {
            let mut process = house.process(service, service);
            process.start().ready().await;
            if service == "ingress" {
                house.api_is_at(&process.logged("API open", "address").await);
            }
            services.push(process);
        }
        Self { house, services }
    }

    /// Lets it write a record of every kind that it has: mail found by a sync and by a backfill, jobs that succeed and one
    /// that is cancelled, a connection that goes.
    async fn play(&mut self) {
        let house = Arc::clone(&self.house);
        let [kept, gone] = [house.mailbox("kept").await, house.mailbox("gone").await];
        for mailbox in [&kept, &gone] {
            mailbox.deliver(20);
            gmail().deliver(&mailbox.email, Mails::Raw(INVOICE.as_bytes().to_vec()), &Delivery::default()).unwrap();
            house.sync(mailbox).await;
        }
        // A poller that comes back reads what it wrote itself: commands and state.
        let poller = self.services.last_mut().unwrap();
        poller.kill();
        poller.start().ready().await;
        let backfill = post(&house, &kept, "backfill", &json!({"since": "2020-01-01T00:00:00Z"})).await;
        let cancelled = post(&house, &kept, "backfill", &json!({"since": "2019-01-01T00:00:00Z"})).await;
        let path = format!("/jobs/{cancelled}/cancel");
        house.request(reqwest::Method::POST, &path).send().await.unwrap();
        for job in [&backfill, &cancelled] {
            house.ended(job).await;
        }
        let path = format!("/gmail-connections/{}", gone.id);
        let deleted = house.request(reqwest::Method::DELETE, &path).send().await.unwrap();
        assert!(deleted.status().is_success(), "{deleted:?}");
        kept.deliver(3);
        house.sync(&kept).await;
        wait_until(READ, "every message that was announced and is there is fetched", || async {
            let [announced, fetched] =
                [house.committed("gmail.message.discovered").await, house.committed("gmail.message.fetched").await];
            let of_kept = |records: &[crate::support::Record]| {
                records.iter().filter(|record| record.key_text() == kept.id.to_string()).count()
            };
            of_kept(&announced) == of_kept(&fetched)
        })
        .await;
        // The deletion reaches its topic by a way of its own.
        wait_until(LONG, "all three kinds of command are there", || async {
            let commands = house.committed("gmail.connection.poll").await;
            let kinds: BTreeSet<_> = commands.iter().filter_map(|it| it.header("ce_type")).collect();
            kinds.len() == 3
        })
        .await;
    }

    /// Ends the services, so that what the topics hold stands still.
    fn stop(&mut self) {
        for service in &mut self.services {
            service.stop();
        }
    }

    /// What our own codec says of all that these topics hold: `mailtide tail`.
    async fn by_our_codec(&self, topics: &[&str]) -> Decoded {
        let mut decoded = Decoded::new();
        for topic in topics {
            let all = self.house.committed(topic).await.len().to_string();
            let mut tail = command(&self.house.place, &["tail", topic, "--from-beginning", "--max", &all]);
            tail.envs(self.house.settings());
            let output = tokio::time::timeout(READ, tail.output()).await.expect("tail comes to an end").unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let lines = lines(&output.stdout);
            assert!(lines.values().any(|value| !value.is_null()), "{topic} is empty");
            // Tombstones hold nothing to compare.
            decoded.extend(lines.into_iter().filter(|(_, value)| !value.is_null()));
        }
        decoded
    }

    /// Lets each client of others read the topics by a registry, and compares what they say with what our codec says.
    async fn compare(&self, registry: &str, topics: &[&str]) {
        let ours = self.by_our_codec(topics).await;
        let mut last: BTreeMap<&str, BTreeMap<i64, i64>> = BTreeMap::new();
        for (topic, partition, offset) in ours.keys() {
            last.entry(topic).or_default().insert(*partition, *offset);
        }
        let (bootstrap, wanted) = (stack().kafka.bootstrap(), json!(last).to_string());
        let arguments = [bootstrap, registry, &wanted].map(OsStr::new);
        let failed = "a stock client could not read our topics";
        for client in ["python", "node", "go"] {
            let home = sources(&format!("consumers/{client}"));
            let theirs = match client {
                "python" => {
                    let script = home.join("consume.py");
                    let arguments: Vec<&OsStr> = [script.as_os_str()].into_iter().chain(arguments).collect();
                    run(&consumers_python().await, &arguments, &home, b"", failed).await
                }
                "node" => {
                    let script = home.join("consume.mjs");
                    let arguments: Vec<&OsStr> = [script.as_os_str()].into_iter().chain(arguments).collect();
                    run(Path::new("node"), &arguments, &node("consumers/node").await, b"", NODE).await
                }
                _ => run(&go("consumers/go").await, &arguments, &home, b"", failed).await,
            };
            // What was written meanwhile is beyond the last that was asked for.
            let is_asked = |(topic, partition, offset): &(String, i64, i64)| {
                last.get(topic.as_str()).and_then(|ends| ends.get(partition)).is_some_and(|last| offset <= last)
            };
            let mut theirs = lines(&theirs);
            theirs.retain(|place, _| is_asked(place));
            for (place, value) in &ours {
                assert_eq!(theirs.get(place), Some(value), "{client} reads {place:?} otherwise");
            }
            assert_eq!(theirs.len(), ours.len(), "{client} reads what is not committed");
        }
    }
}

/// Records as JSON lines, by topic, partition and offset.
fn lines(output: &[u8]) -> Decoded {
    let text = std::str::from_utf8(output).unwrap();
    text.lines()
        .map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            let number = |name: &str| line[name].as_i64().unwrap();
            let place = (line["topic"].as_str().unwrap().to_owned(), number("partition"), number("offset"));
            (place, line["value"].clone())
        })
        .collect()
}

async fn post(house: &House, mailbox: &Mailbox, what: &str, body: &Value) -> String {
    let path = format!("/gmail-connections/{}/{what}", mailbox.id);
    let answer = house.request(reqwest::Method::POST, &path).json(body).send().await.unwrap();
    assert_eq!(answer.status(), reqwest::StatusCode::ACCEPTED);
    answer.json::<Value>().await.unwrap()["jobId"].as_str().unwrap().to_owned()
}

/// The schema ids in the frames of a topic.
async fn ids_in(house: &House, topic: &str) -> BTreeSet<u32> {
    let records = house.committed(topic).await;
    records.iter().filter_map(|record| events::frame_id(record.value.as_deref()?)).collect()
}

#[tokio::test]
async fn stock_clients_read_every_topic_by_the_registry_that_ingress_is() {
    let mut pipeline = Pipeline::start("contract", &[]).await;
    pipeline.play().await;
    // Only ingress is needed to read.
    let ingress = pipeline.services.remove(0);
    pipeline.stop();
    let registry = pipeline.house.url("");
    pipeline.compare(&registry, &[&TOPICS[..], &[STATE]].concat()).await;
    drop(ingress);
}

#[tokio::test]
async fn stock_clients_read_every_topic_by_a_registry_of_others() {
    let registry = apicurio().await.url();
    let mut pipeline = Pipeline::start("contract-registry", &[("SCHEMA_REGISTRY_URL", &registry)]).await;
    pipeline.play().await;
    let house = Arc::clone(&pipeline.house);
    // Ingress knows both: the ids that this registry gave, and those of records from before it.
    for published in events::Registry::built_in().all() {
        let path = format!("/subjects/{}/versions/{}", published.subject, published.version);
        let version = house.request(reqwest::Method::GET, &path).send().await.unwrap().json::<Value>().await.unwrap();
        let theirs = version["id"].as_u64().unwrap();
        assert!(theirs < 1_000_000 || published.record.is_private(), "{version}");
        for id in [theirs, published.id.into()] {
            let answer = house.request(reqwest::Method::GET, &format!("/schemas/ids/{id}")).send().await.unwrap();
            assert_eq!(answer.json::<Value>().await.unwrap()["schema"], published.text, "{id}");
        }
    }
    pipeline.stop();
    for topic in TOPICS {
        let ids = ids_in(&house, topic).await;
        assert!(ids.iter().all(|id| *id < 1_000_000), "{topic} holds frames under ids of ours: {ids:?}");
    }
    // What is the poller's alone can be read with no registry.
    let ids = ids_in(&house, STATE).await;
    assert!(ids.iter().all(|id| *id > 1_000_000), "the state holds frames under ids of others: {ids:?}");
    pipeline.compare(&registry, &TOPICS).await;
    let http = reqwest::Client::new();
    for published in events::Registry::built_in().all() {
        let (subject, version) = (&published.subject, published.version);
        let rule = http.get(format!("{registry}/config/{subject}")).send().await.unwrap();
        assert_eq!(rule.json::<Value>().await.unwrap()["compatibilityLevel"], "FULL_TRANSITIVE", "{subject}");
        let version = http.get(format!("{registry}/subjects/{subject}/versions/{version}")).send().await.unwrap();
        let schema = version.json::<Value>().await.unwrap()["schema"].as_str().unwrap().to_owned();
        let [theirs, ours] = [&schema, &published.text].map(|text| serde_json::from_str::<Value>(text).unwrap());
        assert_eq!(theirs, ours, "{subject}");
    }
}

/// A way to the registry, to be opened when it is time.
#[derive(Clone)]
struct Way {
    /// Where it leads.
    registry: String,
    /// Goes before the names of subjects, so that this registry is another one for whoever comes this way.
    prefix: &'static str,
    client: reqwest::Client,
}

impl Way {
    /// Passes a request on.
    async fn pass(State(way): State<Self>, request: axum::extract::Request) -> axum::response::Response {
        use axum::response::IntoResponse;
        let path = request.uri().path_and_query().unwrap().as_str();
        let own = |path: &str| {
            ["/subjects/", "/config/"]
                .iter()
                .fold(path.to_owned(), |path, part| path.replacen(part, &format!("{part}{}", way.prefix), 1))
        };
        let url = format!("{}{}", way.registry, own(path));
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        let mut sent = way.client.request(parts.method, url).body(body);
        if let Some(kind) = parts.headers.get("content-type") {
            sent = sent.header("content-type", kind);
        }
        let answer = sent.send().await.unwrap();
        (answer.status(), answer.bytes().await.unwrap()).into_response()
    }

    async fn open(listener: TcpListener, prefix: &'static str) {
        let way = Self { registry: apicurio().await.url(), prefix, client: reqwest::Client::new() };
        let router = axum::Router::new().fallback(Self::pass).with_state(way);
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    }
}

#[tokio::test]
async fn a_registry_that_is_away_is_waited_for_and_one_that_refuses_a_schema_ends_the_start() {
    let place = Place::new("contract-start");
    // Before the clock runs: where it is new here it has to be had first.
    apicurio().await;
    // A port that nobody listens on, until the registry is reached by it.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let url = format!("http://{address}");
    let mut service = place.service("scheduler", &["scheduler"]).set("SCHEMA_REGISTRY_URL", &url);
    service.start().logged("The service waits for the schema registry", "error").await;
    let admin = service.logged("Admin port open", "address").await;
    let ready = reqwest::get(format!("http://{admin}/readyz")).await.unwrap();
    assert_eq!(ready.status(), reqwest::StatusCode::SERVICE_UNAVAILABLE);
    assert!(ready.text().await.unwrap().contains("mailtide.gmail."), "readiness says what is tried");
    let listener = wait_for(LONG, "the port is free still", || async { TcpListener::bind(address).await.ok() }).await;
    Way::open(listener, "away.").await;
    service.ready().await;
    assert_eq!(service.stop(), 0);

    // Somebody has registered another CancelJob, whose jobId is a number.
    let subject = "mailtide.gmail.CancelJob";
    let theirs = json!({
        "type": "record", "name": "CancelJob", "namespace": "mailtide.gmail",
        "fields": [{"name": "jobId", "type": "long"}],
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    Way::open(listener, "refused.").await;
    let registered = reqwest::Client::new()
        .post(format!("{url}/subjects/{subject}/versions"))
        .header("content-type", "application/vnd.schemaregistry.v1+json")
        .body(json!({ "schema": theirs.to_string() }).to_string())
        .send()
        .await
        .unwrap();
    assert!(registered.status().is_success(), "{registered:?}");
    let mut service = place.service("refused", &["scheduler"]).set("SCHEMA_REGISTRY_URL", &url);
    assert_eq!(service.start().ended().await, 1);
    let log = service.log();
    for said in [
        "mailtide.gmail.CancelJob version 1 does not go with what",
        "against version 1 there, mailtide.gmail.CancelJob.jobId: ",
        "a new field needs a default",
    ] {
        assert!(log.contains(said), "{said} is not in {log}");
    }
}
