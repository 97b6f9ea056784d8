//! A whole pipeline in a place of its own: a tenant with an API key, connected mailboxes in the simulator, and the
//! services as tasks of this process. What has to be killed runs as a process instead: [`House::process`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use chaos::checker::{self, Evidence, Findings, Owed};
use domain::{ConnectionId, OrganisationId, PollGmailConnection, Timestamp, TokenVersion, Trigger};
use kafka::topics::{Topic, Topics};
use runtime::Shutdown;
use runtime::health::Health;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use simulator::{Behaviour, Control, Delivery, Mails, NewMailbox};
use store::Store;
use store::connections::{self, Consent};
use store::keys::Scope;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::support::{
    LONG, Place, Record, Service, committed_blocking, stack, until_decided_blocking, wait_for, wait_until,
};

/// How long a member of a group may be silent before its partitions are taken from it: as short as the broker lets it
/// be. One that was given has its default for the least that it allows.
pub(crate) fn session() -> Duration {
    Duration::from_secs(if stack().kafka.is_ours() { 2 } else { 6 })
}

/// Time-outs that let a group notice quickly that a member is gone, as settings.
fn quick() -> [(&'static str, String); 4] {
    let seconds = |more| format!("{}s", session().as_secs() + more);
    [
        ("MAILTIDE_LANE_SESSION_TIMEOUT", seconds(0)),
        // A transaction outlives its owner's session, so that there are zombies to be fenced.
        ("MAILTIDE_LANE_DELIVERY_TIMEOUT", seconds(1)),
        ("MAILTIDE_LANE_TRANSACTION_TIMEOUT", seconds(2)),
        ("MAILTIDE_LANE_MAX_POLL_INTERVAL", seconds(14)),
    ]
}

/// Labels that keep a message out of the announcements for good, and those that keep it back until they are gone.
const OUT: [&str; 2] = ["DRAFT", "CHAT"];
const KEPT_BACK: [&str; 2] = ["SPAM", "TRASH"];

/// The wall clock.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap())
}

/// The simulated Gmail's controls.
pub(crate) fn gmail() -> &'static Control {
    stack().simulator.control()
}

/// A mailbox that is connected.
#[derive(Debug, Clone)]
pub(crate) struct Mailbox {
    pub(crate) id: ConnectionId,
    pub(crate) email: String,
}

impl Mailbox {
    /// Delivers mail that nobody wrote.
    pub(crate) fn deliver(&self, count: usize) {
        gmail().deliver(&self.email, Mails::Synthetic(count), &Delivery::default()).unwrap();
    }

    /// Lets Gmail behave differently for this mailbox.
    pub(crate) fn behave(&self, behaviour: Behaviour) {
        gmail().set_behaviour(Some(&self.email), behaviour).unwrap();
    }

    /// How many calls of one method were made for it.
    pub(crate) fn calls(&self, method: &str) -> u64 {
        let usage = gmail().usage();
        usage.mailboxes.get(&self.email).and_then(|spent| spent.calls.get(method)).copied().unwrap_or(0)
    }
}

/// The pipeline without its services.
pub(crate) struct House {
    pub(crate) place: Place,
    pub(crate) store: Store,
    pub(crate) organisation: OrganisationId,
    settings: BTreeMap<String, String>,
    key: SecretString,
    http: reqwest::Client,
    api: Mutex<Option<String>>,
    mailboxes: Mutex<Vec<Mailbox>>,
    accepted: Mutex<Vec<String>>,
}

/// A service that runs as a task. Dropping it orders it to stop.
pub(crate) struct Task {
    name: &'static str,
    shutdown: Shutdown,
    health: Health,
    task: JoinHandle<anyhow::Result<()>>,
}

/// Ingress, projector and one poller.
pub(crate) struct Services {
    pub(crate) ingress: Task,
    pub(crate) projector: Task,
    pub(crate) poller: Task,
}

impl House {
    /// A pipeline of its own; `name` is part of the names in it.
    pub(crate) async fn new(name: &str) -> Arc<Self> {
        Self::with(name, &[]).await
    }

