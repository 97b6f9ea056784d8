//! The Gmail client against the simulator: what it asks is understood, what it hears is read, what it spends is counted.

use std::path::Path;
use std::sync::Arc;

use domain::mailbox::reply::{Answer, Call, CallError, CallId, HistoryPage, ListPage, PageToken, Reply, Request};
use domain::{ConnectionId, HistoryId, Lane, MessageId, OrganisationId, Timestamp, TokenVersion, Window};
use futures_util::future::{BoxFuture, join_all};
use gmail::{Account, Client, Credential, Gate, Grant, Mailbox, Service, Settings, TokenSource, TokenSourceError};
use secrecy::SecretString;
use simulator::{Cause, Delivery, Fault, Limits, Mails, NewMailbox, Rule, Running, Tariff};
use uuid::Uuid;

pub(crate) const EMAIL: &str = "payable@example.com";

/// A simulator of one's own with one mailbox, and a client that is connected to it.
pub(crate) struct World {
    pub(crate) simulator: Running,
    start: HistoryId,
    pub(crate) client: Client,
    pub(crate) mailbox: Mailbox,
}

enum Consent {
    Own(SecretString),
    Delegated(String),
}

impl TokenSource for Consent {
    fn refresh_token(&self, _: Mailbox) -> BoxFuture<'_, Result<Grant, TokenSourceError>> {
        let account = Account::new(EMAIL);
        let credential = match self {
            Self::Own(token) => Credential::RefreshToken(token.clone()),
            Self::Delegated(subject) => Credential::Delegated { subject: subject.clone() },
        };
        Box::pin(async { Ok(Grant { account, shares: 1, token_version: TokenVersion(1), credential }) })
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(NewMailbox::default()).await
    }

    async fn with(mailbox: NewMailbox) -> Self {
        let simulator = simulator::start(simulator::Settings::default()).await.unwrap();
        let mailbox = NewMailbox { email: EMAIL.to_owned(), ..mailbox };
        let created = simulator.control().create(&mailbox).unwrap();
        let consent = Consent::Own(created.refresh_token.into());
        Self::at(simulator, Settings::default(), consent, created.history_id)
    }

    /// A mailbox of the simulator's that the service account with this key reads.
    pub(crate) fn delegated(simulator: Running, key: &Path, subject: &str) -> Self {
        let settings = Settings { service_account_file: Some(key.to_owned()), ..Settings::default() };
        Self::at(simulator, settings, Consent::Delegated(subject.to_owned()), 1)
    }

    fn at(simulator: Running, settings: Settings, consent: Consent, start: u64) -> Self {
        let settings = Settings {
            api_url: simulator.base_url.parse().unwrap(),
            token_url: format!("{}/token", simulator.base_url).parse().unwrap(),
            client_id: "client".to_owned(),
            client_secret: Some("secret".into()),
            ..settings
        };
        let source = Arc::new(consent);
        let client = Client::new(&settings, source, Gate::new(&settings, Service::Poller)).unwrap();
        let mailbox = Mailbox {
            organisation_id: OrganisationId::from_uuid(Uuid::new_v4()),
            connection_id: ConnectionId::from_uuid(Uuid::new_v4()),
        };
        Self { simulator, start: HistoryId::new(start), client, mailbox }
    }

    pub(crate) async fn profile(&self) -> Result<Reply, CallError> {
        self.call(Request::Profile).await.result
    }

    async fn call(&self, request: Request) -> Answer {
        let call = Call {
            id: CallId(1),
            lane: Lane::Live,
            request,
            deadline: None,
            token_version: TokenVersion(1),
            trace: None,
        };
        self.client.call(self.mailbox, &call).await
    }

    async fn history(&self, start: HistoryId, token: Option<PageToken>, max: u16) -> Result<HistoryPage, CallError> {
        match self.call(Request::History { start, token, max }).await.result? {
            Reply::History(page) => Ok(page),
            other => panic!("{other:?}"),
        }
    }

    async fn list(&self, window: Window, held_only: bool) -> Vec<MessageId> {
        let mut messages = Vec::new();
        let mut token = None;
        loop {
            let answer = self.call(Request::List { window, held_only, token, max: 3 }).await;
            let Ok(Reply::List(ListPage { messages: page, next })) = answer.result else { panic!("{answer:?}") };
            messages.extend(page.into_iter().map(|message| message.id));
            token = next;
            if token.is_none() {
                messages.sort();
                return messages;
            }
        }
    }

    fn deliver(&self, labels: &[&str], internal_ms: Option<i64>) -> MessageId {
        let labels = Some(labels.iter().map(|label| (*label).to_owned()).collect());
        let how = Delivery { labels, internal_ms, step_ms: 0 };
        let delivered = self.simulator.control().deliver(EMAIL, Mails::Synthetic(1), &how).unwrap();
        MessageId::new(&delivered[0].id)
    }

    pub(crate) fn go_wrong(&self, calls: &[&str], times: u64, fault: Fault) {
        let calls = calls.iter().map(|call| (*call).to_owned()).collect();
        let (mailboxes, probability, after, times) = (Vec::new(), 1.0, 0, Some(times));
        let rule = Rule { mailboxes, calls, probability, after, times, from_ms: None, until_ms: None, fault };
        self.simulator.control().add_fault(rule);
    }
}

