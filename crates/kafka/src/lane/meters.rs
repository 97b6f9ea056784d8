//! What a lane counts.

use metrics::{Counter, Gauge, Histogram};

use crate::lane::tuning::LaneSettings;
use crate::metrics as names;

/// The metrics of one lane.
pub(super) struct Meters {
    pub(super) committed: Counter,
    pub(super) aborted: Counter,
    pub(super) seconds: Histogram,
    pub(super) records: Histogram,
    pub(super) read: Counter,
    pub(super) dropped: Counter,
    pub(super) restoring: Gauge,
    pub(super) open: Gauge,
    pub(super) restored: Counter,
    pub(super) restore_seconds: Histogram,
}

impl Meters {
    pub(super) fn new(lane: &LaneSettings) -> Self {
        let labels = [("service", lane.service.to_owned()), ("lane", lane.lane.to_string())];
        let outcome = |outcome: &'static str| {
            metrics::counter!(names::TRANSACTIONS.name, "service" => lane.service, "lane" => lane.lane.to_string(),
                "outcome" => outcome)
        };
        Self {
            committed: outcome("committed"),
            aborted: outcome("aborted"),
            seconds: metrics::histogram!(names::TRANSACTION_SECONDS.name, &labels),
            records: metrics::histogram!(names::TRANSACTION_RECORDS.name, &labels),
            read: metrics::counter!(names::RECORDS_READ.name, &labels),
            dropped: metrics::counter!(names::DROPPED.name, &labels),
            restoring: metrics::gauge!(names::RESTORING.name, &labels),
            open: metrics::gauge!(names::OPEN.name, &labels),
            restored: metrics::counter!(names::RESTORED_RECORDS.name, &labels),
            restore_seconds: metrics::histogram!(names::RESTORE_SECONDS.name, &labels),
        }
    }
}

/// The gauge of how far a partition is behind.
pub(super) fn lag_gauge(service: &'static str, partition: i32) -> Gauge {
    metrics::gauge!(names::LAG.name, "service" => service, "partition" => partition.to_string())
}
