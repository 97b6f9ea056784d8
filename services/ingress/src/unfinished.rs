//! Finishes what a crash or an outage broke off: first syncs that no broker acknowledged, deletions that left something
//! behind, consents that nobody came back from. Any number of instances may do so at once: every step may be repeated.

use std::sync::Arc;
use std::time::Duration;

use domain::Duration as Span;
use runtime::Shutdown;
use store::{connections, consents};

use crate::app::{App, now};
use crate::consent::Google;

/// How often it is looked.
const LOOK: Duration = Duration::from_secs(15);

/// What is younger is left to the request that works on it.
const GRACE: Span = Span::from_millis(60_000);

/// So many at a time.
const BATCH: u32 = 100;

/// Looks until shutdown is asked for.
pub(crate) async fn run(app: Arc<App>, google: Arc<Google>, shutdown: Shutdown) {
    while !shutdown.is_requested() {
        if let Err(error) = look(&app, &google, GRACE).await {
            tracing::warn!(%error, "What is unfinished waits for the database");
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = shutdown.requested() => {}
        }
    }
}

async fn look(app: &App, google: &Google, grace: Span) -> Result<(), store::Error> {
    let at = now();
    consents::sweep(&app.store, at).await?;
    for first in connections::first_syncs_owed(&app.store, at - grace, BATCH).await? {
        if app.start_first_sync(&first).await.is_ok() {
            tracing::info!(connection = %first.connection_id, "A first sync that was owed is begun");
        }
    }
    for leaving in connections::leaving(&app.store, at - grace, BATCH).await? {
        // What stands in the way was logged; the next look tries again.
        let _ = app.finish_deletion(google, &leaving).await;
    }
    Ok(())
}