#[tokio::test]
async fn a_walk_names_every_message_once_and_costs_what_it_says() {
    let world = World::with(NewMailbox { first_history_id: Some((1 << 53) + 11), ..NewMailbox::default() }).await;
    let delivered = world.simulator.control().deliver(EMAIL, Mails::Synthetic(120), &Delivery::default()).unwrap();
    world.simulator.control().trash(EMAIL, &[&delivered[7].id]).unwrap();
    let mut seen = Vec::new();
    let mut records = Vec::new();
    let (mut token, mut units) = (None, 0);
    loop {
        let answer = world.call(Request::History { start: world.start, token, max: 50 }).await;
        units += u64::from(answer.units);
        assert!(answer.date.is_some() && answer.token_version == TokenVersion(1));
        let Ok(Reply::History(page)) = answer.result else { panic!("{:?}", answer.result) };
        for record in page.records {
            records.push(record.id);
            seen.extend(record.added.into_iter().map(|added| added.id.to_string()));
            if let Some(change) = record.labels_added.first() {
                assert_eq!(change.message.id.to_string(), delivered[7].id);
                assert_eq!(change.labels[0].as_str(), "TRASH");
            }
        }
        token = page.next;
        if token.is_none() {
            assert_eq!(records.last(), Some(&page.head));
            break;
        }
    }
    assert_eq!(seen, delivered.iter().map(|truth| truth.id.clone()).collect::<Vec<_>>());
    assert!(records.is_sorted() && records[0] > world.start);
    let profile = world.call(Request::Profile).await;
    units += u64::from(profile.units);
    let Ok(Reply::Profile(profile)) = profile.result else { panic!("{:?}", profile.result) };
    assert_eq!(records.last(), Some(&profile.head));
    let idle = world.history(profile.head, None, 500).await.unwrap();
    assert_eq!(idle, HistoryPage { head: profile.head, ..HistoryPage::default() });
    let spent = world.simulator.control().usage();
    assert_eq!((spent.total.units, spent.token_requests), (units + 2, 1));
}

#[tokio::test]
async fn a_listing_holds_its_window_without_drafts_and_chats() {
    let world = World::new().await;
    let ms = 1_700_000_000_000;
    let inside = Some(ms + 5_000);
    let mut owed = vec![
        world.deliver(&["INBOX"], Some(ms)),
        world.deliver(&["INBOX"], inside),
        world.deliver(&[], inside),
        world.deliver(&["SENT"], inside),
    ];
    let mut held = vec![world.deliver(&["SPAM"], inside), world.deliver(&["TRASH"], Some(ms + 59_000))];
    for (labels, at) in [
        (&["DRAFT"] as &[&str], inside),
        (&["CHAT"], inside),
        (&["INBOX"], Some(ms - 60_000)),
        (&["SPAM"], Some(ms + 120_000)),
    ] {
        world.deliver(labels, at);
    }
    let window = Window { since: Timestamp::from_millis(ms), until: Timestamp::from_millis(ms + 60_000) };
    held.sort();
    owed.extend(held.iter().cloned());
    owed.sort();
    assert_eq!(world.list(window, false).await, owed);
    assert_eq!(world.list(window, true).await, held);
}

