//! A real Apache Kafka and a private Postgres, started for demo, tests and benchmarks.
//!
//! Whatever is started here ends with the process that started it, even when that one is killed,
//! and takes its data with it (see [`leash`]). `KAFKA_BOOTSTRAP_SERVERS` and `DATABASE_URL`, when
//! set, name a cluster and a server to use instead; nothing is started then.
//!
//! Everything here blocks. From async code call it on a thread that may.

mod acls;
mod cluster;
mod disk;
mod error;
mod jars;
mod kafka;
pub mod leash;
mod node;
mod port;
mod postgres;
mod probe;
mod progress;
mod secure;
mod sql;
mod tool;

pub use acls::Acl;
pub use cluster::{Cluster, ClusterOptions, NODES};
pub use error::Error;
pub use kafka::{Kafka, KafkaOptions};
pub use postgres::{Database, Postgres, PostgresOptions};
pub use secure::{Secure, Users};
