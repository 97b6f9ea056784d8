//! What ingress does beside requests: it notes when keys were last used, and forgets idempotency keys in time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain::Timestamp;
use runtime::Shutdown;
use store::Store;
use store::idempotency::KEPT;
use store::keys::KeyIdentity;
use uuid::Uuid;

use crate::app::now;

/// How often the uses of keys are written: one statement for all of them.
const WRITE_USES: Duration = Duration::from_secs(5);

/// How often idempotency keys are swept, and how many at a time.
const SWEEP: Duration = Duration::from_secs(300);
const SWEPT_AT_A_TIME: u32 = 10_000;

/// The keys used since their use was last written. A key counts once each time that it is looked up, which is every few
/// seconds while it is busy; its requests cost nothing.
#[derive(Debug, Default)]
pub(crate) struct Uses {
    noted: Mutex<HashMap<Uuid, (KeyIdentity, Timestamp)>>,
}

impl Uses {
    /// Keys that are noted at most while Postgres does not take them.
    const MOST: usize = 100_000;

    /// Notes that a key was used.
    pub(crate) fn note(&self, key: &KeyIdentity, at: Timestamp) {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.len() < Self::MOST || noted.contains_key(&key.key_id) {
            noted.insert(key.key_id, (key.clone(), at));
        }
    }

    /// Writes what was noted; keeps it for the next time when that fails.
    async fn write(&self, store: &Store) {
        let noted = std::mem::take(&mut *self.noted.lock().unwrap_or_else(PoisonError::into_inner));
        if noted.is_empty() {
            return;
        }
        let uses: Vec<_> = noted.into_values().collect();
        if let Err(error) = store::keys::record_use(store, &uses).await {
            tracing::debug!(%error, keys = uses.len(), "Cannot note the use of API keys yet");
            for (key, at) in uses {
                let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
                noted.entry(key.key_id).or_insert((key, at));
            }
        }
    }
}

/// Does all of it until shutdown is asked for, and the noting once more then.
pub(crate) async fn run(store: Store, uses: Arc<Uses>, shutdown: Shutdown) {
    let mut write_uses = tokio::time::interval(WRITE_USES);
    let mut sweep = tokio::time::interval(SWEEP);
    loop {
        tokio::select! {
            _ = write_uses.tick() => uses.write(&store).await,
            _ = sweep.tick() => sweep_idempotency_keys(&store).await,
            () = shutdown.requested() => break,
        }
    }
    uses.write(&store).await;
}

async fn sweep_idempotency_keys(store: &Store) {
    let before = now() - KEPT;
    loop {
        match store::idempotency::sweep(store, before, SWEPT_AT_A_TIME).await {
            Ok(swept) if swept == u64::from(SWEPT_AT_A_TIME) => {}
            Ok(_) => return,
            Err(error) => {
                tracing::warn!(%error, "Cannot sweep idempotency keys; they are tried again later");
                return;
            }
        }
    }
}
