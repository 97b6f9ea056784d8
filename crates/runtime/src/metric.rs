//! The names of metrics and labels that services share.
//!
//! Label values come from small closed sets (a topic, a partition, an outcome): never an id of a
//! mailbox, a job or a message, so that the number of series does not grow with the customers.

/// Gauge, always 1: the version that runs, in [`label::VERSION`].
pub const BUILD_INFO: &str = "mailtide_build_info";

/// Gauge, 0 or 1: whether the readiness check named by [`label::CHECK`] passes.
pub const READY: &str = "mailtide_ready";

/// Names of labels.
pub mod label {
    /// The version of the program.
    pub const VERSION: &str = "version";
    /// The name a health check was registered by.
    pub const CHECK: &str = "check";
    /// A topic, without the prefix that settings add.
    pub const TOPIC: &str = "topic";
    /// A partition's number.
    pub const PARTITION: &str = "partition";
    /// How something ended, from a closed set.
    pub const OUTCOME: &str = "outcome";
}
