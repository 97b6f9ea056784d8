//! What whoever runs the services sees of them: their settings, what they log, whether they are alive and ready, and how
//! everything stands.

use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use kafka::topics::Topic;
use kafka::{Headers, OutRecord, SoleWriter};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::cli::command;
use crate::house::House;
use crate::support::{LONG, Place, Service, stack, wait_for, wait_until};

async fn run(mut command: Command) -> Output {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    tokio::time::timeout(LONG, command.output()).await.expect("the command comes to an end").unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Its stdout as JSON, after it ended with `code`.
#[track_caller]
fn json_of(output: &Output, code: i32) -> Value {
    assert_eq!(output.status.code(), Some(code), "{}", stderr(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What an admin port answers on a path of health's.
async fn asked(address: &str, path: &str) -> (StatusCode, Value) {
    let answer = reqwest::get(format!("http://{address}{path}")).await.unwrap();
    (answer.status(), answer.json().await.unwrap())
}

#[tokio::test]
async fn settings_are_told_with_their_origin_and_without_their_secrets() {
    let place = Place::new("settings");
    let file = place.folder().join("mailtide.toml");
    std::fs::write(&file, "[poller]\nlanes = 3\n[kafka.librdkafka]\nsasl.password = \"hunter2\"\n").unwrap();
    let file = file.to_str().unwrap();
    let mut settings = command(&place, &["settings", "--json", "--config", file]);
    settings.env("MAILTIDE_GMAIL_CLIENT_SECRET", "hunter3");
    let output = run(settings).await;
    let all = json_of(&output, 0);
    let all = all.as_array().unwrap();
    let of = |key: &str| all.iter().find(|entry| entry["key"] == key).unwrap_or_else(|| panic!("{key} is not told"));
    let lanes = of("poller.lanes");
    assert_eq!(
        (&lanes["value"], &lanes["default"], &lanes["origin"]["file"]["line"]),
        (&json!("3"), &json!("1"), &json!(2))
    );
    let secret = of("gmail.client_secret");
    assert_eq!(
        (&secret["value"], &secret["origin"]["environment"]),
        (&json!("***"), &json!("MAILTIDE_GMAIL_CLIENT_SECRET"))
    );
    assert_eq!(of("projector.batch")["origin"], "default");
    assert_eq!(of("kafka.librdkafka.sasl.password")["value"], "***");
    let text = String::from_utf8(output.stdout).unwrap();
    for secret in ["hunter2", "hunter3", place.database_url(), "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="] {
        assert!(!text.contains(secret), "a secret is told: {text}");
    }
    // For people; those of one group, and only what somebody set.
    let shown = run(command(&place, &["settings", "poller", "--changed", "--config", file])).await;
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("poller.lanes") && shown.contains("mailtide.toml:2"), "{shown}");
    assert!(!shown.contains("poller.calls") && !shown.contains("kafka."), "{shown}");
    // What nothing knows is refused.
    let unknown = run(command(&place, &["settings", "pollr"])).await;
    assert_eq!(unknown.status.code(), Some(2));
    assert!(stderr(&unknown).contains("poller"), "{}", stderr(&unknown));
    let mut unknown = command(&place, &["settings"]);
    unknown.env("MAILTIDE_POLLER_LANS", "1");
    assert_eq!(run(unknown).await.status.code(), Some(2));
}

#[tokio::test]
async fn a_running_service_logs_what_it_is_told_to() {
    const EARLY: &str = "Connection ended early";
    let place = Place::new("log-level");
    let mut ingress = place.service("ingress", &["ingress"]).set("MAILTIDE_LOG_FILTER", "info");
    let api = ingress.start().logged("API open", "address").await;
    let admin = ingress.ready().await.logged("Admin port open", "address").await;
    let http = reqwest::Client::new();
    let url = format!("http://{admin}/log-level");
    let put = |filter: &'static str| {
        let request = http.put(&url).body(filter).send();
        async {
            let answer = request.await.unwrap();
            (answer.status(), answer.json::<Value>().await.unwrap())
        }
    };
    // Whoever goes away in the middle of a request is worth a word to those who debug.
    let leave = || async {
        let mut client = tokio::net::TcpStream::connect(&api).await.unwrap();
        client.write_all(b"GET /openapi.json HTTP/1.1\r\nHost").await.unwrap();
        client.shutdown().await.unwrap();
    };
    assert_eq!(asked(&admin, "/log-level").await, (StatusCode::OK, json!({"filter": "info"})));
    leave().await;
    for bad in ["", "ingress=loud"] {
        let (status, said) = put(bad).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(said["error"].is_string(), "{said}");
    }
    assert_eq!(asked(&admin, "/log-level").await.1, json!({"filter": "info"}));
    assert!(!ingress.log().contains(EARLY), "{}", ingress.log());
    assert_eq!(
        put("info,ingress=debug").await,
        (StatusCode::OK, json!({"before": "info", "filter": "info,ingress=debug"}))
    );
    wait_until(LONG, "what happens is logged at the new level", || async {
        leave().await;
        ingress.log().contains(EARLY)
    })
    .await;
    // In an image without any tools, by the program itself.
    let mut change = command(&place, &["log-level", "error"]);
    change.env("MAILTIDE_ADMIN_ADDRESS", &admin);
    let changed = run(change).await;
    assert_eq!(
        String::from_utf8_lossy(&changed.stdout),
        "error (before: info,ingress=debug)\n",
        "{}",
        stderr(&changed)
    );
    let mut wrong = command(&place, &["log-level", "ingress=loud"]);
    wrong.env("MAILTIDE_ADMIN_ADDRESS", &admin);
    assert_eq!(run(wrong).await.status.code(), Some(2));
    // Whoever reaches the API does not reach this.
    for method in [reqwest::Method::GET, reqwest::Method::PUT] {
        let answer = http.request(method, format!("http://{api}/log-level")).body("debug").send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    }
    assert_eq!(ingress.stop(), 0);
    let log = ingress.log();
    assert!(!log.contains("\"Stopping\""), "no more than errors: {log}");
    assert_eq!(log.matches("The log's filter is changed").count(), 2, "{log}");
    assert!(log.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "one event a line: {log}");
}

/// Whether the poller's lane fails this check, and what it says.
async fn fault(address: &str, path: &str, check: &str) -> Option<String> {
    let (status, said) = asked(address, path).await;
    let fault = said["failing"][check].as_str().map(str::to_owned);
    assert!(fault.is_none() || status == StatusCode::SERVICE_UNAVAILABLE, "{path}: {status} {said}");
    fault
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_lane_is_told_from_a_busy_one_and_ready_is_who_is_restored() {
    let house = House::new("livez").await;
    house.create_topics().await;
    let (ingress, projector) = (house.ingress().await, house.projector());
    let mut mailboxes = Vec::new();
    for name in ["one", "two", "three"] {
        mailboxes.push(house.mailbox(name).await);
        mailboxes.last().unwrap().deliver(20);
    }

    // A transaction hangs on the state of a partition, which cannot be restored until it is decided.
    let hung: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", stack().kafka.bootstrap())
        .set("transactional.id", format!("{}hung", house.place.prefix()))
        .set("transaction.timeout.ms", "600000")
        .create()
        .unwrap();
    hung.init_transactions(LONG).unwrap();
    hung.begin_transaction().unwrap();
    let state = house.place.topic("gmail.connection.state");
    hung.send(BaseRecord::<str, str>::to(&state).partition(0).key("nobody").payload("nothing")).unwrap();
    hung.flush(LONG).unwrap();
    // Each of its transactions takes long.
    let mut busy = house.process("busy", "poller").set("KAFKA_FAULTS", "dawdle");
    let admin = busy.start().logged("Admin port open", "address").await;
    wait_until(LONG, "the lane runs and is not restored", || async {
        fault(&admin, "/readyz", "poller-lane-0-restored").await.as_deref() == Some("Running")
    })
    .await;
    assert_eq!(asked(&admin, "/livez").await.0, StatusCode::OK, "who restores is alive");
    hung.abort_transaction(LONG).unwrap();
    busy.ready().await;
    // It works for longer than a lane is given that does not turn.
    let until = Instant::now() + house.kafka("tests").lane.max_poll_interval + Duration::from_secs(1);
    while Instant::now() < until {
        let jobs = futures_util::future::join_all(mailboxes.iter().map(|mailbox| house.ask(mailbox))).await;
        for job in &jobs {
            assert_eq!(house.ended(job).await["state"], "succeeded");
            assert_eq!(asked(&admin, "/livez").await.0, StatusCode::OK, "who works is alive");
        }
    }
    assert_eq!(busy.stop(), 0);

    // This one's first transaction never comes to its end.
    let mut stuck = house.process("stuck", "poller").set("KAFKA_FAULTS", "hang");
    let admin = stuck.start().logged("Admin port open", "address").await;
    let job = house.ask(&mailboxes[0]).await;
    let said = wait_for(LONG * 2, "the stuck lane is named", || fault(&admin, "/livez", "poller-lane-0")).await;
    assert!(said.contains("has not turned for"), "{said}");
    let mut live = command(&house.place, &["health", "--live"]);
    live.env("MAILTIDE_ADMIN_ADDRESS", &admin);
    assert_eq!(run(live).await.status.code(), Some(1));
    // Which is what whoever watches it restarts it for.
    stuck.kill();
    let mut heir: Service = house.process("stuck", "poller");
    heir.start().ready().await;
    assert_eq!(house.ended(&job).await["state"], "succeeded");
    house.assert_clean().await;
    assert_eq!(heir.stop(), 0);
    projector.stop().await;
    ingress.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn how_things_stand_is_told_at_a_glance() {
    let house = House::new("status").await;
    house.create_topics().await;
    let (ingress, projector) = (house.ingress().await, house.projector());
    let mut poller = house.process("poller", "poller");
    let admin = poller.start().ready().await.logged("Admin port open", "address").await;
    for name in ["one", "two", "three"] {
        let mailbox = house.mailbox(name).await;
        mailbox.deliver(2);
        house.sync(&mailbox).await;
    }
    // Somebody's consent has ended, and a record was put aside.
    let lost = house.mailboxes()[0].clone();
    gmail_forgets(&lost.email);
    let job = house.ended(&house.ask(&lost).await).await;
    assert_eq!(job["state"], "failed", "{job}");
    let (kafka, topic) = (house.kafka("tests"), house.topics().name(Topic::DeadLetter).clone());
    let write = move || {
        let record = OutRecord::new(&topic, "key", "what nobody can read", Headers::new());
        SoleWriter::take_over(&kafka, "tests").unwrap().commit(&[record]).unwrap();
    };
    tokio::task::spawn_blocking(write).await.unwrap();

    let status = |more: &[&str]| {
        let mut status = command(&house.place, &[&["status"], more].concat());
        status.envs(house.settings());
        status
    };
    let told = wait_for(LONG, "the rows and the metrics follow", || async {
        let told = json_of(&run(status(&["--json", "--service", &admin])).await, 0);
        let is_told = told["connections"]["needsReauth"]["count"] == 1
            && told["services"][0]["budgets"]["project_minute"]["limit"].is_number()
            && told["units"]["pollerToday"]["count"].as_u64() > Some(0);
        is_told.then_some(told)
    })
    .await;
    let exact = |count: u64| json!({"count": count, "precision": "exact"});
    let connections = json!({"all": exact(3), "active": exact(2), "needsReauth": exact(1), "quarantined": exact(0)});
    assert_eq!(told["connections"], connections, "{told}");
    let counts = json!([
        {"state": "failed", "trigger": "api", "count": 1},
        {"state": "succeeded", "trigger": "api", "count": 3},
    ]);
    assert_eq!((&told["jobs"]["counts"], &told["jobs"]["precision"]), (&counts, &json!("exact")), "{told}");
    let slowest = told["jobs"]["slowest"].as_array().unwrap();
    let longest: Vec<i64> = slowest.iter().map(|it| it["longestMs"].as_i64().unwrap()).collect();
    assert!(slowest.len() == 3 && longest.is_sorted_by(|left, right| left >= right) && longest[2] > 0, "{told}");
    let of =
        |group: &str| told["lag"].as_array().unwrap().iter().any(|it| it["group"].as_str().unwrap().contains(group));
    assert!(of(house.place.prefix()) && of("projector"), "{told}");
    assert_eq!(told["deadLetters"]["open"], exact(1), "{told}");
    assert!(told["deadLetters"]["oldest"].is_string(), "{told}");
    let service = &told["services"][0];
    assert!(service["away"].is_null() && service["notReady"] == json!({}), "{service}");
    assert_eq!(told["failed"], json!({}), "{told}");
    // For people.
    let shown = run(status(&["--service", &admin, "--since", "24h"])).await;
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    for word in
        ["needs_reauth", "succeeded", "slowest mailboxes", &lost.id.to_string(), "project_minute", "open dead letters"]
    {
        assert!(shown.contains(word), "{word} is not in {shown}");
    }
    // What is away is named; what is not, is told.
    let mut half = status(&["--json", "--service", "127.0.0.1:1"]);
    half.env("DATABASE_URL", "postgres://u:hunter2@127.0.0.1:1/d");
    let told = json_of(&run(half).await, 1);
    for part in ["connections", "jobs", "units"] {
        assert!(told[part].is_null() && told["failed"][part].is_string(), "{told}");
    }
    assert!(told["lag"].is_array() && told["deadLetters"]["open"] == exact(1), "{told}");
    assert!(told["services"][0]["away"].is_string() && !told.to_string().contains("hunter2"), "{told}");
    assert_eq!(poller.stop(), 0);
    projector.stop().await;
    ingress.stop().await;
}

/// Ends every consent to this mailbox, the tokens that were given for it included.
fn gmail_forgets(email: &str) {
    let gmail = crate::house::gmail();
    gmail.end_grants(email, simulator::Cause::Revoked).unwrap();
    gmail.expire_access_tokens(email).unwrap();
}
