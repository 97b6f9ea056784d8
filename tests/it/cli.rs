//! The command line, as a process of its own: what it prints, and with which code it ends.

use std::process::{Output, Stdio};

use serde_json::Value;
use simulator::NewMailbox;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;
use uuid::Uuid;

use crate::support::{LONG, Place, stack, wait_until};

/// The program with these arguments in `place`, and nothing of our own environment's settings.
pub(crate) fn command(place: &Place, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mailtide-under-test"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("MAILTIDE_")) {
        command.env_remove(name);
    }
    command.args(arguments).envs(place.settings()).current_dir(place.folder()).kill_on_drop(true);
    command
}

/// Runs it to its end.
async fn run_with(mut command: Command, stdin: &str) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).await.unwrap();
    tokio::time::timeout(LONG, child.wait_with_output()).await.expect("the command comes to an end").unwrap()
}

async fn run(place: &Place, arguments: &[&str]) -> Output {
    run_with(command(place, arguments), "").await
}

/// Its stdout as JSON, after it ended well.
fn json(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn wrong_use_ends_with_2_and_says_what_would_be_right() {
    let place = Place::new("wrong-use");
    let cases: [(&[&str], &str); 6] = [
        (&["fly"], "unrecognized subcommand"),
        (&["tail"], "<TOPIC>"),
        (&["tail", "gmail.nothing"], "gmail.message.discovered"),
        (&["sync", "not-a-uuid"], "invalid value"),
        (&["sync", "0a9f3b1c-5d2e-4f60-8a7b-9c0d1e2f3a4b"], "MAILTIDE_CLIENT_API_KEY"),
        (&["topics", "check", "--config", "/nowhere/mailtide.toml"], "/nowhere/mailtide.toml"),
    ];
    for (arguments, said) in cases {
        let output = run(&place, arguments).await;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(said), "{arguments:?}: {}", stderr(&output));
        assert_eq!(stdout(&output), "", "{arguments:?}");
    }
    let help = run(&place, &["--help"]).await;
    assert_eq!(help.status.code(), Some(0));
    for name in
        ["dev", "demo", "ingress", "scheduler", "poller", "fetcher", "projector", "simulator", "topics", "keys", "tail"]
    {
        assert!(stdout(&help).contains(&format!("\n  {name} ")), "{name} is not in {}", stdout(&help));
    }
}

#[tokio::test]
async fn a_setting_of_any_service_that_is_wrong_stops_every_sub_command() {
    let place = Place::new("wrong-settings");
    let file = place.folder().join("mailtide.toml");
    std::fs::write(&file, "[poller]\nlanes = 0\nlans = 1\n[ingress]\ncache_ttl = \"1h\"\n").unwrap();
    let mut command = command(&place, &["keys", "list", "--config", file.to_str().unwrap()]);
    command.env("MAILTIDE_LOG_FORMAT", "loud");
    let output = run_with(command, "").await;
    assert_eq!(output.status.code(), Some(2));
    for wrong in ["poller.lanes", "poller.lans", "did you mean poller.lanes", "ingress.cache_ttl", "log.format"] {
        assert!(stderr(&output).contains(wrong), "{wrong} is not in {}", stderr(&output));
    }
}

#[tokio::test]
async fn topics_are_checked_and_created() {
    let place = Place::new("topics");
    let missing = run(&place, &["topics", "check"]).await;
    assert_eq!(missing.status.code(), Some(1));
    let all = ["connection.poll", "connection.state", "message.discovered", "job.status", "dead.letter"];
    for topic in all {
        assert!(stderr(&missing).contains(topic), "{topic} is not in {}", stderr(&missing));
    }
    let created = json(&run(&place, &["topics", "create", "--json"]).await);
    let names: Vec<&str> = created.as_array().unwrap().iter().map(|row| row["topic"].as_str().unwrap()).collect();
    for topic in all {
        assert!(names.contains(&place.topic(&format!("gmail.{topic}")).as_str()), "{topic} is not in {names:?}");
    }
    for verb in ["create", "check"] {
        let again = run(&place, &["topics", verb]).await;
        assert_eq!(again.status.code(), Some(0), "{}", stderr(&again));
    }
}

