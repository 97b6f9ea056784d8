//! Starts the real servers, and sees them go.

#![expect(clippy::unwrap_used, reason = "in a test the panic is the message")]

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use devstack::{Cluster, ClusterOptions, Kafka, KafkaOptions, NODES, Postgres, PostgresOptions};

fn accepts(address: &str) -> bool {
    let address: SocketAddr = address.parse().unwrap();
    TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < until, "not within 30 s: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn psql(url: &str, statement: &str) -> String {
    let output = Command::new("psql").args(["-X", "-q", "-At", "-c", statement, url]).output().unwrap();
    assert!(output.status.success(), "{statement}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn kafka_serves_again_on_its_port_after_a_kill_and_after_a_stop() {
    let mut kafka = Kafka::start(&KafkaOptions { own: true, short_lived: true, ..KafkaOptions::default() }).unwrap();
    let bootstrap = kafka.bootstrap().to_owned();
    assert!(accepts(&bootstrap));
    kafka.kill().unwrap();
    assert!(!accepts(&bootstrap));
    kafka.restart().unwrap();
    assert!(accepts(&bootstrap));
    kafka.stop().unwrap();
    assert!(!accepts(&bootstrap));
    assert!(kafka.process().is_none());
}

#[test]
fn a_broker_that_cannot_start_says_why() {
    let settings = vec![("num.io.threads".to_owned(), "none".to_owned())];
    let error = Kafka::start(&KafkaOptions { settings, own: true, ..KafkaOptions::default() }).unwrap_err().to_string();
    assert!(error.contains("num.io.threads"), "{error}");
}

#[test]
fn postgres_keeps_its_rows_over_a_kill_and_a_stop() {
    let mut postgres = Postgres::start(&PostgresOptions { own: true }).unwrap();
    let first = postgres.database("First one").unwrap();
    let second = postgres.database("second").unwrap();
    assert_ne!(first.url(), second.url());
    psql(first.url(), "CREATE TABLE kept (n int); INSERT INTO kept VALUES (7)");
    postgres.kill().unwrap();
    postgres.restart().unwrap();
    assert_eq!(psql(first.url(), "SELECT n FROM kept"), "7");
    postgres.restart().unwrap();
    assert_eq!(psql(first.url(), "SELECT n FROM kept"), "7");
    let databases = "SELECT count(*) FROM pg_database WHERE datname LIKE 'mailtide_%'";
    assert_eq!(psql(postgres.url(), databases), "2");
    drop((first, second));
    assert_eq!(psql(postgres.url(), databases), "0");
}

#[test]
fn a_given_server_is_used_and_left_as_it_was() {
    let own = Postgres::start(&PostgresOptions { own: true }).unwrap();
    psql(own.url(), "CREATE ROLE limited LOGIN PASSWORD 'a b/c&d=e+f'");
    psql(own.url(), "CREATE DATABASE given OWNER limited");
    let mut url: url::Url = own.url().parse().unwrap();
    url.set_username("limited").unwrap();
    url.set_password(Some("a b/c&d=e+f")).unwrap();
    url.set_path("given");
    let schemas = || psql(url.as_str(), "SELECT count(*) FROM pg_namespace");
    let databases = || psql(url.as_str(), "SELECT count(*) FROM pg_database");
    let before = (schemas(), databases());

    let mut given = Postgres::given(url.as_str()).unwrap();
    assert!(!given.is_ours());
    assert!(given.kill().unwrap_err().to_string().contains("not ours to kill"));
    let schema = given.database("one").unwrap();
    psql(schema.url(), "CREATE TABLE here (n int)");
    assert_eq!(psql(schema.url(), "SELECT count(*) FROM here"), "0");
    assert_eq!(psql(url.as_str(), "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"), "0");
    assert_eq!(databases(), before.1, "this user may not create databases");
    drop(schema);

    psql(own.url(), "ALTER ROLE limited CREATEDB");
    let database = given.database("one").unwrap();
    psql(database.url(), "CREATE TABLE here (n int)");
    assert_ne!(databases(), before.1);
    drop(database);
    assert_eq!((schemas(), databases()), before);
}

#[test]
fn given_servers_are_used_instead_of_our_own() {
    let own = Postgres::start(&PostgresOptions { own: true }).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_devstack"))
        .env("DATABASE_URL", own.url())
        .env("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines: Vec<String> = BufReader::new(child.stdout.take().unwrap()).lines().take(2).map(Result::unwrap).collect();
    assert_eq!(lines, ["KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:1".to_owned(), format!("DATABASE_URL={}", own.url())]);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn everything_ends_with_the_process_that_started_it_even_by_kill_9() {
    let mut parent = Command::new(env!("CARGO_BIN_EXE_devstack"))
        .env_remove("KAFKA_BOOTSTRAP_SERVERS")
        .env_remove("DATABASE_URL")
        .env("TMPDIR", "/var/tmp")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let folders = || -> Vec<_> {
        let entries = std::fs::read_dir("/var/tmp").unwrap().flatten();
        entries.map(|entry| entry.file_name()).filter(|name| name.to_string_lossy().starts_with("mailtide-")).collect()
    };
    let before = folders();
    let mut lines = BufReader::new(parent.stdout.take().unwrap()).lines();
    let kafka = lines.next().unwrap().unwrap().split_once('=').unwrap().1.to_owned();
    let postgres: url::Url = lines.next().unwrap().unwrap().split_once('=').unwrap().1.parse().unwrap();
    let postgres = format!("127.0.0.1:{}", postgres.port().unwrap());
    assert!(accepts(&kafka) && accepts(&postgres));
    parent.kill().unwrap();
    parent.wait().unwrap();
    wait_until("Kafka ends with its parent", || !accepts(&kafka));
    wait_until("Postgres ends with its parent", || !accepts(&postgres));
    wait_until("their data goes too", || folders().iter().all(|folder| before.contains(folder)));
}

#[test]
fn a_cluster_goes_on_without_one_node_and_takes_it_back() {
    let options =
        ClusterOptions { listeners: vec!["GUESTS".to_owned()], disk_mb: Some(192), ..ClusterOptions::default() };
    let mut cluster = Cluster::plan(options).unwrap();
    cluster.start().unwrap();
    let guests: Vec<String> = cluster.bootstrap("GUESTS").split(',').map(str::to_owned).collect();
    assert!(guests.len() == NODES && guests.iter().all(|address| accepts(address)));
    let lost = cluster.controller().unwrap();
    assert_eq!(guests[lost], cluster.listener(lost, "GUESTS").to_string());
    cluster.kill(lost).unwrap();
    wait_until("another controller", || cluster.controller().is_some_and(|now| now != lost));
    cluster.restart(lost).unwrap();
    assert!((0..NODES).all(|node| cluster.serves(node)));

    // A broker ends that can write no more; with room again it comes back.
    if cluster.fill_disk(lost).unwrap() {
        cluster.stop(lost).unwrap();
        assert!(cluster.restart(lost).is_err(), "there is no room to start in");
        cluster.free_disk(lost).unwrap();
        cluster.restart(lost).unwrap();
        assert!(cluster.serves(lost));
    }
}