    /// The same under settings (environment variables) beyond or over the place's.
    pub(crate) async fn with(name: &str, changes: &[(&str, &str)]) -> Arc<Self> {
        let place = Place::new(name);
        let mut settings = place.settings();
        settings.extend(quick().map(|(name, value)| (name.to_owned(), value)));
        settings.extend(changes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let mut source = source(&settings);
        let store = Store::connect(&store::Settings::read(&mut source)).unwrap();
        store.migrate().await.unwrap();
        let organisation = store::organisations::create(&store, name, now()).await.unwrap().organisation_id;
        let scopes = [Scope::Read, Scope::Write];
        let (_, key) = store::keys::create(&store, organisation, "tests", &scopes, now()).await.unwrap();
        let http = reqwest::Client::builder().timeout(Duration::from_secs(30)).build().unwrap();
        Arc::new(Self {
            place,
            store,
            organisation,
            settings,
            key,
            http,
            api: Mutex::default(),
            mailboxes: Mutex::default(),
            accepted: Mutex::default(),
        })
    }

    /// Makes a mailbox at Gmail and connects it.
    pub(crate) async fn mailbox(&self, name: &str) -> Mailbox {
        let email = format!("{name}@{}example", self.place.prefix());
        let made = gmail().create(&NewMailbox { email: email.clone(), ..NewMailbox::default() }).unwrap();
        let id = self.consent(&email, made.refresh_token).await;
        let mailbox = Mailbox { id, email };
        self.mailboxes.lock().unwrap().push(mailbox.clone());
        mailbox
    }

    /// A mailbox in the same partition as another, so that both are one lane's.
    pub(crate) async fn mailbox_beside(&self, other: &Mailbox, name: &str) -> Mailbox {
        let partition = |id: ConnectionId| kafka::partition_of(id.to_string().as_bytes(), self.kafka("").partitions);
        for number in 0.. {
            let mailbox = self.mailbox(&format!("{name}{number}")).await;
            if partition(mailbox.id) == partition(other.id) {
                return mailbox;
            }
        }
        unreachable!("some id leads there")
    }

    /// The tenant's API key.
    pub(crate) fn api_key(&self) -> &str {
        self.key.expose_secret()
    }

    /// The client that the house's requests are made with.
    pub(crate) fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// How many syncs were answered with 202.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.lock().unwrap().len()
    }

    /// The mailboxes, in the order of their making.
    pub(crate) fn mailboxes(&self) -> Vec<Mailbox> {
        self.mailboxes.lock().unwrap().clone()
    }

    /// Stores a refresh token as a user's consent does: a new connection, or a newer token of a living one.
    pub(crate) async fn consent(&self, email: &str, refresh_token: String) -> ConnectionId {
        let refresh_token = SecretString::from(refresh_token);
        let consent = Consent { account: email, email, refresh_token: &refresh_token };
        connections::add(&self.store, self.organisation, &consent, now()).await.unwrap().connection_id
    }

    /// Ingress, projector and one poller, all ready.
    pub(crate) async fn open(self: &Arc<Self>) -> Services {
        let ingress = self.ingress().await;
        let projector = self.projector();
        let poller = self.poller("one");
        poller.ready().await;
        projector.ready().await;
        Services { ingress, projector, poller }
    }

    /// The REST service, which the house's requests go to from now on.
    pub(crate) async fn ingress(&self) -> Task {
        let mut source = source(&self.settings);
        let settings = ingress::Settings::read(&mut source);
        let kafka = kafka::Settings::read(&mut source);
        let health = Health::new();
        let ingress = ingress::Ingress::start(&settings, &kafka, self.store.clone(), &health).await.unwrap();
        self.api_is_at(&ingress.address().unwrap().to_string());
        let shutdown = Shutdown::new();
        let task = tokio::spawn(ingress.serve(shutdown.clone()));
        Task { name: "ingress", shutdown, health, task }
    }

    /// Sends the house's requests to this address from now on.
    pub(crate) fn api_is_at(&self, address: &str) {
        *self.api.lock().unwrap() = Some(format!("http://{address}"));
    }

    /// The projector.
    pub(crate) fn projector(&self) -> Task {
        let settings = projector::Settings::read(&mut source(&self.settings));
        Task::spawn("projector", |health, shutdown| projector::run(settings, health, shutdown))
    }

    /// A poller; instances that live at the same time have different names.
    pub(crate) fn poller(&self, instance: &str) -> Task {
        self.poller_with(self.kafka(instance))
    }

    /// A poller under Kafka settings of the test's own.
    pub(crate) fn poller_with(&self, kafka: kafka::Settings) -> Task {
        let mut source = source(&self.settings);
        let settings = poller::Settings::read(&mut source);
        let gmail = gmail::Settings::read(&mut source);
        let store = self.store.clone();
        Task::spawn("poller", |health, shutdown| async move {
            poller::run(&settings, &kafka, &gmail, store, health, shutdown).await
        })
    }

