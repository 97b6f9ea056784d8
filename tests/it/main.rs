//! The integration tests: one binary, because librdkafka links slowly, on one real Kafka, one real
//! Postgres and one simulated Gmail, started when the first test needs them.
//!
//! Tests run side by side in this process. Each is alone by its [`support::Place`]: a prefix of the
//! topics' names and a database of its own.

#![expect(clippy::unwrap_used, reason = "in a test the panic is the message")]

mod house;
mod support;

mod accounts_payable;
mod attachments;
mod chaos;
mod cli;
mod content;
mod contract;
mod dead_letters;
mod delegation;
mod demo;
mod dependencies;
mod docker;
mod doctor;
mod fetcher;
mod fetcher_chaos;
mod fetcher_paths;
mod fetcher_turns;
mod gmail;
mod gmail_batch;
mod graves;
mod grow;
mod ingress;
mod lag;
mod lane;
mod lane_clients;
mod lane_crash;
mod lane_guards;
mod lane_process;
mod lane_support;
mod mailbox_faults;
mod mailbox_gmail;
mod metrics;
mod operate;
mod pipeline;
mod pipeline_handover;
mod pipeline_input;
mod projector;
mod push;
mod registry_tls;
mod replay;
mod scheduler;
mod secrets;
mod secure;
mod simulator;
mod stack;
mod state_restore;
mod store;
mod stuck;
mod tokens;
mod traces;
mod verify;
