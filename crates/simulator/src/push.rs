//! Pushes: what Cloud Pub/Sub posts to a subscriber when a watched mailbox changes, signed as Google signs.
//!
//! At least once, in no order, at most one a second and user (what is more is dropped), and never the whole truth:
//! they may be late or lost, and a watch that lapsed is silent.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use http::{Request, header};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::{Semaphore, mpsc};

use crate::clock::rfc3339;
use crate::faults::Fault;
use crate::jwt;
use crate::mailbox::Mailbox;
use crate::mailbox::history::{Ahead, Kind, View, Walk};
use crate::seed::mix;
use crate::watch::Watch;
use crate::world::{Account, World};

/// Notifications that wait to be sent; more are lost, as Pub/Sub may lose them.
const QUEUE: usize = 10_000;

/// Posts under way at the same time.
const AT_ONCE: usize = 64;

/// A user is told of at most one change in this time.
const SPACING_MS: i64 = 1_000;

/// Posts of one notification until it counts as lost, and the pause after the first of them.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(100);

/// A post is answered within this time, or counts as refused.
const ANSWER: Duration = Duration::from_secs(10);

/// Where pushes go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Target {
    /// The subscriber's address; plain HTTP.
    pub url: String,
    /// `aud` of the tokens; the address when absent.
    #[serde(default)]
    pub audience: Option<String>,
    /// `email` of the tokens: the subscription's service account.
    #[serde(default = "push_account")]
    pub service_account: String,
    /// The subscription's name.
    #[serde(default = "subscription")]
    pub subscription: String,
    /// How `historyId` is written.
    #[serde(default)]
    pub history_id: HistoryIdForm,
}

/// How a push writes its `historyId`; both occur in the wild.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HistoryIdForm {
    /// A JSON number.
    #[default]
    Number,
    /// A JSON string, as documented.
    Text,
    /// Now one, now the other.
    Either,
}

fn push_account() -> String {
    "push@project.iam.gserviceaccount.com".to_owned()
}

fn subscription() -> String {
    "projects/project/subscriptions/gmail".to_owned()
}

/// Whose change is told of, and the head that is told.
type Due = (Arc<Account>, u64);

/// Pushes of one world.
#[derive(Debug)]
pub(crate) struct Pushes {
    target: RwLock<Option<Arc<Target>>>,
    queue: mpsc::Sender<Due>,
    waiting: Mutex<Option<mpsc::Receiver<Due>>>,
    /// Posts that were made.
    pub(crate) posted: AtomicU64,
    /// Notifications that were acknowledged.
    pub(crate) acknowledged: AtomicU64,
}

impl Default for Pushes {
    fn default() -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE);
        Self {
            target: RwLock::default(),
            queue,
            waiting: Mutex::new(Some(waiting)),
            posted: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
        }
    }
}

impl Pushes {
    /// Where pushes go from now on; nowhere if `None`.
    pub(crate) fn set_target(&self, target: Option<Target>) {
        *self.target.write().unwrap_or_else(PoisonError::into_inner) = target.map(Arc::new);
    }

    /// Where pushes go.
    pub(crate) fn target(&self) -> Option<Arc<Target>> {
        self.target.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes that a mailbox changed, or that its watch was set. Whether that is told of is decided now, so that
    /// what is pushed does not depend on how fast it is sent.
    pub(crate) fn changed(&self, account: &Arc<Account>, now_ms: i64) {
        if self.target().is_none() {
            return;
        }
        let Some(head) = due(account, now_ms) else { return };
        if self.queue.try_send((Arc::clone(account), head)).is_err() {
            tracing::warn!("More pushes wait than the simulator keeps; one was lost");
        }
    }
}

/// Posts notifications until the world ends. Returns at once when it runs already.
pub(crate) async fn run(world: Arc<World>) {
    let waiting = world.pushes.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(mut waiting) = waiting else { return };
    let client: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut number = 0_u64;
    while let Some((account, head)) = waiting.recv().await {
        let Some(target) = world.pushes.target() else { continue };
        let fate = world.faults.fate("push", Some(&account.email), world.clock.now_ms());
        let copies = fate.fault.as_ref().map_or(1, copies);
        number += 1;
        let notification = Notification { number, email: Arc::clone(&account.email), head };
        for _ in 0..copies {
            // A closed semaphore cannot be: it lives as long as this function.
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let (world, client, target) = (Arc::clone(&world), client.clone(), Arc::clone(&target));
            let (notification, delay) = (notification.clone(), Duration::from_millis(fate.delay_ms));
            tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                post_until_acknowledged(&world, &client, &target, &notification).await;
                drop(place);
            });
        }
    }
}

/// How many times a push is sent that a fault has got hold of.
const fn copies(fault: &Fault) -> u32 {
    match fault {
        Fault::Lost => 0,
        Fault::Duplicate(more) => more.saturating_add(1),
        // What befalls calls of the API does not befall a push.
        Fault::Error(_)
        | Fault::Html(_)
        | Fault::Reset
        | Fault::Truncate(_)
        | Fault::Malformed
        | Fault::Latency(_)
        | Fault::Poison(_)
        | Fault::Unreadable(_)
        | Fault::HeadBehind(_) => 1,
    }
}

