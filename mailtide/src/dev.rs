//! Every service in one process, on one runtime.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use hyper::header::HeaderName;
use runtime::Shutdown;
use runtime::admin::Admin;
use runtime::health::Health;
use runtime::settings::PREFIX;
use runtime::telemetry::Telemetry;
use tokio::task::JoinSet;

use crate::cli::Dev;
use crate::local::{Local, Wanted};
use crate::service;
use crate::settings::{self, Settings};

/// How often readiness is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// How long the services may take to end after the order to stop.
const DOWN: Duration = Duration::from_secs(20);

/// The services, running.
pub(crate) struct Services {
    /// Where the API listens.
    pub(crate) api: SocketAddr,
    tasks: JoinSet<(&'static str, anyhow::Result<()>)>,
    shutdown: Shutdown,
}

impl Services {
    /// Starts them all; they have a shutdown of their own, so that what uses them can outlive the order to stop.
    pub(crate) async fn start(settings: &Settings, health: &Health) -> anyhow::Result<Self> {
        let shutdown = Shutdown::new();
        let mut tasks = JoinSet::new();
        let store = service::open(settings).await?;
        store.check_token_keys().await?;
        // First, and alone: it creates all topics, and the others need not race for that.
        let ingress = ingress::Ingress::start(&settings.ingress, &settings.kafka, store.clone(), health);
        let ingress = ingress.await.context("starting ingress")?;
        let api = ingress.address()?;
        let serve = ingress.serve(shutdown.clone());
        tasks.spawn(async { ("ingress", serve.await) });
        // Each registers its own check under this name when it begins; until then nobody may take it for ready.
        let [for_projector, for_scheduler, for_poller, for_fetcher] =
            ["projector", "scheduler", "poller", "fetcher"].map(|name| health.readiness(name));
        let run = projector::run(settings.projector.clone(), health.clone(), shutdown.clone());
        tasks.spawn(async {
            let _starting = for_projector;
            ("projector", run.await)
        });
        let (scheduler, health_of, stop) = (settings.scheduler.clone(), health.clone(), shutdown.clone());
        tasks.spawn(async move {
            let _starting = for_scheduler;
            ("scheduler", scheduler::run(scheduler, health_of, stop).await)
        });
        let (all, of, own, stop) = (settings.clone(), health.clone(), store.clone(), shutdown.clone());
        tasks.spawn(async move {
            let _starting = for_poller;
            ("poller", poller::run(&all.poller, &all.kafka, &all.gmail, own, of, stop).await)
        });
        let (all, of, stop) = (settings.clone(), health.clone(), shutdown.clone());
        tasks.spawn(async move {
            let _starting = for_fetcher;
            ("fetcher", fetcher::run(&all.fetcher, &all.kafka, &all.gmail, store, of, stop).await)
        });
        Ok(Self { api, tasks, shutdown })
    }

    /// Ends when a service ends without having been told to, and says which and why.
    pub(crate) async fn failed(&mut self) -> anyhow::Error {
        match self.tasks.join_next().await {
            Some(Ok((name, Err(error)))) => error.context(format!("{name} failed")),
            Some(Ok((name, Ok(())))) => anyhow!("{name} ended by itself"),
            Some(Err(error)) => anyhow!("a service panicked: {error}"),
            None => anyhow!("no service runs"),
        }
    }

    /// Stops them all.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        self.shutdown.request();
        let all = async {
            while let Some(ended) = self.tasks.join_next().await {
                let (name, ended) = ended.context("a service panicked")?;
                ended.with_context(|| format!("{name} failed while stopping"))?;
            }
            Ok(())
        };
        match tokio::time::timeout(DOWN, all).await {
            Ok(ended) => ended,
            Err(_) => bail!("the services did not stop within {DOWN:?}; they were abandoned"),
        }
    }
}