    /// A fetcher; instances that live at the same time have different names.
    pub(crate) fn fetcher(&self, instance: &str) -> Task {
        let mut source = source(&self.settings);
        let settings = fetcher::Settings::read(&mut source);
        let gmail = gmail::Settings::read(&mut source);
        let (kafka, store) = (self.kafka(instance), self.store.clone());
        Task::spawn("fetcher", |health, shutdown| async move {
            fetcher::run(&settings, &kafka, &gmail, store, health, shutdown).await
        })
    }

    /// The settings of clients of Gmail's.
    pub(crate) fn gmail(&self) -> gmail::Settings {
        gmail::Settings::read(&mut source(&self.settings))
    }

    /// The settings of an instance's Kafka clients.
    pub(crate) fn kafka(&self, instance: &str) -> kafka::Settings {
        let mut kafka = kafka::Settings::read(&mut source(&self.settings));
        instance.clone_into(&mut kafka.instance);
        kafka
    }

    /// A service as a process of its own, to be killed; not started yet.
    pub(crate) fn process(&self, name: &str, service: &str) -> Service {
        let process = self.place.service(name, &[service]);
        self.settings.iter().fold(process, |process, (name, value)| process.set(name, value))
    }

    /// The settings of every process of the house, as environment variables.
    pub(crate) fn settings(&self) -> &BTreeMap<String, String> {
        &self.settings
    }

    /// The topics' names.
    pub(crate) fn topics(&self) -> Topics {
        Topics::new(self.place.prefix())
    }

    /// Everything committed in a topic of the house, given without the prefix: all that is known elsewhere to be
    /// committed is among it.
    pub(crate) async fn committed(&self, topic: &str) -> Vec<Record> {
        let (bootstrap, topic) = (self.kafka("tests").bootstrap_servers, self.place.topic(topic));
        let read = move || {
            until_decided_blocking(&bootstrap, &topic);
            committed_blocking(&bootstrap, &topic)
        };
        tokio::task::spawn_blocking(read).await.unwrap()
    }

    /// Makes the topics, for tests that write to them before any service does.
    pub(crate) async fn create_topics(&self) {
        kafka::topics::create(&self.kafka("tests"), &self.topics(), &Topic::ALL).await.unwrap();
    }

