//! One service in a process of its own.

use std::task::Poll;
use std::time::Duration;

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

/// How long a service may take to stop: with the last traces and tasks the process is gone within 10 s. What is cut off
/// then is as if it had been killed, which loses nothing.
const STOP: Duration = Duration::from_millis(8_500);

/// What ingress needs beside the time in which requests under way may end.
const UPKEEP: Duration = Duration::from_millis(500);

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
    let end = End { begun: &begun, shutdown: shutdown.clone(), limit: STOP };
    match service {
        Service::Ingress => {
            let Some(store) = wait_for(&settings, &begun, &shutdown).await? else { return Ok(()) };
            let orderly = settings.ingress.shutdown_delay + settings.ingress.drain_timeout + UPKEEP;
            let end = End { limit: STOP.max(orderly), ..end };
            let ingress = ingress::run(&settings.ingress, &settings.kafka, store, health, shutdown);
            end.of("ingress", Box::pin(ingress)).await
        }
        Service::Scheduler => {
            end.of("the scheduler", Box::pin(scheduler::run(settings.scheduler, health, shutdown))).await
        }
        Service::Poller => {
            let Some(store) = wait_for(&settings, &begun, &shutdown).await? else { return Ok(()) };
            let poller = poller::run(&settings.poller, &settings.kafka, &settings.gmail, store, health, shutdown);
            end.of("the poller", Box::pin(poller)).await
        }
        Service::Fetcher => {
            let Some(store) = wait_for(&settings, &begun, &shutdown).await? else { return Ok(()) };
            let fetcher = fetcher::run(&settings.fetcher, &settings.kafka, &settings.gmail, store, health, shutdown);
            end.of("the fetcher", Box::pin(fetcher)).await
        }
        Service::Projector => {
            end.of("the projector", Box::pin(projector::run(settings.projector, health, shutdown))).await
        }
        Service::Simulator => end.of("the simulator", Box::pin(simulator::run(settings.simulator, shutdown))).await,
    }
}

/// How a service comes to its end.
struct End<'a> {
    begun: &'a Check,
    shutdown: Shutdown,
    /// How long it may take once the stop is ordered.
    limit: Duration,
}

impl End<'_> {
    /// Runs a service. It has begun once it has run up to its first wait, and named what its readiness depends on. When
    /// the stop is ordered it is not ready any more, before anything else comes of the order.
    async fn of(self, what: &str, mut service: BoxFuture<'_, anyhow::Result<()>>) -> anyhow::Result<()> {
        let result = futures_util::poll!(&mut service);
        self.begun.pass();
        if let Poll::Ready(result) = result {
            return result;
        }
        let overdue = async {
            self.shutdown.requested().await;
            self.begun.fail("stopping");
            tokio::time::sleep(self.limit).await;
        };
        tokio::select! {
            biased;
            () = overdue => tracing::warn!(within = ?self.limit, "{what} did not stop in time, and is cut off"),
            ended = service => return ended,
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn end<'a>(begun: &'a Check, shutdown: &Shutdown) -> End<'a> {
        End { begun, shutdown: shutdown.clone(), limit: Duration::from_millis(20) }
    }

    #[tokio::test]
    async fn who_is_to_stop_is_not_ready_before_anything_else_happens() {
        let (health, shutdown) = (Health::new(), Shutdown::new());
        let begun = health.readiness("start");
        let of = health.clone();
        let stop = shutdown.clone();
        let service = Box::pin(async move {
            assert!(!of.not_ready().is_empty(), "it runs to its first wait before it counts as begun");
            tokio::task::yield_now().await;
            assert!(of.not_ready().is_empty());
            stop.request();
            stop.requested().await;
            // Whatever a service does first, there is a wait before it.
            tokio::task::yield_now().await;
            assert_eq!(of.not_ready()["start"], "stopping");
            Ok(())
        });
        end(&begun, &shutdown).of("it", service).await.unwrap();
    }

    #[tokio::test]
    async fn who_does_not_stop_is_cut_off() {
        let (health, shutdown) = (Health::new(), Shutdown::new());
        let begun = health.readiness("start");
        shutdown.request();
        end(&begun, &shutdown).of("it", Box::pin(std::future::pending())).await.unwrap();
        assert_eq!(health.not_ready()["start"], "stopping");
    }
}
