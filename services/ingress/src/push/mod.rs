//! Pushes of Gmail's: "something changed in this mailbox", through Cloud Pub/Sub, at least once, in no order.
//!
//! A push only ever means "look soon, and once more a little later": what it says of the mailbox is never believed. It
//! is answered when Kafka has a command that was written after it came, so that none is lost by a crash; the second
//! look is a courtesy to mail that shows late, and a crash may lose it.

mod notice;
mod settings;
mod turns;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::HeaderValue;
use axum::http::header::WWW_AUTHENTICATE;
use domain::{PollGmailConnection, Timestamp, Trigger};
use events::TraceParent;
use gmail::oidc::{Refused, Verifier};
use store::connections::{self, Due};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

pub(crate) use notice::Notice;
pub use settings::Settings;
use turns::{Turn, Turns};

use crate::app::{App, database_problem, new_job_id, now};
use crate::known::Known;
use crate::metrics;
use crate::problem::{Code, Problem};

const CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer");
/// Connections of one address that are told: one for each organisation that has it.
const MOST_OF_AN_ADDRESS: u32 = 100;
/// Second looks that wait at most; more are left out.
const WAITING: usize = 100_000;
/// Second looks that are written at the same time.
const AT_ONCE: usize = 64;
/// How long second looks may take to be written when the service stops.
const STOPPING: Duration = Duration::from_secs(5);

/// Takes pushes.
pub(crate) struct Pushes {
    told: Arc<Told>,
    verifier: Verifier,
    addresses: Known<String, Arc<[Due]>>,
    waiting: mpsc::Sender<Again>,
    again_after: Duration,
    hurry: watch::Sender<bool>,
    again: Mutex<Option<JoinHandle<()>>>,
}

/// What writes commands.
struct Told {
    app: Arc<App>,
    turns: Turns,
    job_deadline: domain::Duration,
}

/// A second look that is to come.
struct Again {
    at: Instant,
    due: Due,
    turn: Arc<Turn>,
}

impl Pushes {
    /// None where the settings take no pushes. Starts the task of the second looks.
    ///
    /// # Errors
    /// When the HTTP library does not start.
    pub(crate) fn new(settings: &crate::Settings, app: &Arc<App>) -> Result<Option<Arc<Self>>, gmail::Error> {
        let push = &settings.push;
        let Some(expected) = &push.expected else { return Ok(None) };
        let job_deadline = i64::try_from(push.job_deadline.as_millis()).unwrap_or(i64::MAX);
        let told = Arc::new(Told {
            app: Arc::clone(app),
            turns: Turns::new(settings.cache_entries, push.spacing),
            job_deadline: domain::Duration::from_millis(job_deadline),
        });
        let (waiting, queue) = mpsc::channel(WAITING);
        let (hurry, hurried) = watch::channel(false);
        let again = tokio::spawn(look_again(Arc::clone(&told), queue, waiting.downgrade(), push.again_after, hurried));
        Ok(Some(Arc::new(Self {
            told,
            verifier: Verifier::new(expected)?,
            addresses: Known::new(settings.cache_entries, settings.cache_ttl),
            waiting,
            again_after: push.again_after,
            hurry,
            again: Mutex::new(Some(again)),
        })))
    }

    /// Whether `token` is the subscription's.
    ///
    /// # Errors
    /// 401 when it is not, 503 while nobody can say.
    pub(crate) async fn authenticate(&self, token: Option<&str>) -> Result<(), Problem> {
        let outcome = match token {
            Some(token) => self.verifier.verify(token).await,
            None => Err(Refused::Token("no token")),
        };
        outcome.map_err(|refused| {
            tracing::debug!(%refused, "A push is refused");
            match refused {
                Refused::Token(_) => {
                    metrics::pushed("refused");
                    // A 401 names the way to authenticate (RFC 9110 §15.5.2).
                    Problem::from(Code::PushTokenInvalid).with_header(WWW_AUTHENTICATE, CHALLENGE)
                }
                Refused::KeysAway => {
                    metrics::pushed("keys_away");
                    Code::PushKeysUnavailable.into()
                }
            }
        })
    }