    /// A request to the API.
    pub(crate) fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, self.url(path)).header("x-dolfin-api-key", self.key.expose_secret())
    }

    /// Where a path of the API is.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.api.lock().unwrap().as_deref().expect("ingress runs"))
    }

    /// Asks for a sync; what the API answers, and the job's id if that was 202.
    pub(crate) async fn try_sync(&self, connection: ConnectionId) -> reqwest::Result<Option<String>> {
        let path = format!("/gmail-connections/{connection}/sync");
        let answer = self.request(reqwest::Method::POST, &path).send().await?;
        if answer.status() != reqwest::StatusCode::ACCEPTED {
            return Ok(None);
        }
        let job = answer.json::<Value>().await?["jobId"].as_str().unwrap().to_owned();
        self.accepted.lock().unwrap().push(job.clone());
        Ok(Some(job))
    }

    /// Asks for a sync that has to be accepted, and gives the job's id.
    pub(crate) async fn ask(&self, mailbox: &Mailbox) -> String {
        self.try_sync(mailbox.id).await.unwrap().expect("the sync is accepted")
    }

    /// The same, while ingress may be on its way back.
    pub(crate) async fn ask_until_accepted(&self, mailbox: &Mailbox) -> String {
        wait_for(LONG, "the sync is accepted", || async { self.try_sync(mailbox.id).await.ok().flatten() }).await
    }

    /// The job as the API tells it.
    pub(crate) async fn job(&self, id: &str) -> Value {
        let answer = self.request(reqwest::Method::GET, &format!("/jobs/{id}")).send().await.unwrap();
        assert_eq!(answer.status(), reqwest::StatusCode::OK, "job {id}");
        answer.json().await.unwrap()
    }

    /// Waits until the job has ended, and gives it.
    pub(crate) async fn ended(&self, id: &str) -> Value {
        wait_for(LONG, &format!("job {id} ends"), || async {
            let job = self.job(id).await;
            let state = job["state"].as_str().unwrap();
            matches!(state, "succeeded" | "failed" | "cancelled").then_some(job)
        })
        .await
    }

    /// Asks for a sync and waits until it has succeeded; gives the job.
    pub(crate) async fn sync(&self, mailbox: &Mailbox) -> Value {
        let job = self.ended(&self.ask(mailbox).await).await;
        assert_eq!(job["state"], "succeeded", "{job}");
        job
    }

    /// Everything that was accepted and everything in the mailboxes.
    pub(crate) fn owed(&self) -> Owed {
        let mut owed = Owed::default();
        for Mailbox { id, email } in self.mailboxes() {
            let messages = owed.messages.entry(id.to_string()).or_default();
            let allowed = owed.allowed.entry(id.to_string()).or_default();
            for message in gmail().messages(&email).unwrap() {
                let has = |labels: &[&str]| message.label_ids.iter().any(|label| labels.contains(&label.as_str()));
                if has(&OUT) {
                    continue;
                }
                if message.gone || has(&KEPT_BACK) {
                    allowed.insert(message.id);
                } else {
                    messages.insert(message.id);
                }
            }
        }
        owed.accepted = self.accepted.lock().unwrap().iter().cloned().collect();
        owed
    }

    /// Compares what is owed with what is committed, rows included.
    pub(crate) async fn check(&self) -> Findings {
        checker::check(&self.owed(), &self.evidence(true).await)
    }

    /// Everything that is committed in the topics. `rows`: also the tables that a projector keeps.
    pub(crate) async fn evidence(&self, rows: bool) -> Evidence {
        let place = checker::Place {
            bootstrap: self.kafka("tests").bootstrap_servers,
            prefix: self.place.prefix().to_owned(),
            database: self.place.database_url().to_owned(),
            schema: self.store.schema().to_owned(),
            projects: rows,
            ..checker::Place::default()
        };
        Evidence::gather(&place).await.unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// Compares, once every row that is still to follow the topics has.
    pub(crate) async fn settled(&self) -> Findings {
        let begun = Instant::now();
        loop {
            let findings = self.check().await;
            let may_follow = findings.is_clean_but_for_rows() && begun.elapsed() < LONG;
            if findings.rows.is_empty() || !may_follow {
                return findings;
            }
        }
    }

    /// Asserts that nothing is wrong.
    pub(crate) async fn assert_clean(&self) {
        let findings = self.settled().await;
        assert!(findings.is_clean(), "{}: {findings}", self.place.prefix());
    }

    /// A command of the kind that ingress writes.
    pub(crate) fn command(&self, mailbox: &Mailbox, job: Uuid) -> PollGmailConnection {
        PollGmailConnection {
            job_id: domain::JobId::from_uuid(job),
            organisation_id: self.organisation,
            connection_id: mailbox.id,
            trigger: Trigger::Api,
            window: None,
            token_version: TokenVersion(1),
            requested_at: now(),
            deadline: now() + domain::Duration::from_hours(1),
        }
    }
}

impl Task {
    fn spawn<F>(name: &'static str, run: impl FnOnce(Health, Shutdown) -> F) -> Self
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let (shutdown, health) = (Shutdown::new(), Health::new());
        let service = run(health.clone(), shutdown.clone());
        let begun = health.readiness("begun");
        let task = tokio::spawn(async move {
            let mut service = std::pin::pin!(service);
            // A service registers its checks before it waits for anything.
            if let Poll::Ready(ended) = futures_util::poll!(&mut service) {
                return ended;
            }
            begun.pass();
            let ended = service.await;
            drop(begun);
            ended
        });
        Self { name, shutdown, health, task }
    }

    /// Waits until it is ready.
    pub(crate) async fn ready(&self) {
        wait_until(LONG, &format!("the {} is ready", self.name), || {
            assert!(!self.task.is_finished(), "the {} ended", self.name);
            std::future::ready(self.health.not_ready().is_empty())
        })
        .await;
    }

    /// Stops it gracefully.
    pub(crate) async fn stop(mut self) {
        self.shutdown.request();
        let ended = tokio::time::timeout(LONG, &mut self.task).await;
        ended.unwrap_or_else(|_| panic!("the {} does not stop", self.name)).unwrap().unwrap();
    }

    /// Waits until it ends by itself, and gives what it said.
    pub(crate) async fn ended(mut self) -> anyhow::Result<()> {
        let ended = tokio::time::timeout(LONG, &mut self.task).await;
        ended.unwrap_or_else(|_| panic!("the {} does not end", self.name)).unwrap()
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.shutdown.request();
    }
}

impl Services {
    /// Stops them all gracefully.
    pub(crate) async fn stop(self) {
        self.poller.stop().await;
        self.projector.stop().await;
        self.ingress.stop().await;
    }
}

fn source(settings: &BTreeMap<String, String>) -> runtime::settings::Source {
    runtime::settings::Source::from_parts(None, settings.clone())
}