#[tokio::test]
async fn a_mailbox_is_connected_synced_and_read_by_commands_alone() {
    let place = Place::new("by-commands");
    let created = json(&run(&place, &["keys", "create", "--name", "Acme", "--json"]).await);
    let (organisation, key) = (created["organisationId"].as_str().unwrap(), created["key"].as_str().unwrap());

    let address = format!("{}@cli.example", Uuid::new_v4().simple());
    let gmail = stack().simulator.control();
    let mailbox = gmail.create(&NewMailbox { email: address.clone(), ..NewMailbox::default() }).unwrap();
    let mails = simulator::Mails::Synthetic(5);
    let truth = gmail.deliver(&address, mails, &simulator::Delivery::default()).unwrap();
    let add = command(&place, &["connections", "add", "--organisation", organisation, "--address", &address, "--json"]);
    let added = json(&run_with(add, &format!("{}\n", mailbox.refresh_token)).await);
    let connection = added["connectionId"].as_str().unwrap();
    let listed = json(&run(&place, &["connections", "list", "--json"]).await);
    assert_eq!(listed, Value::Array(vec![added.clone()]));

    let mut ingress = place.service("ingress", &["ingress"]);
    let mut poller = place.service("poller", &["poller"]);
    let mut projector = place.service("projector", &["projector"]);
    let api = ingress.start().logged("API open", "address").await;
    poller.start().ready().await;
    projector.start().ready().await;

    let sync = |key: &str| {
        let mut sync = command(&place, &["sync", connection, "--wait", "--json"]);
        sync.env("MAILTIDE_CLIENT_URL", format!("http://{api}")).env("MAILTIDE_CLIENT_API_KEY", key);
        sync
    };
    let job = json(&run_with(sync(key), "").await);
    assert_eq!((&job["state"], &job["progress"]["discovered"]), (&"succeeded".into(), &5.into()), "{job}");
    let wrong = run_with(sync("mt_nothing"), "").await;
    assert_eq!(wrong.status.code(), Some(1));
    assert!(stderr(&wrong).contains("Auth.ApiKeyInvalid"), "{}", stderr(&wrong));

    let tail =
        ["tail", "gmail.message.discovered", "--from-beginning", "--max", "5", "--key", connection].map(str::to_owned);
    let tail = run(&place, &tail.each_ref().map(String::as_str)).await;
    assert_eq!(tail.status.code(), Some(0), "{}", stderr(&tail));
    let mut found: Vec<String> = Vec::new();
    for line in stdout(&tail).lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        assert_eq!(
            (&record["key"], &record["topic"]),
            (&connection.into(), &place.topic("gmail.message.discovered").into())
        );
        assert_eq!(record["headers"]["ce_type"], "gmail.message.discovered");
        assert_eq!(record["value"]["organisationId"], organisation);
        assert!(record["partition"].is_i64() && record["offset"].is_i64() && record["timestamp"].is_string(), "{line}");
        found.push(record["value"]["messageId"].as_str().unwrap().trim_start_matches('0').to_owned());
    }
    let mut expected: Vec<String> = truth.iter().map(|mail| mail.id.trim_start_matches('0').to_owned()).collect();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);

    // Whoever reads a line and goes away, as `head` does, has heard enough.
    let mut tail = command(&place, &["tail", "gmail.message.discovered", "--from-beginning"]);
    let mut tail = tail.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    assert!(lines.next_line().await.unwrap().is_some());
    drop(lines);
    gmail.deliver(&address, simulator::Mails::Synthetic(1), &simulator::Delivery::default()).unwrap();
    json(&run_with(sync(key), "").await);
    let ended = tokio::time::timeout(LONG, tail.wait()).await.expect("nobody reads, so it ends").unwrap();
    assert_eq!(ended.code(), Some(0));

    assert_eq!(projector.stop(), 0);
    let rebuilt = run(&place, &["projector", "--rebuild"]).await;
    assert_eq!(rebuilt.status.code(), Some(0), "{}", stderr(&rebuilt));
    assert_eq!((poller.stop(), ingress.stop()), (0, 0));
}

