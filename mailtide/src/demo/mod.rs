//! The demo: the whole pipeline on this machine, with mail going through it, and a count at the end.

mod mail;
mod payable;
mod play;
mod report;
mod screen;
mod stay;
mod watch;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use domain::ConnectionId;
use runtime::Shutdown;
use runtime::health::Health;
use secrecy::SecretString;
use simulator::NewMailbox;
use store::Store;
use store::connections::Consent;
use store::keys::Scope;
use url::Url;

use crate::Outcome;
use crate::cli::Demo;
use crate::command::now;
use crate::demo::mail::Post;
use crate::demo::payable::Payable;
use crate::demo::play::{Play, Target};
use crate::demo::report::Report;
use crate::demo::screen::Screen;
use crate::demo::stay::Sights;
use crate::demo::watch::Watch;
use crate::dev::{self, Services};
use crate::http::Client;
use crate::local::{Local, Wanted};
use crate::settings::{self, Settings};

/// How long the services may take to be ready.
const READY: Duration = Duration::from_secs(60);

/// Runs it. What was started is stopped, whatever happens.
pub(crate) async fn run(demo: &Demo, file: Option<&Path>, shutdown: Shutdown) -> anyhow::Result<Outcome> {
    let posts = mail::plan(demo)?;
    let local = Local::start(Wanted { kafka: true, postgres: true }).await?;
    let ended = with_servers(demo, file, &local, posts, &shutdown).await;
    local.stop().await?;
    ended
}

async fn with_servers(
    demo: &Demo,
    file: Option<&Path>,
    local: &Local,
    posts: Vec<Post>,
    shutdown: &Shutdown,
) -> anyhow::Result<Outcome> {
    let mut overrides = local.overrides();
    let given = settings::load(file, overrides.clone()).map_err(|failure| anyhow!("{failure}"))?;
    let gmail =
        simulator::start(simulator::Settings { listen: ([127, 0, 0, 1], 0).into(), ..given.simulator.clone() }).await?;
    overrides.extend(dev::towards(&gmail.base_url));
    overrides.extend(own_ports_and_keys());
    let settings = settings::load(file, overrides).map_err(|failure| anyhow!("{failure}"))?;
    println!("Starting the services");
    let health = Health::new();
    let mut services = Services::start(&settings, &health).await?;
    let stage = Stage { demo, settings: &settings, local, api: services.api, gmail: &gmail, shutdown };
    let ended = tokio::select! {
        ended = stage.show(&health, posts) => ended,
        error = services.failed() => Err(error),
    };
    println!("Stopping…");
    let stopped = services.stop().await;
    gmail.shutdown().await;
    let outcome = ended?;
    stopped.map(|()| outcome)
}

/// Nothing in the way of what may run on this machine already, and nothing that outlives the demo.
fn own_ports_and_keys() -> BTreeMap<String, String> {
    let set = |key: &str, value: String| (key.to_owned(), value);
    BTreeMap::from([
        set("MAILTIDE_INGRESS_LISTEN", "127.0.0.1:0".to_owned()),
        set("MAILTIDE_STORE_TOKEN_KEY", dev::token_key()),
    ])
}

/// Everything that the demo plays on.
struct Stage<'a> {
    demo: &'a Demo,
    settings: &'a Settings,
    local: &'a Local,
    api: SocketAddr,
    gmail: &'a simulator::Running,
    shutdown: &'a Shutdown,
}

impl Stage<'_> {
    /// Waits until all is ready, plays, counts, and stays if it is to stay.
    async fn show(&self, health: &Health, posts: Vec<Post>) -> anyhow::Result<Outcome> {
        let ready = dev::ready(health, |missing| println!("  waiting for {missing}"));
        tokio::select! {
            ready = tokio::time::timeout(READY, ready) => {
                ready.map_err(|_| anyhow!("the services are not ready after {READY:?}: {:?}", health.not_ready()))?;
            }
            () = self.shutdown.requested() => return Ok(Outcome::Failed),
        }
        let (key, targets) = connect(self.settings, self.gmail, posts).await?;
        let base = Url::parse(&format!("http://{}", self.api)).context("the API's address as a URL")?;
        let client = Client::new(base, self.settings.ingress.api_key_header.clone(), key.clone())?;
        self.announce(&targets);
        let screen = Arc::new(Screen::new());
        let addresses: HashMap<ConnectionId, String> =
            targets.iter().map(|target| (target.connection, target.post.address.clone())).collect();
        let mut watch = Watch::start(&self.settings.kafka, Arc::new(addresses), Arc::clone(&screen)).await?;
        let mut play = Play::new(targets, client, self.gmail.control().clone(), Arc::clone(&screen));
        let report = tokio::select! {
            report = async { play.run(&watch).await?; play.report(&watch, &self.settings.kafka).await } => report,
            () = self.shutdown.requested() => {
                screen.clear();
                return Ok(Outcome::Failed);
            }
        };
        screen.clear();
        let report = report?;
        report.print();
        let mut payable = Payable::start(self.settings)?;
        let mailboxes = play.deliver_to_all(payable::MAIL.as_bytes()).await?;
        tokio::select! {
            shown = payable.show(mailboxes) => shown?,
            () = self.shutdown.requested() => return Ok(Outcome::Failed),
        }
        if !self.demo.once {
            let (target, job) = play.example().context("the demo has a mailbox and a job")?;
            let Self { settings, local, api, gmail, .. } = *self;
            let sights = Sights { settings, local, api, gmail: &gmail.base_url, key: &key, target, job };
            stay::stay(sights, &mut watch, self.shutdown).await?;
        }
        Ok(outcome(&report))
    }

    /// Says what there is, before anything happens.
    fn announce(&self, targets: &[Target]) {
        let mails: usize = targets.iter().map(|target| target.post.len()).sum();
        println!("\nMailtide is up. Mailboxes: {}, mails to come: {mails}.", targets.len());
        for (what, place) in self.local.describe() {
            println!("  {what:<9} {place}");
        }
        println!("  Gmail     {} (simulated)\n  API       http://{}\n", self.gmail.base_url, self.api);
    }
}

fn outcome(report: &Report) -> Outcome {
    if report.is_good() { Outcome::Done } else { Outcome::Failed }
}

/// Makes an organisation, an API key, and a mailbox with a connection for each post.
async fn connect(
    settings: &Settings,
    gmail: &simulator::Running,
    posts: Vec<Post>,
) -> anyhow::Result<(SecretString, Vec<Target>)> {
    let store = Store::connect(&settings.store)?;
    let organisation = store::organisations::create(&store, "Demo", now()).await?.organisation_id;
    store::organisations::change_return_hosts(&store, organisation, &[dev::RETURN_HOST.to_owned()], &[]).await?;
    let scopes = [Scope::Read, Scope::Write];
    let (_, key) = store::keys::create(&store, organisation, "demo", &scopes, now()).await?;
    let mut targets = Vec::with_capacity(posts.len());
    for post in posts {
        let new = NewMailbox { email: post.address.clone(), ..NewMailbox::default() };
        let refresh_token = SecretString::from(gmail.control().create(&new)?.refresh_token);
        let consent = Consent { account: &post.address, email: &post.address, refresh_token: &refresh_token };
        let connection = store::connections::add(&store, organisation, &consent, now()).await?.connection_id;
        targets.push(Target { connection, post });
    }
    Ok((key, targets))
}
