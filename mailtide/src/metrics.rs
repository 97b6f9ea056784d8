//! All metrics of all services: what is described to Prometheus, and what `docs/metrics.md` lists.

use runtime::metric::Metric;

/// Each part with its metrics.
pub(crate) const CATALOGUE: &[(&str, &[Metric])] = &[
    ("Every process", runtime::metric::ALL),
    ("ingress", ingress::METRICS),
    ("scheduler", scheduler::METRICS),
    ("poller", poller::METRICS),
    ("fetcher", fetcher::METRICS),
    ("projector", projector::METRICS),
    ("Whoever calls Gmail (poller, fetcher, ingress)", gmail::METRICS),
    ("Whoever speaks to Kafka", kafka::METRICS),
];

/// Tells the recorder in force what each means.
pub(crate) fn describe() {
    CATALOGUE.iter().flat_map(|(_, metrics)| *metrics).for_each(Metric::describe);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fmt::Write as _;

    use runtime::metric::Kind;

    use super::*;

    const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
    const HEAD: &str = "# Metrics\n\n\
        Each process tells its metrics on `/metrics` of its admin port (`admin.address`), in Prometheus' text format. \
        Labels are bounded: no id of a mailbox, a job, a message or a customer is ever one. A series appears with its \
        first event. Alert rules over them are in [`docker/alerts.yaml`](../docker/alerts.yaml), with a page for each in \
        [runbook.md](runbook.md), a dashboard in [`docker/grafana/`](../docker/grafana).\n\n\
        Written by `UPDATE_GOLDEN=1 cargo test -p mailtide metrics` from what the services declare; a test scrapes \
        running services and holds it to that.\n";

    /// The page that lists every metric.
    fn page() -> String {
        let mut page = HEAD.to_owned();
        for (part, metrics) in CATALOGUE {
            let _ = write!(page, "\n## {part}\n\n| metric | kind | labels | meaning |\n|---|---|---|---|\n");
            for Metric { name, kind, help, labels } in *metrics {
                let labels = labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
                let _ = writeln!(page, "| `{name}` | {kind} | {labels} | {help} |");
            }
        }
        page
    }

    #[test]
    fn the_page_of_metrics_lists_what_is_declared() {
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(PAGE, page()).unwrap();
        } else {
            let written = std::fs::read_to_string(PAGE).unwrap();
            assert!(written == page(), "docs/metrics.md is not true; write it anew with UPDATE_GOLDEN=1");
        }
    }

    #[test]
    fn names_are_told_once_and_say_their_kind() {
        let mut names = BTreeSet::new();
        for metric in CATALOGUE.iter().flat_map(|(_, metrics)| *metrics) {
            assert!(names.insert(metric.name), "{} is declared twice", metric.name);
            assert!(metric.name.starts_with("mailtide_"), "{}", metric.name);
            assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter, "{}", metric.name);
            assert!(!metric.help.is_empty() && !metric.help.ends_with('.'), "{}: {}", metric.name, metric.help);
        }
    }
}
