//! The API is held to its own document by schemathesis: every call, by itself and after others, with what the document
//! allows and with what it does not. Rules and reasons are in `tests/clients/schemathesis`.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use simulator::{Delivery, Mails};
use store::keys::{self, Scope};
use store::organisations;
use tokio::process::Command;

use super::api::{KEY, tenant};
use crate::attachments::mail;
use crate::house::{House, gmail, now};
use crate::support::clients::{python, sources};

/// Mailboxes of the organisation: those that are tried, and those that are left when some were deleted.
const MAILBOXES: usize = 120;

/// Jobs that are there before it begins.
const JOBS: usize = 4;

/// Messages with a file, each in a mailbox of its own.
const MESSAGES: usize = 6;

/// Far longer than it takes, on a slow and busy machine.
const LIMIT: Duration = Duration::from_secs(600);

#[tokio::test(flavor = "multi_thread")]
async fn the_api_keeps_to_its_document_whatever_it_is_asked() {
    let changes = [
        ("MAILTIDE_INGRESS_STREAM_AGE", "500ms"),
        ("MAILTIDE_INGRESS_REQUEST_TIMEOUT", "5s"),
        ("MAILTIDE_LOG_FILTER", "info,ingress=trace,store=debug"),
        // Attachments are read as fast as Gmail lets them be.
        ("MAILTIDE_GMAIL_QUOTA_USER_MINUTE", "10000000"),
    ];
    let house = House::with("fuzz", &changes).await;
    let mut ingress = house.process("ingress", "ingress");
    let base = format!("http://{}", ingress.start().logged("API open", "address").await);
    let (poller, projector) = (house.poller("one"), house.projector());
    // The host of the document's own example.
    let hosts = ["app.example.com".to_owned()];
    organisations::change_return_hosts(&house.store, house.organisation, &hosts, &[]).await.unwrap().unwrap();
    poller.ready().await;
    projector.ready().await;
    house.api_is_at(base.strip_prefix("http://").unwrap());
    let config = house.place.folder().join("schemathesis.toml");
    let committed = std::fs::read_to_string(sources("schemathesis").join("schemathesis.toml")).unwrap();
    // Mailboxes of their own, which are not tried otherwise.
    let mut messages = BTreeMap::new();
    for number in 0..MESSAGES {
        let mailbox = house.mailbox(&format!("file{number}")).await;
        let mail = Mails::Raw(mail(&[("Content-Type: application/pdf; name=a.pdf", b"%PDF")]));
        let sent = gmail().deliver(&mailbox.email, mail, &Delivery::default()).unwrap().remove(0);
        messages.insert(sent.id, mailbox.id.to_string());
    }
    let named: Vec<&String> = messages.keys().collect();
    let files =
        format!("\n[dictionaries.messages]\nvalues = {}\n\n[dictionaries.parts]\nvalues = [\"1\"]\n", json!(named));
    std::fs::write(&config, committed + &files + &dictionaries(&house).await).unwrap();

    let stranger = tenant(&house.store).await;
    let mut keys = vec![("both", house.api_key().to_owned()), ("stranger", stranger.key)];
    for (name, scope) in [("read", Scope::Read), ("write", Scope::Write)] {
        let (_, key) = keys::create(&house.store, house.organisation, name, &[scope], now()).await.unwrap();
        keys.push((name, key.expose_secret().to_owned()));
    }
    let entry = |(name, key): &(&str, String)| json!({"name": name, "fixedHeaders": [{"name": KEY, "value": key}]});
    let file = house.place.folder().join("keys.json");
    std::fs::write(&file, json!({"auth": keys.iter().map(entry).collect::<Vec<Value>>()}).to_string()).unwrap();

    let programs = python("schemathesis").await;
    // A key of one scope is refused by half of the calls, so little of it is enough.
    for (key, phases, examples) in [
        ("both", "examples,coverage,fuzzing,stateful", "30"),
        ("read", "coverage,fuzzing", "2"),
        ("write", "coverage,fuzzing", "2"),
    ] {
        let mut command = Command::new(programs.join("schemathesis"));
        command.arg("--config-file").arg(&config);
        command.args(["run", &format!("{base}/openapi.json"), "--no-color"]);
        command.args(["--phases", phases, "--max-examples", examples]);
        // What it leaves behind goes with the place.
        command.current_dir(house.place.folder()).env("PYTHONPATH", sources("schemathesis"));
        command.env("PYTHONDONTWRITEBYTECODE", "1").env("MAILTIDE_MESSAGES", json!(messages).to_string());
        command.env("MAILTIDE_KEYS", &file).env("MAILTIDE_KEY", key).stdin(Stdio::null()).kill_on_drop(true);
        let tried = tokio::time::timeout(LIMIT, command.output()).await.expect("it comes to an end").unwrap();
        let said = String::from_utf8_lossy(&tried.stdout);
        assert!(tried.status.success(), "with the key `{key}`:\n{said}\n{}", String::from_utf8_lossy(&tried.stderr));
    }

    // Nothing of it was too much for the service, and it told nobody a key.
    let mailbox = house.mailbox("after").await;
    mailbox.deliver(1);
    assert_eq!(house.sync(&mailbox).await["progress"]["discovered"], 1);
    let log = ingress.log();
    assert!(
        !log.contains(r#""level":"ERROR""#),
        "{}",
        log.lines().filter(|line| line.contains("ERROR")).collect::<String>()
    );
    for (name, key) in &keys {
        assert!(!log.contains(key.as_str()), "the key `{name}` is in the log");
    }
    projector.stop().await;
    poller.stop().await;
}

/// What is there to be asked for, as the configuration's dictionaries.
async fn dictionaries(house: &Arc<House>) -> String {
    let (mut connections, mut jobs) = (Vec::new(), Vec::new());
    for number in 0..MAILBOXES {
        let mailbox = house.mailbox(&format!("m{number}")).await;
        mailbox.deliver(1);
        if number < JOBS {
            jobs.push(house.sync(&mailbox).await["jobId"].as_str().unwrap().to_owned());
        }
        connections.push(mailbox.id.to_string());
    }
    let (mut cursors, mut after) = (Vec::new(), String::new());
    while cursors.len() < JOBS - 1 {
        let page = house.request(Method::GET, &format!("/jobs?Limit=1{after}")).send().await.unwrap();
        let page: Value = page.json().await.unwrap();
        let next = page["nextCursor"].as_str().unwrap().to_owned();
        after = format!("&Cursor={next}");
        cursors.push(next);
    }
    // A list of texts is written in TOML as in JSON.
    [("connections", connections), ("jobs", jobs), ("cursors", cursors)]
        .map(|(name, values)| format!("\n[dictionaries.{name}]\nvalues = {}\n", json!(values)))
        .concat()
}
