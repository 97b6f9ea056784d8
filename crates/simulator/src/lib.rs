//! A faithful Gmail: the API v1 and Google's OAuth endpoints over real HTTP, for the demo and the tests.
//!
//! - The [mailbox](mailbox) is a pure model: messages, labels, threads and the history of their changes.
//! - HTTP is a thin edge around it: parameters, error envelopes and JSON as Google's front end has them.
//! - [`Control`] is what tests do to the world: make mailboxes, deliver, relabel, expire, move the clock. The same
//!   is offered over HTTP under `/control`.
//!
//! What Gmail is known to do, and by which source, is written where it is done. What is not known is a switch in
//! [`Behaviour`].

mod clock;
mod consent;
mod control;
mod error;
mod faults;
mod fields;
mod grant;
mod http;
mod import;
mod json;
mod jwt;
mod label;
mod mailbox;
mod mime;
mod push;
mod query;
mod quota;
mod scope;
mod seed;
mod settings;
mod synthetic;
mod watch;
mod world;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use runtime::Shutdown;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub use clock::Clock;
pub use consent::{OAuthClient, ServiceAccount};
pub use control::{Control, Created, Delivery, Error, Mails, NewMailbox, Spent, Truth, UsageReport};
pub use faults::{Fault, Latency, Refusal, Rule, ScenarioError};
pub use grant::Cause;
pub use import::{Error as ImportError, Imported, mbox, read as read_mail};
pub use jwt::Error as KeyError;
pub use label::Error as LabelError;
pub use mailbox::NoSuchMessage;
pub use push::{HistoryIdForm, Target};
pub use quota::{Limits, Method, Tariff};
pub use settings::{Ahead, Behaviour, Settings};
pub use world::Exists;

/// Requests under way get this long when the simulator stops.
const GRACE: Duration = Duration::from_secs(2);

/// A simulator that runs until it is shut down or dropped.
#[derive(Debug)]
pub struct Running {
    /// Where it answers, such as `http://127.0.0.1:4711`, without a slash at the end.
    pub base_url: String,
    /// The same as an address.
    pub addr: SocketAddr,
    control: Control,
    shutdown: Shutdown,
    server: JoinHandle<std::io::Result<()>>,
}

impl Running {
    /// The world, to be changed and looked at from inside this process.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// Stops it. Requests under way get two seconds.
    pub async fn shutdown(mut self) {
        self.shutdown.request();
        if tokio::time::timeout(GRACE, &mut self.server).await.is_err() {
            self.server.abort();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown.request();
    }
}

/// Starts a simulator.
///
/// # Errors
/// When its address cannot be listened on.
pub async fn start(settings: Settings) -> anyhow::Result<Running> {
    let listener = TcpListener::bind(settings.listen)
        .await
        .with_context(|| format!("Listening on {} for the Gmail simulator (simulator.listen)", settings.listen))?;
    let addr = listener.local_addr().context("Asking for the simulator's own address")?;
    let world = Arc::new(world::World::new(&settings));
    if let Some(path) = &settings.scenario {
        let rules = faults::scenario(path)
            .with_context(|| format!("Using the scenario {} (simulator.scenario)", path.display()))?;
        rules.into_iter().for_each(|rule| world.faults.add(rule));
    }
    let control = Control::new(Arc::clone(&world));
    let shutdown = Shutdown::new();
    let stop = shutdown.clone();
    let stop_pushes = shutdown.clone();
    let pushing = push::run(Arc::clone(&world));
    tokio::spawn(async move {
        tokio::select! {
            () = pushing => {}
            () = stop_pushes.requested() => {}
        }
    });
    let service = http::router(world).into_make_service_with_connect_info::<http::wire::Cut>();
    let server = axum::serve(http::wire::Wires(listener), service);
    let server = server.with_graceful_shutdown(async move { stop.requested().await });
    let server = tokio::spawn(server.into_future());
    let base_url = format!("http://{addr}");
    tracing::info!(%addr, "The Gmail simulator listens");
    Ok(Running { base_url, addr, control, shutdown, server })
}

/// Runs a simulator until `shutdown`.
///
/// # Errors
/// When its address cannot be listened on.
pub async fn run(settings: Settings, shutdown: Shutdown) -> anyhow::Result<()> {
    let running = start(settings).await?;
    shutdown.requested().await;
    running.shutdown().await;
    Ok(())
}