/// Ends when every service is ready; tells `waiting` for whom it is, whenever that changes.
pub(crate) async fn ready(health: &Health, mut waiting: impl FnMut(&str)) {
    let mut told = String::new();
    loop {
        let missing: Vec<String> = health.not_ready().into_keys().collect();
        let missing = missing.join(", ");
        if missing.is_empty() {
            return;
        }
        if missing != told {
            waiting(&missing);
            told = missing;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Runs until shutdown is asked for or a service fails.
pub(crate) async fn run(
    dev: &Dev,
    file: Option<&Path>,
    settings: Settings,
    telemetry: Telemetry,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    let wanted =
        Wanted { kafka: !settings.is_set("kafka.bootstrap_servers"), postgres: !settings.is_set("database.url") };
    let local = Local::start(wanted).await?;
    let mut overrides = local.overrides();
    // Tokens in a database that goes with this process need no key that outlives it.
    if wanted.postgres && !settings.is_set("store.token_key") {
        overrides.insert("MAILTIDE_STORE_TOKEN_KEY".to_owned(), token_key());
    }
    let simulator = if dev.simulator {
        let simulator = simulator::start(settings.simulator.clone()).await?;
        overrides.extend(towards(&simulator.base_url));
        Some(simulator)
    } else {
        None
    };
    if !overrides.is_empty() {
        println!("# Started here, and gone with this process. For other terminals:");
        for (name, value) in overrides.iter().filter(|(name, _)| name.starts_with(PREFIX)) {
            println!("export {name}='{value}'");
        }
    }
    let settings = settings::load(file, overrides).map_err(|failure| anyhow!("{failure}"))?;
    let health = Health::new();
    let admin = Admin::start(&settings.admin, health.clone(), telemetry).await?;
    let ended = serve(&settings, &health, dev.simulator, &shutdown).await;
    if let Some(simulator) = simulator {
        simulator.shutdown().await;
    }
    drop(admin);
    local.stop().await?;
    ended
}

async fn serve(settings: &Settings, health: &Health, simulated: bool, shutdown: &Shutdown) -> anyhow::Result<()> {
    if !service::registered(settings, |_| {}, shutdown).await? {
        return Ok(());
    }
    let mut services = Services::start(settings, health).await?;
    if simulated {
        println!(
            "# To connect a mailbox of the simulated Gmail, with a key of an organisation whose --return-host is localhost:"
        );
        println!("# {}", connect_call(services.api, &settings.ingress.api_key_header, "…", "ap@acme.example"));
    }
    let failed = tokio::select! {
        error = services.failed() => Some(error),
        () = shutdown.requested() => None,
    };
    let stopped = services.stop().await;
    match failed {
        Some(error) => Err(error),
        None => stopped,
    }
}

/// Where the consents that are shown lead back to.
pub(crate) const RETURN_HOST: &str = "localhost";

/// The `curl` line that asks for the consent page of a mailbox; the browser comes back to the API's document.
pub(crate) fn connect_call(api: SocketAddr, header: &HeaderName, key: &str, address: &str) -> String {
    let back = format!("http://{RETURN_HOST}:{}/openapi.json", api.port());
    format!(
        "curl -X POST http://{api}/gmail-connections -H '{header}: {key}' -H 'content-type: application/json' \
         -d '{{\"returnUrl\": \"{back}\", \"loginHint\": \"{address}\"}}'"
    )
}

/// A fresh key for refresh tokens, as the setting wants it.
pub(crate) fn token_key() -> String {
    use base64::Engine as _;

    let key = rand::random::<[u8; 32]>();
    format!("local:{}", base64::engine::general_purpose::STANDARD.encode(key))
}

/// The settings that send every call for Google to `base_url`, by environment variable.
pub(crate) fn towards(base_url: &str) -> BTreeMap<String, String> {
    let set = |key: &str, value: String| (key.to_owned(), value);
    BTreeMap::from([
        set("MAILTIDE_GMAIL_API_URL", base_url.to_owned()),
        set("MAILTIDE_GMAIL_AUTH_URL", format!("{base_url}/o/oauth2/v2/auth")),
        set("MAILTIDE_GMAIL_TOKEN_URL", format!("{base_url}/token")),
        set("MAILTIDE_GMAIL_REVOKE_URL", format!("{base_url}/revoke")),
        set("MAILTIDE_GMAIL_CLIENT_ID", "demo".to_owned()),
        set("MAILTIDE_GMAIL_CLIENT_SECRET", "demo".to_owned()),
    ])
}