#[tokio::test]
async fn positions_that_are_no_more_are_told_apart() {
    let world = World::new().await;
    world.deliver(&["INBOX"], None);
    let token = Some(PageToken("nonsense".to_owned()));
    assert_eq!(world.history(world.start, token, 10).await, Err(CallError::InvalidPageToken));
    world.simulator.control().expire_history(EMAIL).unwrap();
    assert_eq!(world.history(world.start, None, 10).await, Err(CallError::NotFound));
}

#[tokio::test]
async fn an_access_token_that_ended_early_is_renewed_and_a_grant_that_ended_is_told() {
    let world = World::new().await;
    world.history(world.start, None, 10).await.unwrap();
    world.simulator.control().expire_access_tokens(EMAIL).unwrap();
    world.history(world.start, None, 10).await.unwrap();
    assert_eq!(world.simulator.control().usage().token_requests, 2);
    for cause in [Cause::Revoked, Cause::Reauthentication] {
        world.simulator.control().end_grants(EMAIL, cause).unwrap();
        world.simulator.control().expire_access_tokens(EMAIL).unwrap();
        let error = world.history(world.start, None, 10).await.unwrap_err();
        assert!(matches!(&error, CallError::Revoked { cause } if cause.starts_with("invalid_grant")), "{error:?}");
    }
}

#[tokio::test]
async fn a_spent_minute_is_a_throttle_and_no_error_of_the_page() {
    let world = World::new().await;
    let limits = Limits { user_minute: 4, ..Tariff::default().limits() };
    world.simulator.control().set_tariff(Tariff::default(), limits);
    let pages = join_all((0..4).map(|_| world.history(world.start, None, 10))).await;
    assert_eq!(pages.iter().filter(|page| page.is_ok()).count(), 2, "{pages:?}");
    for page in pages {
        assert!(matches!(page, Ok(_) | Err(CallError::Throttled { .. })), "{page:?}");
    }
}

#[tokio::test]
async fn a_token_without_the_right_scope_is_a_lasting_error() {
    let scopes = Some("https://www.googleapis.com/auth/gmail.metadata".to_owned());
    let world = World::with(NewMailbox { scopes, ..NewMailbox::default() }).await;
    world.history(world.start, None, 10).await.unwrap();
    let window = Window { since: Timestamp::from_millis(0), until: Timestamp::from_millis(5_000) };
    let answer = world.call(Request::List { window, held_only: false, token: None, max: 10 }).await;
    assert!(
        matches!(&answer.result, Err(CallError::Permanent { code, .. }) if code == "Gmail.Forbidden"),
        "{answer:?}"
    );
}

#[tokio::test]
async fn accidents_pass_and_the_next_call_is_well() {
    let world = World::new().await;
    for fault in
        [Fault::Html(404), Fault::Html(502), Fault::Html(200), Fault::Reset, Fault::Truncate(0.5), Fault::Malformed]
    {
        world.go_wrong(&["listHistory"], 1, fault.clone());
        let error = world.history(world.start, None, 10).await.unwrap_err();
        assert!(matches!(error, CallError::Transient { .. }), "{fault:?} gave {error:?}");
        world.history(world.start, None, 10).await.unwrap();
    }
    world.go_wrong(&["token"], 1, Fault::Html(503));
    world.simulator.control().expire_access_tokens(EMAIL).unwrap();
    let error = world.history(world.start, None, 10).await.unwrap_err();
    assert!(matches!(error, CallError::Transient { .. }), "{error:?}");
    world.history(world.start, None, 10).await.unwrap();
}
