//! The brokers: what they can do, and what they allow.

use std::collections::BTreeMap;
use std::time::Duration;

use kafka::survey::{
    ADD_PARTITIONS_TO_TXN, Api, INIT_PRODUCER_ID, JOIN_GROUP, OFFSET_FETCH, Survey, TXN_OFFSET_COMMIT,
};

use super::finding::Finding;

const AREA: &str = "kafka";

/// What a lane cannot do without: the request and the lowest version that will do.
const NEEDED: [(Api, i16, &str); 4] = [
    (TXN_OFFSET_COMMIT, 3, "offsets in transactions are fenced by the group's generation"),
    (OFFSET_FETCH, 7, "offsets of open transactions are waited for"),
    (INIT_PRODUCER_ID, 3, "an aborted transaction does not end its producer"),
    (JOIN_GROUP, 2, "groups rebalance by the classic protocol"),
];

/// Copies of what must not be lost, where there are so many brokers.
const COPIES: usize = 3;

/// Judges what the survey says of the brokers.
pub(super) fn judge(survey: &Survey, settings: &kafka::Settings) -> Vec<Finding> {
    let places: Vec<&str> = survey.brokers.iter().map(|broker| broker.place.as_str()).collect();
    let count = places.len();
    let mut findings = vec![if count >= COPIES {
        Finding::ok(AREA, "brokers", format!("{count} are there: {}", places.join(", ")))
    } else {
        let found = format!(
            "only {count} there ({}): one that is lost stops everything, or takes all with it",
            places.join(", ")
        );
        Finding::warn(AREA, "brokers", found, "run at least three, on hosts that do not fail together")
    }];
    findings.push(features(survey));
    for broker in &survey.brokers {
        match &broker.settings {
            Ok(set) => findings.extend(limits(broker.id, set, settings, count)),
            Err(why) => findings.push(Finding::warn(
                AREA,
                format!("settings of broker {}", broker.id),
                format!("they cannot be seen: {why}"),
                "start the broker, or allow DescribeConfigs on the cluster to look at them",
            )),
        }
    }
    findings
}

fn features(survey: &Survey) -> Finding {
    const CHECK: &str = "features";
    if survey.apis.is_empty() {
        let found = "the brokers did not say what they know";
        return Finding::warn(AREA, CHECK, found, "look at the brokers' version: 2.5 is the oldest that will do");
    }
    let lacking: Vec<&str> = NEEDED
        .iter()
        .filter(|(api, needed, _)| survey.version(*api).is_none_or(|version| version < *needed))
        .map(|(_, _, what)| *what)
        .collect();
    if !lacking.is_empty() {
        let found = format!("what exactly-once stands on is missing: {}", lacking.join("; "));
        return Finding::fail(AREA, CHECK, found, "upgrade the brokers: all this is in Apache Kafka 2.5 and later");
    }
    if survey.version(ADD_PARTITIONS_TO_TXN).is_none_or(|version| version < 4) {
        let found = "leaders do not ask whether a transaction is open: a record that comes late may make one hang";
        return Finding::warn(AREA, CHECK, found, "upgrade the brokers to Apache Kafka 4.0 or later (KIP-890)");
    }
    let what: Vec<&str> = NEEDED.iter().map(|(_, _, what)| *what).collect();
    Finding::ok(AREA, CHECK, format!("{}; leaders verify transactions", what.join("; ")))
}