/// The head to tell of, if the watch lives, lets the change through, and has not told of one just now.
fn due(account: &Account, now_ms: i64) -> Option<u64> {
    let mut watch = account.watch();
    let watch = watch.as_mut().filter(|watch| watch.ends_ms > now_ms)?;
    let mailbox = account.mailbox();
    let head = mailbox.head();
    let first = watch.told.is_none();
    let (told, told_ms) = watch.told.unwrap_or((head, i64::MIN));
    let too_soon = told_ms.saturating_add(SPACING_MS) > now_ms;
    if too_soon || !(first || concerns(&mailbox, watch, told)) {
        return None;
    }
    watch.told = Some((head, now_ms));
    Some(head)
}

/// Whether anything after `told` passes the watch's filter by label.
fn concerns(mailbox: &Mailbox, watch: &Watch, told: u64) -> bool {
    if watch.label_ids.is_empty() {
        return mailbox.head() > told;
    }
    let view = View { now_ms: i64::MAX, lag_ms: 0, retention_ms: None, ahead: Ahead::Empty };
    let kinds = Kind::ALL.iter().fold(0, |all, kind| all | kind.bit());
    let walk = Walk { start: told, kinds, label: None, bare: false, max: usize::MAX, after: None, view };
    // After an expiry what was told is below the floor: nothing is known, so everything may concern it.
    let Ok(page) = mailbox.history(&walk) else { return true };
    let unread = page.next.is_some();
    let labels: Vec<_> = watch.label_ids.iter().filter_map(|id| mailbox.labels.find(id)).collect();
    let mut changes = page.records.into_iter().flat_map(|record| mailbox.wanted_changes(&walk, record));
    // After a large import not every change is looked at; what was not may concern it.
    unread
        || changes.any(|change| {
            let named = labels.iter().any(|&label| {
                mailbox.labels.contains(change.after, label) || mailbox.labels.contains(change.labels, label)
            });
            named != watch.exclude
        })
}

#[derive(Debug, Clone)]
struct Notification {
    number: u64,
    email: Arc<str>,
    head: u64,
}

async fn post_until_acknowledged(
    world: &World,
    client: &Client<HttpConnector, Full<Bytes>>,
    target: &Target,
    notification: &Notification,
) {
    for attempt in 0..ATTEMPTS {
        let request = match request(world, target, notification) {
            Ok(request) => request,
            Err(error) => {
                tracing::error!(%error, url = target.url, "A push could not be made");
                return;
            }
        };
        world.pushes.posted.fetch_add(1, Ordering::Relaxed);
        let answer = tokio::time::timeout(ANSWER, client.request(request)).await;
        if let Ok(Ok(response)) = answer
            && matches!(response.status().as_u16(), 102 | 200 | 201 | 202 | 204)
        {
            world.pushes.acknowledged.fetch_add(1, Ordering::Relaxed);
            return;
        }
        tokio::time::sleep(PAUSE * 2_u32.pow(attempt)).await;
    }
    tracing::debug!(url = target.url, "A push was refused each time; it is lost");
}

fn request(world: &World, target: &Target, notification: &Notification) -> anyhow::Result<Request<Full<Bytes>>> {
    let now_ms = world.clock.now_ms();
    let as_number = match target.history_id {
        HistoryIdForm::Number => true,
        HistoryIdForm::Text => false,
        HistoryIdForm::Either => mix(notification.number) & 1 == 0,
    };
    let head = if as_number { json!(notification.head) } else { json!(notification.head.to_string()) };
    let data = json!({ "emailAddress": &*notification.email, "historyId": head }).to_string();
    let body = json!({
        "message": {
            "data": base64::engine::general_purpose::STANDARD.encode(data),
            "messageId": (1_000_000_000_000 + notification.number).to_string(),
            "publishTime": rfc3339(now_ms),
        },
        "subscription": target.subscription,
    });
    let token = token(world, target, now_ms)?;
    let request = Request::post(&target.url)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .header(header::USER_AGENT, "APIs-Google; (+https://developers.google.com/webmasters/APIs-Google.html)");
    Ok(request.body(Full::new(Bytes::from(body.to_string())))?)
}

/// The token that a push is signed with; good for an hour.
fn token(world: &World, target: &Target, now_ms: i64) -> Result<String, jwt::Error> {
    let now = now_ms / 1_000;
    let audience = target.audience.as_ref().unwrap_or(&target.url);
    world.keys.sign(&json!({
        "iss": "https://accounts.google.com", "aud": audience, "azp": "117000000000000000000",
        "sub": "117000000000000000000", "email": target.service_account, "email_verified": true,
        "iat": now, "exp": now + 3_600,
    }))
}
