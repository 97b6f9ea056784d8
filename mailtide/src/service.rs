//! One service in a process of its own.

use std::task::Poll;

use anyhow::Context;
use futures_util::future::BoxFuture;
use runtime::admin::Admin;
use runtime::health::{Check, Health};
use runtime::telemetry::Telemetry;
use runtime::{Backoff, Shutdown};
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
    /// Reads the messages.
    Fetcher,
    /// Keeps the jobs.
    Projector,
    /// The simulated Gmail.
    Simulator,
}

/// Runs the service and its admin port until shutdown, or until it fails. The admin port goes last.
pub(crate) async fn run(
    service: Service,
    settings: Settings,
    telemetry: Telemetry,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    let health = Health::new();
    // Before the port opens, so that nobody takes a service for ready whose parts have not said yet what they wait for.
    let begun = health.readiness("start");
    let _admin = Admin::start(&settings.admin, health.clone(), telemetry).await?;
    let is_ours = !matches!(service, Service::Simulator);
    if is_ours && !registered(&settings, |error| begun.fail(error.to_string()), &shutdown).await? {
        return Ok(());
    }
    match service {
        Service::Ingress => {
            let Some(store) = wait_for(&settings, &begun, &shutdown).await? else { return Ok(()) };
            running(Box::pin(ingress::run(&settings.ingress, &settings.kafka, store, health, shutdown)), &begun).await
        }
        Service::Scheduler => running(Box::pin(scheduler::run(settings.scheduler, health, shutdown)), &begun).await,
        Service::Poller => {
            let Some(store) = wait_for(&settings, &begun, &shutdown).await? else { return Ok(()) };
            let poller = poller::run(&settings.poller, &settings.kafka, &settings.gmail, store, health, shutdown);
            running(Box::pin(poller), &begun).await
        }
        Service::Fetcher => {
            let Some(store) = wait_for(&settings, &begun, &shutdown).await? else { return Ok(()) };
            let fetcher = fetcher::run(&settings.fetcher, &settings.kafka, &settings.gmail, store, health, shutdown);
            running(Box::pin(fetcher), &begun).await
        }
        Service::Projector => running(Box::pin(projector::run(settings.projector, health, shutdown)), &begun).await,
        Service::Simulator => running(Box::pin(simulator::run(settings.simulator, shutdown)), &begun).await,
    }
}

/// Runs a service. It has begun once it has run up to its first wait, and named what its readiness depends on.
async fn running(mut service: BoxFuture<'_, anyhow::Result<()>>, begun: &Check) -> anyhow::Result<()> {
    let result = futures_util::poll!(&mut service);
    begun.pass();
    match result {
        Poll::Ready(result) => result,
        Poll::Pending => service.await,
    }
}

/// Registers the schemas where a registry is set, before the first record is read or written. Waits while it is away, and
/// tells `waiting` why. False when the stop was ordered.
pub(crate) async fn registered(
    settings: &Settings,
    waiting: impl FnMut(&registry::Error),
    shutdown: &Shutdown,
) -> anyhow::Result<bool> {
    registry::register(&settings.registry, waiting, shutdown).await.context("registering the schemas")
}

/// The database with its schema up to date and its token keys checked; waits while it is away. None when the stop was
/// ordered.
async fn wait_for(settings: &Settings, begun: &Check, shutdown: &Shutdown) -> anyhow::Result<Option<Store>> {
    let mut backoff = Backoff::default();
    loop {
        let error = match open(settings).await {
            Ok(store) => match store.check_token_keys().await {
                Ok(()) => return Ok(Some(store)),
                Err(error) => error,
            },
            Err(error) => error,
        };
        if !error.is_unavailable() {
            return Err(error.into());
        }
        tracing::warn!(%error, "The service waits for Postgres");
        begun.fail(error.to_string());
        if !backoff.pause(shutdown).await {
            return Ok(None);
        }
    }
}

/// The database, with its schema up to date.
pub(crate) async fn open(settings: &Settings) -> Result<Store, store::Error> {
    let store = Store::connect(&settings.store)?;
    store.migrate().await?;
    Ok(store)
}
