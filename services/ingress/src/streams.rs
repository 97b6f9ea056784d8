//! Jobs that are followed: one question to Postgres at a time for all streams of this process, however many there are.
//!
//! Asked for and not told: an instance that listened to the topic would need all of it, and would still have to wait for
//! the rows that a look-up shows. A follower holds the newest state of its job and nothing else, so what it has not read
//! yet is no more than one state.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::{JobId, OrganisationId};
use runtime::Shutdown;
use store::Store;
use store::jobs::Job;
use store::keys::KeyIdentity;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use uuid::Uuid;

use crate::problem::{Code, Problem};

/// Between two questions.
const TICK: Duration = Duration::from_millis(500);

/// After how many of them the keys are looked at: a revoked one's streams end within two seconds.
const TICKS_OF_KEYS: u32 = 4;

/// A job, and whose it is.
type Target = (OrganisationId, JobId);

/// Where a job's row stands: rows only ever move up.
pub(crate) type Mark = (i16, i64);

/// The mark of a row.
pub(crate) fn mark(job: &Job) -> Mark {
    (job.state.rank(), job.step)
}

/// All that is followed.
pub(crate) struct Streams {
    open: Arc<Semaphore>,
    each_key: usize,
    followed: Mutex<Followed>,
    first: Notify,
}

#[derive(Default)]
struct Followed {
    jobs: HashMap<Target, watch::Sender<Option<Arc<Job>>>>,
    /// Who takes a key out ends its streams.
    keys: HashMap<Uuid, (OrganisationId, watch::Sender<()>)>,
    is_closed: bool,
}

/// One stream's share. It counts until it is dropped.
pub(crate) struct Follower {
    /// The newest state of the job that was seen; closed when there will be no more.
    pub(crate) newest: watch::Receiver<Option<Arc<Job>>>,
    /// Closed when the key is revoked, and when the service stops.
    pub(crate) welcome: watch::Receiver<()>,
    _open: OwnedSemaphorePermit,
}

impl Streams {
    /// At most `all` streams, and `each_key` of one key.
    pub(crate) fn new(all: usize, each_key: usize) -> Self {
        let open = Arc::new(Semaphore::new(all));
        Self { open, each_key, followed: Mutex::default(), first: Notify::new() }
    }

    /// Follows a job.
    ///
    /// # Errors
    /// [`Code::TooManyStreams`] when the key follows as many as it may, [`Code::Overloaded`] when all together do.
    pub(crate) fn follow(&self, key: &KeyIdentity, job: JobId) -> Result<Follower, Problem> {
        let permit = Arc::clone(&self.open).try_acquire_owned().map_err(|_| Code::Overloaded)?;
        let mut followed = self.followed();
        if followed.is_closed {
            return Err(Code::Overloaded.into());
        }
        let (_, of_key) =
            followed.keys.entry(key.key_id).or_insert_with(|| (key.organisation_id, watch::Sender::new(())));
        if of_key.receiver_count() >= self.each_key {
            return Err(Code::TooManyStreams.into());
        }
        let welcome = of_key.subscribe();
        let newest = followed.jobs.entry((key.organisation_id, job)).or_default().subscribe();
        self.first.notify_one();
        Ok(Follower { newest, welcome, _open: permit })
    }

    /// Asks until shutdown is asked for, then ends all streams.
    pub(crate) async fn run(&self, store: &Store, shutdown: &Shutdown) {
        let mut ticks = 0u32;
        while !shutdown.is_requested() {
            let (jobs, keys) = self.wanted();
            if jobs.is_empty() {
                tokio::select! {
                    () = self.first.notified() => continue,
                    () = shutdown.requested() => break,
                }
            }
            self.tell(store, &jobs).await;
            if ticks.is_multiple_of(TICKS_OF_KEYS) {
                self.dismiss(store, &keys).await;
            }
            ticks = ticks.wrapping_add(1);
            tokio::select! {
                () = tokio::time::sleep(TICK) => {}
                () = shutdown.requested() => {}
            }
        }
        *self.followed() = Followed { is_closed: true, ..Followed::default() };
    }

    /// What is followed still, and by whom. What is not is forgotten.
    fn wanted(&self) -> (Vec<Target>, Vec<(OrganisationId, Uuid)>) {
        let mut followed = self.followed();
        followed.jobs.retain(|_, job| job.receiver_count() > 0);
        followed.keys.retain(|_, (_, key)| key.receiver_count() > 0);
        let keys = followed.keys.iter().map(|(key, (organisation, _))| (*organisation, *key));
        (followed.jobs.keys().copied().collect(), keys.collect())
    }

    /// Tells followers how their jobs stand.
    async fn tell(&self, store: &Store, jobs: &[Target]) {
        match store::jobs::find_many(store, jobs).await {
            Ok(found) => {
                let followed = self.followed();
                for job in found {
                    if let Some(newest) = followed.jobs.get(&(job.organisation_id, job.job_id)) {
                        newest.send_if_modified(|newest| {
                            let is_newer = newest.as_ref().is_none_or(|known| mark(known) < mark(&job));
                            if is_newer {
                                *newest = Some(Arc::new(job));
                            }
                            is_newer
                        });
                    }
                }
            }
            // Followers wait: their streams say that they live, and go on when Postgres is back.
            Err(error) => tracing::debug!(%error, jobs = jobs.len(), "Cannot look at the jobs that are followed"),
        }
    }

    /// Ends the streams of keys that were revoked.
    async fn dismiss(&self, store: &Store, keys: &[(OrganisationId, Uuid)]) {
        match store::keys::living(store, keys).await {
            Ok(living) => {
                let mut followed = self.followed();
                for (_, key) in keys.iter().filter(|(_, key)| !living.contains(key)) {
                    followed.keys.remove(key);
                }
            }
            Err(error) => tracing::debug!(%error, keys = keys.len(), "Cannot look at the keys that follow jobs"),
        }
    }

    fn followed(&self) -> MutexGuard<'_, Followed> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use store::keys::Scope;

    use super::*;

    fn key(number: u128) -> KeyIdentity {
        let organisation_id = OrganisationId::from_uuid(Uuid::from_u128(1));
        KeyIdentity { key_id: Uuid::from_u128(number), organisation_id, scopes: vec![Scope::Read] }
    }

    #[test]
    fn streams_are_counted_for_each_key_and_in_all_until_they_end() {
        let streams = Streams::new(3, 2);
        let follow = |number| streams.follow(&key(number), JobId::from_uuid(Uuid::from_u128(7)));
        let code = |refused: Result<Follower, Problem>| refused.map(drop).unwrap_err().code();
        let (one, _two) = (follow(1).unwrap(), follow(1).unwrap());
        assert_eq!(code(follow(1)), Code::TooManyStreams);
        let _three = follow(2).unwrap();
        assert_eq!(code(follow(2)), Code::Overloaded);
        drop(one);
        follow(1).unwrap();
        assert_eq!(streams.wanted().0.len(), 1, "one job, however many follow it");
    }
}