    /// Tells every living connection of the notice's address. Ends when Kafka has a command for each.
    ///
    /// # Errors
    /// 503 while Kafka or Postgres are away.
    pub(crate) async fn take(&self, notice: Notice, trace: TraceParent) -> Result<(), Problem> {
        let store = &self.told.app.store;
        let address = notice.address.clone();
        let ask = async {
            let found = connections::of_address(store, &address, MOST_OF_AN_ADDRESS).await?;
            Ok((!found.is_empty()).then(|| Arc::from(found)))
        };
        let found = self.addresses.get(notice.address, ask).await.map_err(|error| {
            metrics::pushed("failed");
            database_problem(&error)
        })?;
        // Nothing tells a stranger's address from one that is not to be synced now.
        let active = |due: &&Due| due.state == domain::ConnectionState::Active;
        let told = found.iter().flat_map(|found| found.iter()).filter(active).map(|due| self.tell(*due, trace));
        let told = futures_util::future::join_all(told).await;
        metrics::pushed(match &told[..] {
            [] => "unknown",
            told if told.iter().any(Result::is_err) => "failed",
            _ => "told",
        });
        told.into_iter().collect()
    }

    async fn tell(&self, due: Due, trace: TraceParent) -> Result<(), Problem> {
        let turn = self.told.turns.of(due.connection_id);
        if self.told.write(&turn, due, trace, "first").await? && !turn.again.swap(true, Ordering::AcqRel) {
            let again = Again { at: Instant::now() + self.again_after, due, turn };
            if let Err(error) = self.waiting.try_send(again) {
                error.into_inner().turn.again.store(false, Ordering::Release);
                tracing::warn!("More second looks wait than may; one is left out");
            }
        }
        Ok(())
    }

    /// Writes the second looks that wait, now: nobody will later.
    pub(crate) async fn stop(&self) {
        // The task looks at the flag only.
        self.hurry.send_replace(true);
        let task = self.again.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task
            && tokio::time::timeout(STOPPING, task).await.is_err()
        {
            tracing::warn!("Second looks after pushes were given up, for Kafka did not take them in time");
        }
    }
}

impl Told {
    /// Writes a command, in the mailbox's turn; false when another did.
    async fn write(&self, turn: &Turn, due: Due, trace: TraceParent, kind: &'static str) -> Result<bool, Problem> {
        let write = async || {
            let command = self.command(due, now());
            self.app.produce(&command, trace).await?;
            metrics::push_command(kind);
            Ok(())
        };
        self.turns.take(turn, write).await
    }

    fn command(&self, due: Due, now: Timestamp) -> PollGmailConnection {
        PollGmailConnection {
            job_id: new_job_id(now),
            organisation_id: due.organisation_id,
            connection_id: due.connection_id,
            trigger: Trigger::Push,
            window: None,
            token_version: due.token_version,
            requested_at: now,
            deadline: now + self.job_deadline,
        }
    }
}

/// Writes second looks when their time comes; all at once when the service stops. A mailbox that is pushed again
/// meanwhile is looked at again after the last of its pushes.
async fn look_again(
    told: Arc<Told>,
    mut queue: mpsc::Receiver<Again>,
    waiting: mpsc::WeakSender<Again>,
    after: Duration,
    mut hurried: watch::Receiver<bool>,
) {
    let mut writing = JoinSet::new();
    loop {
        let next = tokio::select! {
            next = queue.recv() => next,
            _ = hurried.wait_for(|hurried| *hurried), if !queue.is_closed() => {
                queue.close();
                continue;
            }
        };
        let Some(Again { at, due, turn }) = next else { break };
        let in_time = tokio::select! {
            () = tokio::time::sleep_until(at) => true,
            _ = hurried.wait_for(|hurried| *hurried) => false,
        };
        let pushed = turn.written().await.map(|written| written + after).filter(|&at| at > Instant::now());
        if let (true, Some(at), Some(waiting)) = (in_time, pushed, waiting.upgrade())
            && waiting.try_send(Again { at, due, turn: Arc::clone(&turn) }).is_ok()
        {
            continue;
        }
        turn.again.store(false, Ordering::Release);
        while writing.len() >= AT_ONCE {
            writing.join_next().await;
        }
        let told = Arc::clone(&told);
        writing.spawn(async move {
            let trace = TraceParent::new(rand::random(), rand::random());
            // What went wrong was logged; the next push or the schedule makes it good.
            let _ = told.write(&turn, due, trace, "again").await;
        });
        while writing.try_join_next().is_some() {}
    }
    writing.join_all().await;
}
