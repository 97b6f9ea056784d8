//! `mailtide lag` and the scheduler's metric: records, not offsets.

use std::collections::BTreeMap;
use std::process::Stdio;

use kafka::reader::TopicPartition;
use kafka::topics::{Topic, Topics};
use kafka::{Headers, OutRecord, SoleWriter};
use serde_json::{Value, json};
use store::projection::READER;

use crate::cli::command;
use crate::support::{LONG, Place, wait_until};

async fn lag(place: &Place, arguments: &[&str]) -> Value {
    let mut command = command(place, &[&["lag", "--json"], arguments].concat());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = tokio::time::timeout(LONG, command.output()).await.expect("it comes to an end").unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_behind_by_the_records_that_it_has_not_read() {
    let place = Place::new("lag");
    let kafka = kafka::Settings::read(&mut place.source());
    let names = Topics::new(&kafka.topic_prefix);
    kafka::topics::create(&kafka, &names, &Topic::ALL).await.unwrap();
    let topic = names.name(Topic::Discovered).clone();
    let (on, name, status) = (kafka.clone(), topic.clone(), names.name(Topic::JobStatus).clone());
    let write = move || {
        let mut writer = SoleWriter::take_over(&on, "tests").unwrap();
        // Two transactions of five records in each partition: each ends with a mark that is no record.
        for round in 0..2 {
            let record = |number| OutRecord::new(&name, "key", format!("{round}/{number}"), Headers::new());
            let records: Vec<OutRecord> =
                (0..4).flat_map(|partition| (0..5).map(move |it| record(it).to_partition(partition))).collect();
            writer.commit(&records).unwrap();
        }
        let statuses: Vec<OutRecord> =
            (0..7).map(|it| OutRecord::new(&status, format!("job-{it}"), "no status", Headers::new())).collect();
        writer.commit(&statuses).unwrap();
    };
    tokio::task::spawn_blocking(write).await.unwrap();
    let group = place.topic("ap");
    let at = |partition: i32| TopicPartition { topic: topic.clone(), partition };
    // All of 0, half of 1, nothing of 2; 3 was never committed. The last record of a partition is at offset 10.
    let stands = BTreeMap::from([(at(0), 11), (at(1), 6), (at(2), 0)]);
    kafka::groups::move_to(&kafka, &group, &stands).await.unwrap();

    let found = lag(&place, &["--group", &group, "--partitions"]).await;
    let lags: Vec<&Value> = found["groups"].as_array().unwrap().iter().map(|it| &it["lag"]).collect();
    assert_eq!(lags, [0, 5, 10, 10], "{found}");
    assert_eq!(found["groups"][1]["committed"], 6, "{found}");
    let all = lag(&place, &[]).await;
    let ours = all["groups"].as_array().unwrap().iter().find(|it| it["group"] == *group).unwrap();
    assert_eq!(*ours, json!({"group": group, "members": 0, "topic": *topic, "lag": 25}));

    let mut scheduler = place.service("scheduler", &["scheduler"]).set("MAILTIDE_SCHEDULER_LAG_INTERVAL", "1s");
    scheduler.start().ready().await;
    let url = format!("http://{}/metrics", scheduler.logged("Admin port open", "address").await);
    let says = async |group: &str, topic: &str, lag: u64| {
        let gauge = format!("mailtide_consumer_lag{{group=\"{group}\",topic=\"{topic}\"}}");
        wait_until(LONG, &format!("the metric says {lag}"), || async {
            let Ok(answer) = reqwest::get(&url).await else { return false };
            let text = answer.text().await.unwrap();
            text.lines().any(|line| line.strip_prefix(&gauge).is_some_and(|value| value.trim() == lag.to_string()))
        })
        .await;
    };
    for (stands, lag) in [(stands, 25), ((0..4).map(|partition| (at(partition), 11)).collect(), 0)] {
        kafka::groups::move_to(&kafka, &group, &stands).await.unwrap();
        says(&group, "gmail.message.discovered", lag).await;
    }
    // The projector, which stands in Postgres: it has not begun yet, then it has read everything.
    says(READER, "gmail.job.status", 7).await;
    let mut projector = place.service("projector", &["projector"]);
    projector.start();
    says(READER, "gmail.job.status", 0).await;
    let all = lag(&place, &[]).await;
    let stands = all["groups"].as_array().unwrap().iter().find(|it| it["group"] == READER).unwrap();
    assert_eq!(stands["lag"], 0, "{all}");
    assert_eq!((projector.stop(), scheduler.stop()), (0, 0));
}
