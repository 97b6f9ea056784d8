//! Whether a projector and a scheduler that do not turn are told from those that wait or have nothing to do. Of lanes:
//! [`crate::operate`].

use std::time::{Duration, Instant};

use kafka::topics::Topic;
use kafka::{Headers, OutRecord, Producer};
use reqwest::StatusCode;
use serde_json::Value;
use tokio_postgres::NoTls;

use crate::house::House;
use crate::support::{LONG, wait_until};

/// What fails at an admin port's `/livez`.
async fn failing(admin: &str) -> Value {
    let answer = reqwest::get(format!("http://{admin}/livez")).await.unwrap();
    let status = answer.status();
    let failing = answer.json::<Value>().await.unwrap()["failing"].clone();
    let is_well = failing.as_object().is_none_or(|failing| failing.is_empty());
    assert_eq!(status == StatusCode::OK, is_well, "{status}: {failing}");
    failing
}

async fn is_alive(admin: &str) -> bool {
    failing(admin).await.as_object().is_none_or(|failing| failing.is_empty())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projector_and_a_scheduler_that_are_stuck_are_told_from_idle_ones() {
    // A statement may take as long as it likes, and so no answer is no outage.
    let house = House::with("stuck", &[("MAILTIDE_DATABASE_STATEMENT_TIMEOUT", "10m")]).await;
    house.create_topics().await;
    let (mut projector, mut scheduler) =
        (house.process("projector", "projector"), house.process("scheduler", "scheduler"));
    let admins = [
        projector.start().ready().await.logged("Admin port open", "address").await,
        scheduler.start().ready().await.logged("Admin port open", "address").await,
    ];
    // Nothing to do, for longer than who does not turn is given.
    let until = Instant::now() + house.kafka("tests").lane.max_poll_interval + Duration::from_secs(2);
    while Instant::now() < until {
        for admin in &admins {
            assert!(is_alive(admin).await, "who has nothing to do is alive: {}", failing(admin).await);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    let schema = house.settings().get("MAILTIDE_DATABASE_SCHEMA").map_or("mailtide", String::as_str);
    let (database, connection) = tokio_postgres::connect(house.place.database_url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    let lock =
        format!("BEGIN; LOCK TABLE {schema}.projector_offsets, {schema}.schedule_watermarks IN ACCESS EXCLUSIVE MODE");
    database.batch_execute(&lock).await.unwrap();
    // Even what nobody can read moves the projection, which it now cannot.
    let producer = Producer::new(&house.kafka("tests"), "tests").unwrap();
    let record = OutRecord::new(house.topics().name(Topic::JobStatus), "key", "what nobody can read", Headers::new());
    producer.send(&record).await.unwrap();
    for (admin, check) in [(&admins[0], "projector-loop"), (&admins[1], "scheduler-loop")] {
        wait_until(LONG * 2, &format!("{check} is told to be stuck"), || async {
            failing(admin).await[check].as_str().is_some_and(|said| said.starts_with("no sign of life"))
        })
        .await;
    }
    database.batch_execute("ROLLBACK").await.unwrap();
    for admin in &admins {
        wait_until(LONG, "who goes on is alive", || is_alive(admin)).await;
    }
    assert_eq!((projector.stop(), scheduler.stop()), (0, 0));
}