/// What a broker allows, against what our settings ask for.
fn limits(id: i32, set: &BTreeMap<String, String>, settings: &kafka::Settings, count: usize) -> Vec<Finding> {
    let number = |name: &str| set.get(name).and_then(|value| value.parse::<i64>().ok());
    let millis = |span: Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
    let check = |name: &str| format!("{name} of broker {id}");
    let mut findings = Vec::new();
    let ours = millis(settings.lane.transaction_timeout);
    if let Some(most) = number("transaction.max.timeout.ms").filter(|most| *most < ours) {
        findings.push(Finding::fail(
            AREA,
            check("transaction.max.timeout.ms"),
            format!("{most}, and lane.transaction_timeout asks for {ours} ms: no lane can begin"),
            "raise the broker's setting, or lower lane.transaction_timeout",
        ));
    }
    let ours = millis(settings.lane.session_timeout);
    let (least, most) = (number("group.min.session.timeout.ms"), number("group.max.session.timeout.ms"));
    if least.is_some_and(|least| ours < least) || most.is_some_and(|most| ours > most) {
        let or = |number: Option<i64>| number.map_or_else(|| "unknown".to_owned(), |number| number.to_string());
        findings.push(Finding::fail(
            AREA,
            check("group.min.session.timeout.ms"),
            format!(
                "sessions of {} to {} ms are allowed, and lane.session_timeout asks for {ours}",
                or(least),
                or(most)
            ),
            "set lane.session_timeout within what the brokers allow",
        ));
    }
    let wanted = COPIES.min(count);
    for name in ["offsets.topic.replication.factor", "transaction.state.log.replication.factor"] {
        if let Some(copies) = number(name).filter(|copies| usize::try_from(*copies).is_ok_and(|copies| copies < wanted))
        {
            findings.push(Finding::warn(
                AREA,
                check(name),
                format!(
                    "{copies}, of {count} brokers: a broker that is lost takes groups' offsets or transactions with it"
                ),
                format!(
                    "set it to {wanted} before the topic is made; one that is there is given more copies by \
                         kafka-reassign-partitions.sh"
                ),
            ));
        }
    }
    /// A week: what is longer away begins where its state says, and reads what is kept from there.
    const KEPT: i64 = 7 * 24 * 60;
    if let Some(minutes) = number("offsets.retention.minutes").filter(|minutes| *minutes < KEPT) {
        findings.push(Finding::warn(
            AREA,
            check("offsets.retention.minutes"),
            format!("{minutes}: the offsets of a group that is stopped for longer are forgotten"),
            format!("set it to {KEPT} or more"),
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(AREA, format!("settings of broker {id}"), "they allow what our settings ask for"));
    }
    findings
}

#[cfg(test)]
mod tests {
    use kafka::survey::Broker;

    use super::super::finding::State;
    use super::*;

    fn survey(apis: &[(Api, i16)], set: &[(&str, &str)]) -> Survey {
        let set = set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Survey {
            brokers: (1..=3)
                .map(|id| Broker { id, place: format!("b{id}:9092"), settings: Ok(BTreeMap::clone(&set)) })
                .collect(),
            apis: apis.iter().map(|(api, version)| (api.key, *version)).collect(),
            topics: BTreeMap::new(),
        }
    }

    fn worst(survey: &Survey) -> State {
        let findings = judge(survey, &kafka::Settings::for_brokers("b1:9092"));
        assert!(findings.iter().all(|finding| (finding.state == State::Ok) == finding.remedy.is_none()));
        findings.iter().map(|finding| finding.state).max().unwrap()
    }

    const NEW: [(Api, i16); 5] =
        [(TXN_OFFSET_COMMIT, 5), (OFFSET_FETCH, 9), (INIT_PRODUCER_ID, 5), (JOIN_GROUP, 9), (ADD_PARTITIONS_TO_TXN, 5)];

    #[test]
    fn brokers_are_judged_by_what_a_lane_needs() {
        assert_eq!(worst(&survey(&NEW, &[])), State::Ok);
        assert_eq!(worst(&survey(&NEW[..4], &[])), State::Warn);
        for missing in 0..4 {
            let mut apis = NEW.to_vec();
            apis.remove(missing);
            assert_eq!(worst(&survey(&apis, &[])), State::Fail, "without {}", NEW[missing].0.name);
            let mut apis = NEW;
            apis[missing].1 = NEEDED.iter().find(|(api, ..)| *api == NEW[missing].0).unwrap().1 - 1;
            assert_eq!(worst(&survey(&apis, &[])), State::Fail, "with an old {}", NEW[missing].0.name);
        }
    }

    #[test]
    fn what_brokers_do_not_allow_is_told() {
        for (name, value, state) in [
            ("transaction.max.timeout.ms", "1000", State::Fail),
            ("transaction.max.timeout.ms", "900000", State::Ok),
            ("group.min.session.timeout.ms", "30000", State::Fail),
            ("group.max.session.timeout.ms", "1000", State::Fail),
            ("offsets.topic.replication.factor", "1", State::Warn),
            ("transaction.state.log.replication.factor", "3", State::Ok),
            ("offsets.retention.minutes", "1440", State::Warn),
        ] {
            assert_eq!(worst(&survey(&NEW, &[(name, value)])), state, "{name}={value}");
        }
    }
}
