//! Mailboxes of a simulated Gmail that are connected and have messages, and how these are announced.

use std::sync::Arc;

use anyhow::Context;
use domain::mailbox::reply::Label;
use domain::{EventId, GmailMessageDiscovered, MessageId, Origin};
use events::TraceParent;
use events::headers::Envelope;
use gmail::{Mailbox, Quota, Tariff};
use secrecy::SecretString;
use simulator::{Delivery, Mails, NewMailbox, Running};
use store::connections::Consent;
use store::{Store, connections, organisations};

use crate::bare::Bytes;
use crate::syncs::now;

/// One mailbox.
pub(crate) struct Inbox {
    pub(crate) mailbox: Mailbox,
    pub(crate) refresh_token: String,
    /// Its messages, as they are announced.
    pub(crate) messages: Vec<GmailMessageDiscovered>,
}

/// A simulated Gmail and its mailboxes.
pub(crate) struct Inboxes {
    pub(crate) simulator: Running,
    pub(crate) all: Vec<Arc<Inbox>>,
}

/// How many mailboxes there are, and what is in them.
pub(crate) struct Wanted<'a> {
    /// Part of the addresses: accounts are known by them.
    pub(crate) name: &'a str,
    pub(crate) mailboxes: usize,
    /// In each.
    pub(crate) messages: usize,
}

impl Inboxes {
    /// Starts a Gmail, and connects mailboxes with messages.
    pub(crate) async fn start(
        store: &Store,
        settings: simulator::Settings,
        wanted: &Wanted<'_>,
    ) -> anyhow::Result<Self> {
        let simulator = simulator::start(settings).await?;
        let organisation_id = organisations::create(store, wanted.name, now()).await?.organisation_id;
        let mut all = Vec::with_capacity(wanted.mailboxes);
        for number in 0..wanted.mailboxes {
            let email = format!("{}-{number}@example.com", wanted.name);
            let control = simulator.control();
            let new = NewMailbox { email: email.clone(), ..NewMailbox::default() };
            let refresh_token = control.create(&new).context("Creating a mailbox")?.refresh_token;
            let delivered = control.deliver(&email, Mails::Synthetic(wanted.messages), &Delivery::default())?;
            let secret = SecretString::from(refresh_token.clone());
            let consent = Consent { account: &email, email: &email, refresh_token: &secret };
            let connection = connections::add(store, organisation_id, &consent, now()).await?;
            let mailbox = Mailbox { organisation_id, connection_id: connection.connection_id };
            let messages = delivered.iter().map(|truth| announcement(mailbox, MessageId::new(&truth.id))).collect();
            all.push(Arc::new(Inbox { mailbox, refresh_token, messages }));
        }
        Ok(Self { simulator, all })
    }

    /// What a client of this Gmail is set up with: all the quota is the fetcher's.
    pub(crate) fn client(&self, tariff: Tariff, quota: Quota) -> anyhow::Result<gmail::Settings> {
        Ok(gmail::Settings {
            api_url: self.simulator.base_url.parse()?,
            token_url: format!("{}/token", self.simulator.base_url.trim_end_matches('/')).parse()?,
            client_id: "client".to_owned(),
            client_secret: Some("secret".into()),
            tariff,
            quota: Quota { poller: 0.0, fetcher: 1.0, ingress: 0.0, ..quota },
            ..gmail::Settings::default()
        })
    }
}

/// How the poller announces a message.
pub(crate) fn announcement(mailbox: Mailbox, message: MessageId) -> GmailMessageDiscovered {
    GmailMessageDiscovered {
        event_id: EventId::of(mailbox.connection_id, &message),
        organisation_id: mailbox.organisation_id,
        connection_id: mailbox.connection_id,
        thread_id: message.clone(),
        message_id: message,
        label_ids: Some(["INBOX", "UNREAD", "CATEGORY_PERSONAL"].map(Label::new).to_vec()),
        history_id: None,
        origin: Origin::Live,
        job_id: None,
        discovered_at: now(),
    }
}

/// The record that it is written as.
pub(crate) fn written(event: &GmailMessageDiscovered, partitions: i32) -> Bytes {
    let value = events::encode(event);
    let trace = TraceParent::new(rand::random(), rand::random());
    let headers = Envelope::new("urn:mailtide:bench", event.discovered_at, trace).headers(event, &value);
    let key = event.connection_id.to_string().into_bytes();
    Bytes {
        partition: kafka::partition_of(&key, partitions),
        key,
        value: value.to_vec(),
        headers: headers.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec())).collect(),
    }
}