#[tokio::test]
async fn keys_are_shown_once_and_stop_when_revoked() {
    let place = Place::new("key-commands");
    let first = json(&run(&place, &["keys", "create", "--json"]).await);
    let organisation = first["organisationId"].as_str().unwrap();
    let second = run(&place, &["keys", "create", "--organisation", organisation, "--name", "second"]).await;
    assert_eq!(second.status.code(), Some(0), "{}", stderr(&second));
    let printed = stdout(&second);
    let key = printed.lines().last().unwrap();
    assert!(key.starts_with("mt_"), "{printed}");

    let list = ["keys", "list", "--organisation", organisation, "--json"];
    let listed = run(&place, &list).await;
    assert!(!stdout(&listed).contains(key) && !stdout(&listed).contains(first["key"].as_str().unwrap()));
    let listed = json(&listed);
    assert_eq!(listed.as_array().unwrap().len(), 2);
    assert_eq!(listed[0]["scopes"], serde_json::json!(["read", "write"]));
    assert!(listed[0]["prefix"].as_str().is_some_and(|prefix| key.starts_with(prefix)), "{listed}");
    assert!(listed[0]["lastUsedAt"].is_null(), "{listed}");
    let reader = run(&place, &["keys", "create", "--organisation", organisation, "--scopes", "read", "--json"]).await;
    assert_eq!(json(&reader)["scopes"], serde_json::json!(["read"]));
    assert_eq!(run(&place, &["keys", "create", "--scopes", "all"]).await.status.code(), Some(2));
    let listed = json(&run(&place, &["keys", "list", "--organisation", organisation, "--json"]).await);
    let (reader, listed) = (&listed[0], serde_json::json!([listed[1], listed[2]]));
    assert_eq!(reader["scopes"], serde_json::json!(["read"]));
    assert!(listed[0]["name"] == "second" && listed[0]["revokedAt"].is_null() && listed[0].get("key").is_none());

    let id = listed[0]["keyId"].as_str().unwrap();
    assert_eq!(run(&place, &["keys", "revoke", id]).await.status.code(), Some(0));
    assert!(json(&run(&place, &list).await)[1]["revokedAt"].is_string());
    let again = run(&place, &["keys", "revoke", id]).await;
    assert_eq!(again.status.code(), Some(1));
    assert!(stderr(&again).contains(id));
    let nobody = run(&place, &["keys", "create", "--organisation", &Uuid::new_v4().to_string()]).await;
    assert_eq!(nobody.status.code(), Some(1));
}

#[tokio::test]
async fn a_service_stops_in_order_when_it_is_told_to() {
    let place = Place::new("stop");
    let mut ingress = place.service("ingress", &["ingress"]);
    ingress.start().ready().await;
    assert_eq!(ingress.stop(), 0);
    let log = ingress.log();
    for secret in [place.database_url(), "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="] {
        assert!(!log.contains(secret), "a secret is in the log");
    }
    assert!(
        log.contains("kafka.topic_prefix") && log.contains(place.prefix()),
        "the settings in force are logged: {log}"
    );
}

#[tokio::test]
async fn dev_runs_every_service_in_one_process() {
    let place = Place::new("dev");
    let mut dev = place.service("dev", &["dev"]);
    let api = dev.start().logged("API open", "address").await;
    dev.ready().await;
    let url = format!("http://{api}/openapi.json");
    wait_until(LONG, "the API answers", || async { reqwest::get(&url).await.is_ok() }).await;
    assert_eq!(dev.stop(), 0);
}
