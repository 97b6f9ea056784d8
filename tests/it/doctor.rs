//! `mailtide doctor` as a process: what it says of an installation that is well, of one in which much is wrong, and of one
//! of which nothing can be reached.

use std::process::Stdio;

use kafka::topics::{Topic, Topics};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use serde_json::Value;
use simulator::OAuthClient;
use tokio::process::Command;

use crate::cli::command;
use crate::support::{LONG, Place, stack, wait_until};

/// Runs it with `--json`; its exit code and what it found.
async fn examined(mut doctor: Command) -> (i32, Value) {
    doctor.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = tokio::time::timeout(LONG * 2, doctor.output()).await.expect("it comes to an end").unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let found = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"));
    (output.status.code().unwrap(), found)
}

/// The findings of one area whose check contains `check`, each as its state and what was found.
fn of<'f>(found: &'f Value, area: &str, check: &str) -> Vec<(&'f str, &'f str)> {
    let all = found["checks"].as_array().unwrap().iter();
    let these = all.filter(|it| it["area"] == area && it["check"].as_str().unwrap().contains(check));
    these.map(|it| (it["state"].as_str().unwrap(), it["found"].as_str().unwrap())).collect()
}

/// Asserts that something about this fails, and that what was found names `word`.
#[track_caller]
fn assert_fails(found: &Value, area: &str, check: &str, word: &str) {
    let these = of(found, area, check);
    let fails = these.iter().any(|(state, said)| *state == "fail" && said.contains(word));
    assert!(fails, "{area} {check} does not fail for {word}: {these:?} in {found}");
}

