//! One service in a process of its own.

use runtime::Shutdown;
use runtime::health::{Admin, Health};
use runtime::telemetry::Metrics;
use store::Store;

use crate::settings::Settings;

/// What runs until it is told to stop.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Service {
    /// REST.
    Ingress,
    /// The 12-hour schedule.
    Scheduler,
    /// Walks the mailboxes.
    Poller,
    /// Keeps the jobs.
    Projector,
    /// The simulated Gmail.
    Simulator,
}

/// Runs the service and its admin port until shutdown, or until it fails. The admin port goes last.
pub(crate) async fn run(
    service: Service,
    settings: Settings,
    metrics: Metrics,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    let health = Health::new();
    let _admin = Admin::start(&settings.admin, health.clone(), metrics).await?;
    match service {
        Service::Ingress => {
            let store = open(&settings).await?;
            ingress::run(&settings.ingress, &settings.kafka, store, health, shutdown).await
        }
        Service::Scheduler => scheduler::run(settings.scheduler, health, shutdown).await,
        Service::Poller => {
            let store = open(&settings).await?;
            store.check_token_keys().await?;
            poller::run(&settings.poller, &settings.kafka, &settings.gmail, store, health, shutdown).await
        }
        Service::Projector => projector::run(settings.projector, health, shutdown).await,
        Service::Simulator => simulator::run(settings.simulator, shutdown).await,
    }
}

/// The database, with its schema up to date.
pub(crate) async fn open(settings: &Settings) -> anyhow::Result<Store> {
    let store = Store::connect(&settings.store)?;
    store.migrate().await?;
    Ok(store)
}
