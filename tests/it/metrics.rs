//! What services export is what `docs/metrics.md` lists: kinds, labels and meanings, and nothing without a word there.

use std::collections::{BTreeMap, BTreeSet};

use crate::house::House;
use crate::support::{LONG, Service, wait_until};

/// A metric as the page lists it or as a service exports it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Family {
    kind: String,
    labels: BTreeSet<String>,
    has_help: bool,
}

/// What the page lists, by name.
fn listed() -> BTreeMap<String, Family> {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| `mailtide_"));
    rows.map(|row| {
        let cells: Vec<&str> = row.split(" | ").map(|cell| cell.trim_matches(['|', ' '])).collect();
        let labels = cells[2].split(", ").map(|label| label.trim_matches('`').to_owned());
        let labels = labels.filter(|label| !label.is_empty()).collect();
        let family = Family { kind: cells[1].to_owned(), labels, has_help: !cells[3].is_empty() };
        (cells[0].trim_matches('`').to_owned(), family)
    })
    .collect()
}

/// What an exposition says, by family (Prometheus' text format 0.0.4). Labels that the format itself adds are left out.
fn exported(text: &str) -> BTreeMap<String, Family> {
    let mut families = BTreeMap::<String, Family>::new();
    let mut helped = BTreeSet::new();
    let mut current = String::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            helped.insert(rest.split(' ').next().unwrap().to_owned());
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            name.clone_into(&mut current);
            families.entry(current.clone()).or_default().kind = kind.to_owned();
        } else {
            let name = line.split(['{', ' ']).next().unwrap();
            assert!(name.starts_with(current.as_str()), "{line} does not belong to {current}");
            let labels =
                line.split_once('{').and_then(|(_, rest)| rest.rsplit_once('}')).map_or("", |(labels, _)| labels);
            let names = labels.split("\",").filter_map(|label| label.split_once('=')).map(|(name, _)| name.to_owned());
            let names = names.filter(|name| name != "le" && name != "quantile");
            families.get_mut(&current).unwrap().labels.extend(names);
        }
    }
    for (name, family) in &mut families {
        family.has_help = helped.contains(name);
    }
    families
}

async fn scrape(address: &str) -> BTreeMap<String, Family> {
    exported(&reqwest::get(format!("http://{address}/metrics")).await.unwrap().text().await.unwrap())
}

#[tokio::test]
async fn what_services_export_is_what_the_page_lists() {
    let house = House::new("metrics").await;
    let mailbox = house.mailbox("one").await;
    mailbox.deliver(3);
    let mut services: BTreeMap<&str, Service> = ["ingress", "scheduler", "poller", "fetcher", "projector"]
        .into_iter()
        .map(|name| (name, house.process(name, name).set("MAILTIDE_KAFKA_LIBRDKAFKA_STATISTICS_INTERVAL_MS", "1000")))
        .collect();
    for service in services.values_mut() {
        service.start().ready().await;
    }
    house.api_is_at(&services.get_mut("ingress").unwrap().logged("API open", "address").await);
    house.sync(&mailbox).await;

    // What has to be there after one sync: the names a dashboard and an alert cannot do without.
    let expected: BTreeMap<&str, &[&str]> = [
        (
            "ingress",
            &["mailtide_http_requests_total", "mailtide_ingress_rows_total", "mailtide_kafka_brokers_connected"][..],
        ),
        ("scheduler", &["mailtide_scheduler_planned", "mailtide_scheduler_behind_seconds"]),
        (
            "poller",
            &[
                "mailtide_poller_discovered_total",
                "mailtide_poller_jobs_ended_total",
                "mailtide_poller_job_seconds",
                "mailtide_gmail_calls_total",
                "mailtide_gmail_units_total",
                "mailtide_gmail_budget_left_units",
                "mailtide_gmail_budget_limit_units",
                "mailtide_lane_transactions_total",
                "mailtide_lane_transaction_seconds",
                "mailtide_lane_input_lag",
                "mailtide_lane_partitions_open",
                "mailtide_lane_restore_seconds",
                "mailtide_kafka_broker_round_trip_seconds",
            ],
        ),
        ("fetcher", &["mailtide_fetcher_messages_total", "mailtide_fetcher_records_held"]),
        ("projector", &["mailtide_projector_records_total", "mailtide_projector_batch_seconds"]),
    ]
    .into();
    let listed = listed();
    assert!(listed.len() > 40, "the page is read wrongly: {listed:?}");
    for (name, service) in &mut services {
        let address = service.logged("Admin port open", "address").await;
        for metric in expected[name] {
            // Some of it comes with librdkafka's statistics, after a second.
            let there = || async { scrape(&address).await.contains_key(*metric) };
            wait_until(LONG, &format!("{name} exports {metric}"), there).await;
        }
        let exported = scrape(&address).await;
        for metric in ["mailtide_build_info", "mailtide_ready"] {
            assert!(exported.contains_key(metric), "{name} exports no {metric}");
        }
        for (metric, family) in exported {
            let said = listed.get(&metric).unwrap_or_else(|| panic!("{name} exports {metric}, which no page lists"));
            assert_eq!(family.kind, said.kind, "{metric}");
            assert!(family.has_help, "{name} exports {metric} without a meaning");
            assert!(family.labels.is_subset(&said.labels), "{name} exports {metric} with {:?}", family.labels);
        }
    }
    for service in services.values_mut() {
        assert_eq!(service.stop(), 0);
    }
}
