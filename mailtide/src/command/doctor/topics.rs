//! The topics: whether they are there, and set as what reads and writes them relies on.

use kafka::survey::{Shape, Survey};
use kafka::topics::{Topic, Topics};

use super::finding::Finding;

const AREA: &str = "kafka";

/// What a topic has to take, in bytes: no record of ours is larger.
const LARGEST: i64 = 1_000_000;

/// Judges what the survey says of the topics.
pub(super) fn judge(survey: &Survey, names: &Topics) -> Vec<Finding> {
    let mut findings = Vec::new();
    let count = |topic: &Topic| survey.topics.get(topic).and_then(|shape| shape.as_ref().map(|it| it.partitions));
    let counts: Vec<i32> = Topic::CO_PARTITIONED.iter().filter_map(count).collect();
    if counts.iter().any(|count| *count != counts[0]) {
        let told =
            Topic::CO_PARTITIONED.iter().filter_map(|topic| Some(format!("{} {}", names.name(*topic), count(topic)?)));
        findings.push(Finding::fail(
            AREA,
            "partition counts",
            format!("a key has to lead to the same partition everywhere, but these differ: {}", told.collect::<Vec<_>>().join(", ")),
            "if a growth was broken off, run the same mailtide topics grow again, which goes on with it; else stop the services \
             and see what made the topics",
        ));
    }
    for (topic, shape) in &survey.topics {
        let name = names.name(*topic);
        match shape {
            None => findings.push(Finding::fail(
                AREA,
                format!("topic {name}"),
                "it does not exist",
                "run mailtide topics create",
            )),
            Some(shape) => findings.extend(one(*topic, name, shape, survey.brokers.len())),
        }
    }
    findings
}

fn one(topic: Topic, name: &str, shape: &Shape, brokers: usize) -> Vec<Finding> {
    let check = || format!("topic {name}");
    let alter = |setting: &str, value: &str| {
        format!("kafka-configs.sh --alter --entity-type topics --entity-name {name} --add-config {setting}={value}")
    };
    let mut findings = copies(name, shape, brokers);
    match &shape.settings {
        Err(why) => findings.push(Finding::warn(
            AREA,
            check(),
            format!("its settings cannot be seen: {why}"),
            "allow DescribeConfigs on the topic to look at them",
        )),
        Ok(set) => {
            let number = |name: &str| set.get(name).and_then(|value| value.parse::<i64>().ok());
            for (setting, wanted) in topic.config() {
                let Some(value) = set.get(setting).filter(|value| **value != wanted) else { continue };
                let found = format!("{setting} is {value} and should be {wanted}");
                let kept =
                    |value: &str| value.parse::<i64>().map_or(0, |millis| if millis < 0 { i64::MAX } else { millis });
                match setting {
                    "cleanup.policy" => findings.push(Finding::fail(
                        AREA,
                        check(),
                        format!(
                            "{found}: {}",
                            if wanted == "compact" {
                                "what is not written again in time is lost, and with it what it says"
                            } else {
                                "events under one key take each other's place"
                            }
                        ),
                        alter(setting, &wanted),
                    )),
                    "retention.ms" if kept(value) >= kept(&wanted) => {}
                    "retention.ms" => findings.push(Finding::warn(
                        AREA,
                        check(),
                        format!("{found}: what is older is gone, for whoever is behind and for replays"),
                        alter(setting, &wanted),
                    )),
                    _ => findings.push(Finding::warn(
                        AREA,
                        check(),
                        format!("{found}: more is read than need be when a partition changes hands"),
                        alter(setting, &wanted),
                    )),
                }
            }
            if let Some(bytes) = number("max.message.bytes").filter(|bytes| *bytes < LARGEST) {
                let found = format!("max.message.bytes is {bytes}: a record of ours may be larger");
                findings.push(Finding::fail(AREA, check(), found, alter("max.message.bytes", "1048588")));
            }
            if set.get("unclean.leader.election.enable").is_some_and(|value| value == "true") {
                let found = "unclean.leader.election.enable is true: what was acknowledged may be lost with a leader";
                findings.push(Finding::warn(AREA, check(), found, alter("unclean.leader.election.enable", "false")));
            }
            if let Some(least) = number("min.insync.replicas") {
                findings.extend(in_sync(name, shape, least, &alter));
            }
        }
    }
    if findings.is_empty() {
        let found = format!(
            "{} partitions, {} copies, all in sync and set as they should be",
            shape.partitions, shape.replicas
        );
        findings.push(Finding::ok(AREA, check(), found));
    }
    findings
}

/// Whether there are enough copies, and somebody leads.
fn copies(name: &str, shape: &Shape, brokers: usize) -> Vec<Finding> {
    let check = || format!("topic {name}");
    let mut findings = Vec::new();
    if !shape.leaderless.is_empty() {
        let found =
            format!("nobody leads partitions {}: they can be neither read nor written", listed(&shape.leaderless));
        findings.push(Finding::fail(AREA, check(), found, "bring the brokers back that have copies of them"));
    }
    if !shape.behind.is_empty() {
        let found = format!("of partitions {} not every copy is in sync", listed(&shape.behind));
        findings.push(Finding::warn(
            AREA,
            check(),
            found,
            "bring the brokers back that have the others, and let them catch up",
        ));
    }
    let wanted = brokers.min(3);
    if shape.replicas < wanted {
        let found = format!("{} copies, of {brokers} brokers: what is on a disk that is lost is gone", shape.replicas);
        let remedy = format!(
            "give it {wanted} by kafka-reassign-partitions.sh; kafka.replication_factor is for topics to be made"
        );
        findings.push(Finding::warn(AREA, check(), found, remedy));
    }
    findings
}

