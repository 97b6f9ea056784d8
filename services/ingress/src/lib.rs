//! The REST surface: takes requests for syncs and Gmail's pushes, tells how jobs fare, and describes itself.
//!
//! It writes commands to `gmail.connection.poll` and rows of jobs just accepted to Postgres, and reads API keys,
//! connections and jobs from there. It talks to Google for consents and for attachments that somebody asks for, which it
//! passes on as they come, and never waits for a job.

mod api;
mod app;
mod body;
mod claims;
mod consent;
mod downloads;
mod filename;
mod guard;
mod idempotency;
mod known;
mod limits;
mod metrics;
mod outage;
mod problem;
mod push;
mod reference;
mod rows;
mod server;
mod settings;
mod stall;
mod streams;
mod unfinished;
mod upkeep;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use gmail::{Gate, Service};
use kafka::Producer;
use kafka::rights::{self, Role};
use kafka::topics::{self, Topic, Topics};
use runtime::Shutdown;
use runtime::health::{Check, Health};
use store::Store;
use tokio::net::TcpListener;

pub use metrics::ALL as METRICS;
pub use push::Settings as PushSettings;
pub use settings::Settings;

use crate::app::App;
use crate::consent::Google;
use crate::downloads::Downloads;
use crate::guard::Guarded;
use crate::outage::Outage;
use crate::push::Pushes;
use crate::server::Limits;
use crate::streams::Streams;
use crate::upkeep::Uses;

/// How often readiness is looked at anew.
const READINESS: Duration = Duration::from_secs(2);

/// The same while Postgres is away: what is remembered is used instead of asked for until it is known to be back.
const AWAY: Duration = Duration::from_millis(250);

/// The service, bound to its address and ready to serve.
pub struct Ingress {
    listener: TcpListener,
    guarded: Guarded,
    limits: Limits,
    /// How long connections are taken after shutdown was asked for.
    delay: Duration,
    store: Store,
    app: Arc<App>,
    google: Arc<Google>,
    uses: Arc<Uses>,
    streams: Arc<Streams>,
    outage: Arc<Outage>,
    ready: Check,
}

impl Ingress {
    /// Brings topics and schema up to date and binds the address.
    ///
    /// # Errors
    /// When Kafka or Postgres cannot be reached or are not as they should be, or the address cannot be bound.
    pub async fn start(
        settings: &Settings,
        kafka: &kafka::Settings,
        store: Store,
        health: &Health,
    ) -> anyhow::Result<Self> {
        let ready = health.readiness("ingress");
        let topics = Topics::new(&kafka.topic_prefix);
        rights::check(kafka, Role::Ingress).await?;
        topics::create(kafka, &topics, &Topic::ALL).await?;
        topics::check(kafka, &topics, &Topic::ALL).await?;
        store.migrate().await?;
        let producer = Producer::new(kafka, "ingress")?;
        let commands = topics.name(Topic::Poll).clone();
        let app = Arc::new(App::new(settings, producer, commands, store.clone()));
        let (uses, streams, outage) = (app.uses(), Arc::clone(&app.streams), Arc::clone(&app.outage));
        let pushes = Pushes::new(settings, &app)?;
        let listener = TcpListener::bind(settings.listen)
            .await
            .with_context(|| format!("binding the API to {}; choose another by ingress.listen", settings.listen))?;
        // One for all calls: the share of the quota is the service's.
        let gate = Gate::new(&settings.gmail, Service::Ingress);
        let google = Arc::new(Google::new(settings, listener.local_addr()?, gate.clone())?);
        let downloads = Arc::new(Downloads::new(settings, store.clone(), gate)?);
        let header = &settings.api_key_header;
        let router = api::router(Arc::clone(&app), Arc::clone(&google), downloads, header, pushes);
        Ok(Self {
            listener,
            guarded: Guarded::new(router, settings.max_in_flight, settings.request_timeout)
                .with_patience(settings.download_patience),
            limits: Limits {
                connections: settings.max_connections,
                header_timeout: settings.header_timeout,
                drain: settings.drain_timeout,
            },
            delay: settings.shutdown_delay,
            store,
            app,
            google,
            uses,
            streams,
            outage,
            ready,
        })
    }

    /// Where the API listens.
    ///
    /// # Errors
    /// When the system cannot tell.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until shutdown is asked for. From then on it is not ready, but it goes on for `ingress.shutdown_delay`: who
    /// spreads requests over instances learns of it a little later, and until then sends more. After that it takes no
    /// connection, and lets requests under way end, for at most `ingress.drain_timeout`.
    ///
    /// # Errors
    /// None that would end it; the signature is that of every service.
    pub async fn serve(self, shutdown: Shutdown) -> anyhow::Result<()> {
        tracing::info!(address = %self.address()?, "API open");
        let watch = tokio::spawn(watch_postgres(self.ready, self.store.clone(), self.outage, shutdown.clone()));
        let shutdown = later(shutdown, self.delay);
        let upkeep = tokio::spawn(upkeep::run(self.store.clone(), self.uses, shutdown.clone()));
        let unfinished = tokio::spawn(unfinished::run(self.app, self.google, shutdown.clone()));
        let streams = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { self.streams.run(&self.store, &shutdown).await }
        });
        server::serve(self.listener, self.guarded, self.limits, shutdown).await;
        watch.abort();
        unfinished.abort();
        upkeep.await.context("the upkeep panicked")?;
        streams.await.context("the task that follows jobs panicked")?;
        Ok(())
    }
}

/// Starts the service and runs it to its end.
///
/// # Errors
/// As [`Ingress::start`].
pub async fn run(
    settings: &Settings,
    kafka: &kafka::Settings,
    store: Store,
    health: Health,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    Ingress::start(settings, kafka, store, &health).await?.serve(shutdown).await
}

/// The same order, so much later.
fn later(shutdown: Shutdown, delay: Duration) -> Shutdown {
    let later = Shutdown::new();
    let order = later.clone();
    tokio::spawn(async move {
        shutdown.requested().await;
        tokio::time::sleep(delay).await;
        order.request();
    });
    later
}

/// Ready while Postgres answers, and not once the end has begun. Kafka is left out: without it the job reads still
/// work, and the sync call says for itself that it does not.
async fn watch_postgres(ready: Check, store: Store, outage: Arc<Outage>, shutdown: Shutdown) {
    while !shutdown.is_requested() {
        let answered = tokio::time::timeout(READINESS, store.ping()).await;
        let pause = match answered {
            Ok(Ok(())) => {
                outage.ended();
                ready.pass();
                READINESS
            }
            Ok(Err(error)) => {
                outage.went_on();
                ready.fail(error.to_string());
                AWAY
            }
            Err(_) => {
                outage.went_on();
                ready.fail(format!("Postgres has not answered within {READINESS:?}"));
                AWAY
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shutdown.requested() => {}
        }
    }
    ready.fail("stopping");
}