/// Runs an operator's command that has to succeed, with `stdin`; its stdout as JSON.
async fn done(place: &Place, arguments: &[&str], stdin: &str) -> Value {
    use tokio::io::AsyncWriteExt as _;
    let mut command = command(place, arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).await.unwrap();
    let output = tokio::time::timeout(LONG, child.wait_with_output()).await.expect("it ends").unwrap();
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_doctor_tells_what_is_well_and_what_is_not() {
    let place = Place::new("doctor");
    // A Google of its own: the clock of the shared one is moved by others, and it knows every client.
    let google = simulator::start(simulator::Settings::default()).await.unwrap();
    google.control().add_client(OAuthClient {
        client_id: "ours".to_owned(),
        client_secret: "right".to_owned(),
        redirect_uris: Vec::new(),
        grants_end_after_ms: None,
    });
    let doctor = || {
        let mut doctor = command(&place, &["doctor", "--json"]);
        doctor.env("MAILTIDE_GMAIL_API_URL", &google.base_url);
        doctor.env("MAILTIDE_GMAIL_TOKEN_URL", format!("{}/token", google.base_url));
        doctor.env("MAILTIDE_GMAIL_CLIENT_ID", "ours").env("MAILTIDE_GMAIL_CLIENT_SECRET", "right");
        doctor
    };

    // Before anything was started: what a service would make is named, and nothing is made.
    let (code, found) = examined(doctor()).await;
    assert_eq!(code, 1, "{found}");
    assert_fails(&found, "postgres", "migrations", "is empty");
    assert_fails(&found, "kafka", &place.topic("gmail.connection.state"), "does not exist");
    let (_, again) = examined(doctor()).await;
    assert_fails(&again, "postgres", "migrations", "is empty");
    assert_fails(&again, "kafka", &place.topic("gmail.connection.poll"), "does not exist");

    // All is made, and a token lies under the key.
    done(&place, &["topics", "create", "--json"], "").await;
    let organisation = done(&place, &["organisations", "create", "--name", "Acme", "--json"], "").await;
    let organisation = organisation["organisationId"].as_str().unwrap();
    let add = ["connections", "add", "--organisation", organisation, "--address", "ap@acme.example", "--json"];
    done(&place, &add, "1//a-refresh-token").await;
    // A topic's settings may be seen a moment after it.
    wait_until(LONG * 2, "nothing fails", || async {
        let (code, found) = examined(doctor()).await;
        let fails = found["checks"].as_array().unwrap().iter().any(|it| it["state"] == "fail");
        assert_eq!(code, i32::from(fails), "{found}");
        !fails
    })
    .await;
    let (_, found) = examined(doctor()).await;
    for (area, check, word) in [
        ("settings", "all services", "settings"),
        ("kafka", "features", "fenced by the group's generation"),
        ("postgres", "server", "version"),
        ("postgres", "migrations", "up to date"),
        ("postgres", "token keys", "1 refresh tokens"),
        ("google", "OAuth client", "knows it"),
        ("google", "Gmail API", "answers"),
        ("clock", "Postgres", "ms"),
        ("clock", "Google", "ms"),
        ("registry", "schemas", "none is set"),
    ] {
        let these = of(&found, area, check);
        let is_well = these.iter().any(|(state, said)| *state == "ok" && said.contains(word));
        assert!(is_well, "{area} {check}: {these:?} in {found}");
    }
    // What is not as one would have it in earnest is told, with what to do: one broker is few.
    assert!(
        of(&found, "kafka", "brokers")
            .iter()
            .any(|(state, _)| *state == "warn" || stack().kafka.bootstrap().contains(','))
    );
    for finding in found["checks"].as_array().unwrap() {
        assert_eq!(finding["state"] == "ok", finding["remedy"].is_null(), "{finding}");
    }
    let secrets = ["right", "1//a-refresh-token", "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="];
    for secret in secrets {
        assert!(
            !found.to_string().contains(&format!("\"{secret}\""))
                && (secret == "right" || !found.to_string().contains(secret))
        );
    }

    // Much is wrong at once.
    let names = Topics::new(place.prefix());
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", stack().kafka.bootstrap()).create().unwrap();
    let options = AdminOptions::new().request_timeout(Some(LONG));
    let state = ResourceSpecifier::Topic(names.name(Topic::State));
    let changed = admin.alter_configs(&[AlterConfig::new(state).set("cleanup.policy", "delete")], &options).await;
    changed.unwrap().into_iter().for_each(|answer| drop(answer.unwrap()));
    let deleted = admin.delete_topics(&[names.name(Topic::JobStatus)], &options).await;
    deleted.unwrap().into_iter().for_each(|answer| drop(answer.unwrap()));
    let (postgres, connection) = tokio_postgres::connect(place.database_url(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let schema = place.settings().get("MAILTIDE_DATABASE_SCHEMA").cloned().unwrap_or_else(|| "mailtide".to_owned());
    let latest = format!(
        "DELETE FROM {schema}.refinery_schema_history WHERE version = (SELECT max(version) FROM {schema}.refinery_schema_history)"
    );
    assert_eq!(postgres.execute(&latest, &[]).await.unwrap(), 1);
    let broken = || {
        let mut broken = doctor();
        // The same id, another key.
        broken.env("MAILTIDE_STORE_TOKEN_KEY", "test:YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE=");
        broken.env("MAILTIDE_GMAIL_CLIENT_SECRET", "wrong").env("MAILTIDE_LANE_TRANSACTION_TIMEOUT", "20m");
        broken.env("MAILTIDE_LANE_MAX_POLL_INTERVAL", "41m");
        broken
    };
    wait_until(LONG * 2, "the brokers show what was changed", || async {
        let (code, found) = examined(broken()).await;
        assert_eq!(code, 1, "{found}");
        let fails = |topic| of(&found, "kafka", names.name(topic)).iter().any(|(state, _)| *state == "fail");
        fails(Topic::State) && fails(Topic::JobStatus)
    })
    .await;
    let (_, found) = examined(broken()).await;
    assert_fails(&found, "kafka", names.name(Topic::State), "cleanup.policy is delete");
    assert_fails(&found, "kafka", names.name(Topic::JobStatus), "does not exist");
    assert_fails(&found, "kafka", "transaction.max.timeout.ms", "lane.transaction_timeout");
    assert_fails(&found, "postgres", "migrations", "older version");
    assert_fails(&found, "postgres", "token keys", "does not open it");
    assert_fails(&found, "google", "OAuth client", "invalid_client");
    assert_eq!(of(&found, "postgres", "server")[0].0, "ok", "what is well is told as before: {found}");
    let mut other = doctor();
    other.env("MAILTIDE_STORE_TOKEN_KEY", "k2:YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE=");
    assert_fails(&examined(other).await.1, "postgres", "token keys", "key test");

    // Nothing can be reached: all of it is told, and it comes to an end.
    let nobody = "127.0.0.1:1";
    let mut alone = doctor();
    alone.env("KAFKA_BOOTSTRAP_SERVERS", nobody).env("DATABASE_URL", format!("postgres://u:hunter2@{nobody}/d"));
    alone
        .env("MAILTIDE_GMAIL_API_URL", format!("http://{nobody}"))
        .env("SCHEMA_REGISTRY_URL", format!("http://{nobody}"));
    alone.env("MAILTIDE_GMAIL_TOKEN_URL", format!("http://{nobody}/token"));
    let (code, found) = examined(alone).await;
    assert_eq!(code, 1, "{found}");
    for (area, check) in [
        ("kafka", "brokers"),
        ("postgres", "server"),
        ("google", "Gmail API"),
        ("google", "OAuth client"),
        ("registry", "schemas"),
    ] {
        assert_fails(&found, area, check, "");
    }
    assert!(!found.to_string().contains("hunter2"), "{found}");
    google.shutdown().await;
}
