//! Chaos, as a program: a whole installation of Mailtide under a seeded plan of faults, and then an independent count.
//!
//! [`Run`] starts three brokers (three replicas, two of which make a write), Postgres, a simulated Gmail and eleven
//! processes of the program ([`CREW`]), each with ways of its own to all that it depends on. While a load goes on, the
//! faults of the [`plan`] come one after the other; then all is left in peace until it has settled, and the [`checker`],
//! which shares no code with the services, compares what was owed with what is there. The program is known from outside
//! only: its commands, its API, its topics and its tables.

mod api;
pub mod checker;
mod crew;
mod kind;
mod ledger;
mod load;
pub mod plan;
pub mod records;
mod report;
mod run;
mod sabotage;
mod strike;
mod world;

pub use crew::{CREW, Dependency, Member, clock_library};
pub use report::{Outcome, Report, Struck};
pub use run::{Options, Run};
pub use sabotage::Damage;
