//! The names of this crate's metrics. Labels are bounded: `service`, `lane`, `partition`, `outcome`.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// Transactions, by `service`, `lane` and `outcome` (`committed`, `aborted`, `fenced`).
pub const TRANSACTIONS: &str = "lane_transactions_total";
/// Seconds from the begin of a transaction to its commit, by `service` and `lane`.
pub const TRANSACTION_SECONDS: &str = "lane_transaction_seconds";
/// Records of a committed transaction, by `service` and `lane`.
pub const TRANSACTION_RECORDS: &str = "lane_transaction_records";
/// Lanes dropped and built anew, by `service` and `lane`.
pub const RESTARTS: &str = "lane_restarts_total";
/// Records read from the input, by `service` and `lane`.
pub const RECORDS_READ: &str = "lane_records_read_total";
/// Outputs and results dropped because their assignment was over, by `service` and `lane`.
pub const DROPPED: &str = "lane_stale_dropped_total";
/// Partitions whose state is being rebuilt, by `service` and `lane`.
pub const RESTORING: &str = "lane_partitions_restoring";
/// Partitions that are being worked on, by `service` and `lane`.
pub const OPEN: &str = "lane_partitions_open";
/// Records read while rebuilding state, by `service` and `lane`.
pub const RESTORED_RECORDS: &str = "lane_restored_records_total";
/// Seconds that rebuilding a partition's state took, by `service` and `lane`.
pub const RESTORE_SECONDS: &str = "lane_restore_seconds";
/// Records of the input not yet committed, by `service` and `partition`, as last seen.
pub const LAG: &str = "lane_input_lag";
/// Records handed to the producer, by `outcome` (`delivered`, `failed`, `refused`).
pub const PRODUCED: &str = "producer_records_total";

/// Describes all metrics to the recorder in force. To do it again changes nothing.
pub(crate) fn describe() {
    describe_counter!(TRANSACTIONS, "Transactions by outcome");
    describe_histogram!(TRANSACTION_SECONDS, Unit::Seconds, "From the begin of a transaction to its commit");
    describe_histogram!(TRANSACTION_RECORDS, "Records of a committed transaction");
    describe_counter!(RESTARTS, "Lanes dropped and built anew");
    describe_counter!(RECORDS_READ, "Records read from the input");
    describe_counter!(DROPPED, "Outputs and results dropped because their assignment was over");
    describe_gauge!(RESTORING, "Partitions whose state is being rebuilt");
    describe_gauge!(OPEN, "Partitions that are being worked on");
    describe_counter!(RESTORED_RECORDS, "Records read while rebuilding state");
    describe_histogram!(RESTORE_SECONDS, Unit::Seconds, "Rebuilding a partition's state");
    describe_gauge!(LAG, "Records of the input not yet committed");
    describe_counter!(PRODUCED, "Records handed to the producer, by outcome");
}
