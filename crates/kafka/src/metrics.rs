//! What this crate counts. Labels are bounded: a service, the number of a lane or a partition, an outcome.

use runtime::metric::Metric;

pub(crate) const TRANSACTIONS: Metric = Metric::counter(
    "mailtide_lane_transactions_total",
    &["service", "lane", "outcome"],
    "Transactions: `committed`, `aborted` or `fenced`",
);
pub(crate) const TRANSACTION_SECONDS: Metric = Metric::histogram(
    "mailtide_lane_transaction_seconds",
    &["service", "lane"],
    "From the begin of a transaction to its commit",
);
pub(crate) const TRANSACTION_RECORDS: Metric =
    Metric::histogram("mailtide_lane_transaction_records", &["service", "lane"], "Records of a committed transaction");
pub(crate) const RESTARTS: Metric = Metric::counter(
    "mailtide_lane_restarts_total",
    &["service", "lane"],
    "Lanes dropped and built anew from what is committed",
);
pub(crate) const RECORDS_READ: Metric =
    Metric::counter("mailtide_lane_records_read_total", &["service", "lane"], "Records read from the input");
pub(crate) const DROPPED: Metric = Metric::counter(
    "mailtide_lane_stale_dropped_total",
    &["service", "lane"],
    "Outputs and results dropped because their assignment was over",
);
pub(crate) const RESTORING: Metric = Metric::gauge(
    "mailtide_lane_partitions_restoring",
    &["service", "lane"],
    "Partitions whose state is being rebuilt",
);
pub(crate) const OPEN: Metric =
    Metric::gauge("mailtide_lane_partitions_open", &["service", "lane"], "Partitions that are being worked on");
pub(crate) const RESTORED_RECORDS: Metric = Metric::counter(
    "mailtide_lane_restored_records_total",
    &["service", "lane"],
    "Records read while rebuilding state",
);
pub(crate) const RESTORE_SECONDS: Metric =
    Metric::histogram("mailtide_lane_restore_seconds", &["service", "lane"], "Rebuilding a partition's state");
pub(crate) const LAG: Metric = Metric::gauge(
    "mailtide_lane_input_lag",
    &["service", "partition"],
    "Records of the input not yet committed, as last seen",
);
pub(crate) const PRODUCED: Metric = Metric::counter(
    "mailtide_producer_records_total",
    &["outcome"],
    "Records handed to the producer: `delivered`, `failed` or `refused`",
);
pub(crate) const QUEUE_RECORDS: Metric =
    Metric::gauge("mailtide_kafka_queue_records", &["client"], "Records in a producer's queue, as librdkafka says");
pub(crate) const QUEUE_BYTES: Metric =
    Metric::gauge("mailtide_kafka_queue_bytes", &["client"], "Bytes in a producer's queue, as librdkafka says");
pub(crate) const BROKERS_CONNECTED: Metric =
    Metric::gauge("mailtide_kafka_brokers_connected", &["client"], "Brokers that a client is connected to");
pub(crate) const BROKER_ROUND_TRIP: Metric = Metric::gauge(
    "mailtide_kafka_broker_round_trip_seconds",
    &["client", "broker"],
    "99th percentile of a request's round trip to a broker in the last seconds; a fetch may wait there for records",
);
pub(crate) const BROKER_TIMEOUTS: Metric = Metric::counter(
    "mailtide_kafka_broker_timeouts_total",
    &["client", "broker"],
    "Requests that a broker did not answer in time",
);
pub(crate) const BROKER_ERRORS: Metric = Metric::counter(
    "mailtide_kafka_broker_errors_total",
    &["client", "broker"],
    "Transmissions to and from a broker that failed",
);

/// All of them.
pub const ALL: &[Metric] = &[
    TRANSACTIONS,
    TRANSACTION_SECONDS,
    TRANSACTION_RECORDS,
    RESTARTS,
    RECORDS_READ,
    DROPPED,
    RESTORING,
    OPEN,
    RESTORED_RECORDS,
    RESTORE_SECONDS,
    LAG,
    PRODUCED,
    QUEUE_RECORDS,
    QUEUE_BYTES,
    BROKERS_CONNECTED,
    BROKER_ROUND_TRIP,
    BROKER_TIMEOUTS,
    BROKER_ERRORS,
];