/// Whether as many copies are in sync as a write needs, and whether one can be missed.
fn in_sync(name: &str, shape: &Shape, least: i64, alter: &dyn Fn(&str, &str) -> String) -> Option<Finding> {
    let check = format!("topic {name}");
    let (least, replicas) = (usize::try_from(least).unwrap_or(1), shape.replicas);
    if least > shape.in_sync {
        let found =
            format!("min.insync.replicas is {least} and only {} are in sync: every write is refused", shape.in_sync);
        let remedy = if least > replicas {
            alter("min.insync.replicas", &replicas.saturating_sub(1).max(1).to_string())
        } else {
            "bring the brokers back that have the others".to_owned()
        };
        return Some(Finding::fail(AREA, check, found, remedy));
    }
    if replicas > 1 && least == replicas {
        let found =
            format!("min.insync.replicas is {least} of {replicas} copies: one broker that is away stops every write");
        return Some(Finding::warn(AREA, check, found, alter("min.insync.replicas", &(replicas - 1).to_string())));
    }
    if replicas > 2 && least == 1 {
        let found = format!("min.insync.replicas is 1 of {replicas} copies: what only one broker has is lost with it");
        return Some(Finding::warn(AREA, check, found, alter("min.insync.replicas", "2")));
    }
    None
}

fn listed(numbers: &[i32]) -> String {
    let shown: Vec<String> = numbers.iter().take(10).map(ToString::to_string).collect();
    let more = if numbers.len() > shown.len() { ", …" } else { "" };
    format!("{}{more}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::finding::State;
    use super::*;

    fn shape(topic: Topic) -> Shape {
        let set = topic.config().into_iter().map(|(name, value)| (name.to_owned(), value));
        let set = set.chain([("min.insync.replicas".to_owned(), "2".to_owned())]);
        let (leaderless, behind) = (Vec::new(), Vec::new());
        Shape { partitions: 12, leaderless, replicas: 3, in_sync: 3, behind, settings: Ok(set.collect()) }
    }

    /// The worst that is found where one topic is otherwise than it should be.
    fn worst(topic: Topic, change: impl FnOnce(&mut Shape)) -> State {
        let mut topics: BTreeMap<Topic, Option<Shape>> =
            Topic::ALL.into_iter().map(|it| (it, Some(shape(it)))).collect();
        change(topics.get_mut(&topic).unwrap().as_mut().unwrap());
        let broker = |id| kafka::survey::Broker { id, place: format!("b{id}:9092"), settings: Ok(BTreeMap::new()) };
        let survey = Survey { brokers: (1..=3).map(broker).collect(), apis: BTreeMap::new(), topics };
        let findings = judge(&survey, &Topics::new("t."));
        findings.iter().map(|finding| finding.state).max().unwrap()
    }

    fn set(name: &'static str, value: &'static str) -> impl FnOnce(&mut Shape) {
        move |shape| drop(shape.settings.as_mut().unwrap().insert(name.to_owned(), value.to_owned()))
    }

    #[test]
    fn topics_are_judged_by_what_stands_on_them() {
        assert_eq!(worst(Topic::State, |_| {}), State::Ok);
        assert_eq!(worst(Topic::State, set("cleanup.policy", "delete")), State::Fail);
        assert_eq!(worst(Topic::Poll, set("cleanup.policy", "compact")), State::Fail);
        assert_eq!(worst(Topic::Discovered, set("retention.ms", "1000")), State::Warn);
        assert_eq!(worst(Topic::Discovered, set("retention.ms", "-1")), State::Ok, "for ever is long enough");
        assert_eq!(worst(Topic::State, set("segment.bytes", "1073741824")), State::Warn);
        assert_eq!(worst(Topic::Fetched, set("max.message.bytes", "1000")), State::Fail);
        assert_eq!(worst(Topic::Fetched, set("unclean.leader.election.enable", "true")), State::Warn);
        for (least, state) in [("1", State::Warn), ("3", State::Warn), ("4", State::Fail)] {
            assert_eq!(worst(Topic::State, set("min.insync.replicas", least)), state, "{least}");
        }
        assert_eq!(worst(Topic::State, |shape| shape.in_sync = 1), State::Fail);
        assert_eq!(
            worst(Topic::State, |shape| (shape.replicas, shape.in_sync) = (1, 1)),
            State::Fail,
            "a write needs two"
        );
        assert_eq!(worst(Topic::State, |shape| shape.behind = vec![3]), State::Warn);
        assert_eq!(worst(Topic::State, |shape| shape.leaderless = vec![3]), State::Fail);
        assert_eq!(worst(Topic::State, |shape| shape.partitions = 6), State::Fail);
        assert_eq!(worst(Topic::JobStatus, |shape| shape.partitions = 6), State::Ok, "its keys are others");
        assert_eq!(worst(Topic::State, |shape| shape.settings = Err("no".to_owned())), State::Warn);
    }
}
