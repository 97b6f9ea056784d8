//! The lane: reads, works and writes exactly once.
//!
//! One thread owns one consumer (classic protocol, cooperative-sticky, committed reads) and one transactional
//! producer, and drives an [`App`]. A process runs one or more lanes, all in one group. What the lane promises:
//!
//! - The application sees a partition's records in order, after its state was rebuilt from what is committed.
//! - What the application puts out is written in one transaction with the input offsets of every partition that it
//!   belongs to. Either all of it is seen by those who read committed records, or none.
//! - Nothing of a partition that is not owned any more is ever published. Results and outputs carry the
//!   [`Assignment`] they were made under, and are dropped when that is over.
//! - A lane that was fenced, or does not know how a transaction ended, is dropped whole and built anew from what is
//!   committed.

mod app;
mod crew;
mod done;
mod error;
mod member;
mod meters;
mod outbox;
mod partitions;
mod restore;
mod sendings;
mod status;
mod supervise;
pub(crate) mod transaction;
mod tuning;
mod turn;

use std::sync::Arc;
use std::thread;

use tokio::sync::oneshot;

pub use app::{App, Assignment, NoState, Refused, Restore, Restored};
pub use crew::Crew;
pub use done::{DoneSender, LaneGone, LaneHandle};
pub use error::{Error, Failure};
pub use outbox::Outbox;
pub use status::{PartitionStatus, Phase, Status};
pub use tuning::{LaneSettings, Tuning};

use crate::settings::Settings;
use status::Shared;

/// A lane at work on its own thread. Dropping it stops it.
#[derive(Debug)]
pub struct Lane {
    shared: Arc<Shared>,
    ended: oneshot::Receiver<Result<(), Error>>,
    service: &'static str,
    lane: usize,
}

/// Starts a lane. `make_app` is called on the lane's thread for the first application and again each time that the
/// lane is built anew; what the old one had in flight is refused by its [`DoneSender`] from then on.
///
/// # Errors
/// When the settings contradict each other, or no thread can be started. All that goes wrong later is told by
/// [`Lane::ended`].
pub fn spawn<A, F>(settings: &Settings, lane: LaneSettings, make_app: F) -> Result<Lane, Error>
where
    A: App,
    F: FnMut(LaneHandle<A::Done>) -> A + Send + 'static,
{
    let problems = settings.lane.problems();
    if let Some((key, message)) = problems.first() {
        return Err(Error::Settings(format!("`{key}` {message}")));
    }
    let (LaneSettings { service, lane: number, .. }, settings) = (lane.clone(), settings.clone());
    let shared = Arc::new(Shared::new());
    let (sender, ended) = oneshot::channel();
    let watched = shared.clone();
    let run = move || {
        watched.attach();
        let result = supervise::Supervisor::new(settings, lane, watched, make_app).run();
        // Nobody may be waiting for it.
        let _ = sender.send(result);
    };
    thread::Builder::new().name(format!("lane-{service}-{number}")).spawn(run).map_err(|source| Error::Thread {
        service,
        lane: number,
        source,
    })?;
    Ok(Lane { shared, ended, service, lane: number })
}

impl Lane {
    /// How it fares, as of a moment ago.
    pub fn status(&self) -> Status {
        self.shared.status().clone()
    }

    /// A view of how it fares that outlives this.
    pub fn watch(&self) -> Watch {
        Watch(self.shared.clone())
    }

    /// Asks it to stop: what is pending is published, and the partitions are given up. [`Lane::ended`] tells when.
    pub fn stop(&self) {
        self.shared.stop();
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// When it was not stopped but gave up.
    pub async fn ended(&mut self) -> Result<(), Error> {
        let died = Error::Died { service: self.service, lane: self.lane };
        (&mut self.ended).await.unwrap_or(Err(died))
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

/// A view of how a lane fares.
#[derive(Debug, Clone)]
pub struct Watch(Arc<Shared>);

impl Watch {
    /// How it fares, as of a moment ago.
    pub fn status(&self) -> Status {
        self.0.status().clone()
    }
}
