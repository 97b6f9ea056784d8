//! What fetching costs by itself: the same client, the same batches, as many mailboxes at a time, the same records. What
//! was read is handed to a producer and forgotten: no announcement is read, no offset is kept, nothing is done once only.

use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use domain::{GmailMessageDiscovered, Lane, MessageId, TokenVersion};
use events::TraceParent;
use events::headers::Envelope;
use futures_util::future::try_join_all;
use gmail::{Client, Gate, Reading, Service, View};
use grants::Grants;
use rdkafka::producer::{BaseProducer, BaseRecord};
use store::Store;
use tokio::task::block_in_place;

use crate::bare;
use crate::inboxes::Inbox;
use crate::syncs::now;

/// Messages that are asked for at a time; how many of them make a batch is the client's affair.
const CHUNK: usize = 25;

/// How long that may take.
const READING: Duration = Duration::from_secs(60);

pub(super) struct Plain {
    pub(super) topic: String,
    client: Client,
    producer: Arc<BaseProducer>,
}

impl Plain {
    pub(super) fn start(
        kafka: &kafka::Settings,
        gmail: &gmail::Settings,
        store: &Store,
        topic: String,
    ) -> anyhow::Result<Self> {
        let client = Client::new(gmail, Arc::new(Grants::new(store.clone())), Gate::new(gmail, Service::Fetcher))?;
        let producer = bare::producer(kafka).set("delivery.report.only.error", "true").create()?;
        Ok(Self { topic, client, producer: Arc::new(producer) })
    }

    /// Fetches so many messages of each mailbox.
    pub(super) async fn fetch(&self, inboxes: &[Arc<Inbox>], each: usize) -> anyhow::Result<()> {
        let tasks = inboxes.iter().map(|inbox| {
            let (client, producer, topic) = (self.client.clone(), self.producer.clone(), self.topic.clone());
            let inbox = inbox.clone();
            tokio::spawn(async move { fetch(&client, &producer, &topic, &inbox, each).await })
        });
        for fetched in try_join_all(tasks).await? {
            fetched?;
        }
        block_in_place(|| bare::drain(&self.producer));
        Ok(())
    }
}

async fn fetch(
    client: &Client,
    producer: &BaseProducer,
    topic: &str,
    inbox: &Inbox,
    each: usize,
) -> anyhow::Result<()> {
    let key = inbox.mailbox.connection_id.to_string();
    let wanted: Vec<&GmailMessageDiscovered> = inbox.messages.iter().cycle().take(each).collect();
    for chunk in wanted.chunks(CHUNK) {
        let ids: Vec<MessageId> = chunk.iter().map(|event| event.message_id.clone()).collect();
        let deadline = tokio::time::Instant::now() + READING;
        let reading = Reading { lane: Lane::Fetch, view: View::Full, deadline, token_version: TokenVersion(1) };
        let read = client.get_messages(inbox.mailbox, &ids, &reading).await;
        let at = now();
        for (event, message) in chunk.iter().zip(read.messages) {
            let message = message.map_err(|error| anyhow!("Reading a message failed: {error:?}"))?;
            let fetched = gmail::fetched(event, &message, at);
            let frame = events::encode(&fetched);
            let trace = TraceParent::new(rand::random(), rand::random());
            let headers = Envelope::new("urn:mailtide:bench", at, trace).headers(&fetched, &frame);
            let pairs = headers.iter().map(|(name, value)| (*name, &value[..]));
            let record = BaseRecord::to(topic).key(key.as_bytes()).payload(&frame[..]);
            bare::hand_over(producer, record.headers(bare::headers(pairs, headers.len())))?;
        }
    }
    Ok(())
}
