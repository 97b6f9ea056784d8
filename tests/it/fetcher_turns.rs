//! The turns of the fetcher's mailboxes, with Gmail stood in for by what says who is read when: a bounded number at a
//! time, each in its order, and what waits goes with its partition.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use domain::mailbox::reply::CallError;
use domain::{
    ConnectionId, EventId, FetchFilter, GmailMessageDiscovered, MessageId, OrganisationId, Origin, TokenVersion,
};
use fetcher::{Away, Mailboxes};
use futures_util::future::join_all;
use gmail::{Mailbox, Message, Part, Read};
use kafka::topics::{self, Topic, Topics};
use kafka::{Headers, OutRecord, Producer};
use runtime::Shutdown;
use runtime::health::Health;
use store::fetching::Terms;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::house::now;
use crate::support::{Place, committed, wait_until};

/// Mailboxes that fail pause for some seconds.
const PATIENCE: Duration = Duration::from_secs(300);

/// What has been seen of the readings.
#[derive(Debug, Default)]
struct Seen {
    /// Those under way.
    now: BTreeMap<ConnectionId, usize>,
    /// Most of them at a time, and most of one mailbox.
    most: usize,
    most_of_one: usize,
    /// The mailboxes, as they were begun with.
    begun: Vec<ConnectionId>,
}

/// Stands in for Gmail.
struct Stub {
    seen: Mutex<Seen>,
    /// Those that are not answered until the word is given.
    stuck: BTreeSet<ConnectionId>,
    released: watch::Sender<bool>,
    /// The first readings of these bring no answer, or all but that of the last message.
    failing: Mutex<BTreeMap<ConnectionId, CallError>>,
}

impl Stub {
    fn new(stuck: impl IntoIterator<Item = ConnectionId>) -> Arc<Self> {
        let stuck = stuck.into_iter().collect();
        Arc::new(Self { seen: Mutex::default(), stuck, released: watch::Sender::new(false), failing: Mutex::default() })
    }

    fn begun(&self) -> Vec<ConnectionId> {
        self.seen.lock().unwrap().begun.clone()
    }

    /// Most readings at a time, and most of one mailbox.
    fn most(&self) -> (usize, usize) {
        let seen = self.seen.lock().unwrap();
        (seen.most, seen.most_of_one)
    }

    fn release(&self) {
        self.released.send_replace(true);
    }
}

/// A reading under way; it may be given up midway.
struct UnderWay<'a>(&'a Stub, ConnectionId);

impl<'a> UnderWay<'a> {
    fn begin(stub: &'a Stub, id: ConnectionId) -> Self {
        let seen = &mut *stub.seen.lock().unwrap();
        let of_one = seen.now.entry(id).or_default();
        *of_one += 1;
        seen.most_of_one = seen.most_of_one.max(*of_one);
        seen.most = seen.most.max(seen.now.values().sum());
        seen.begun.push(id);
        Self(stub, id)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        *self.0.seen.lock().unwrap().now.entry(self.1).or_default() -= 1;
    }
}

impl Mailboxes for Stub {
    async fn read(&self, mailbox: Mailbox, ids: &[MessageId], oldest: TokenVersion) -> Read {
        let _under_way = UnderWay::begin(self, mailbox.connection_id);
        if self.stuck.contains(&mailbox.connection_id) {
            self.released.subscribe().wait_for(|released| *released).await.unwrap();
        }
        // So that readings end in another order than they began.
        let length = u64::from(mailbox.connection_id.as_uuid().as_bytes()[0] % 4) + 1;
        tokio::time::sleep(Duration::from_millis(length)).await;
        let mut messages: Vec<_> = ids.iter().map(message).collect();
        let error = if ids.len() < 2 { None } else { self.failing.lock().unwrap().remove(&mailbox.connection_id) };
        match error {
            Some(CallError::Transient { detail }) => {
                messages.fill_with(|| Err(CallError::Transient { detail: detail.clone() }));
            }
            Some(error) => messages[0] = Err(error),
            None => {}
        }
        Read { messages, date: None, units: 0, token_version: oldest }
    }

    async fn terms(&self, _: Mailbox) -> Result<Option<Arc<Terms>>, Away> {
        Ok(Some(Arc::new(Terms { filter: FetchFilter::default(), token_version: TokenVersion(1) })))
    }

    async fn answers(&self, _: Mailbox, _: TokenVersion) -> bool {
        true
    }

    async fn versions(
        &self,
        _: Vec<(OrganisationId, ConnectionId)>,
    ) -> Result<Vec<(ConnectionId, TokenVersion)>, Away> {
        Ok(Vec::new())
    }
}

fn message(id: &MessageId) -> Result<Message, CallError> {
    Ok(Message {
        id: id.clone(),
        thread_id: id.clone(),
        labels: Vec::new(),
        history_id: None,
        internal_date: None,
        size_estimate: None,
        snippet: String::new(),
        payload: Part::default(),
    })
}

/// Topics of a test's own.
struct Corner {
    place: Place,
    kafka: kafka::Settings,
    topics: Topics,
    organisation: OrganisationId,
}

impl Corner {
    async fn new(name: &str) -> Self {
        let place = Place::new(name);
        let kafka = kafka::Settings::read(&mut place.source());
        let topics = Topics::new(&kafka.topic_prefix);
        topics::create(&kafka, &topics, &Topic::ALL).await.unwrap();
        Self { place, kafka, topics, organisation: OrganisationId::from_uuid(Uuid::new_v4()) }
    }

    /// Announces a message of each of these mailboxes, and another, as often as it says.
    async fn announce(&self, mailboxes: &[ConnectionId], times: u64) {
        let producer = Producer::new(&self.kafka, "tests").unwrap();
        let topic = self.topics.name(Topic::Discovered);
        for number in 1..=times {
            let sent = mailboxes.iter().map(|id| {
                let record =
                    OutRecord::new(topic, id.to_string(), events::encode(&self.event(*id, number)), Headers::new());
                let (record, producer) = (record.to_partition(self.partition(*id)), &producer);
                async move { producer.send(&record).await }
            });
            for sent in join_all(sent).await {
                sent.unwrap();
            }
        }
    }

    fn event(&self, connection_id: ConnectionId, number: u64) -> GmailMessageDiscovered {
        let message_id = MessageId::from_u64(number);
        GmailMessageDiscovered {
            event_id: EventId::of(connection_id, &message_id),
            organisation_id: self.organisation,
            connection_id,
            thread_id: message_id.clone(),
            message_id,
            label_ids: None,
            history_id: None,
            origin: Origin::Live,
            job_id: None,
            discovered_at: now(),
        }
    }

    fn partition(&self, id: ConnectionId) -> i32 {
        kafka::partition_of(id.to_string().as_bytes(), self.kafka.partitions)
    }

    /// The messages of each mailbox that are fetched, in their order.
    async fn fetched(&self) -> BTreeMap<String, Vec<String>> {
        let mut fetched: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for record in committed(&self.place.topic("gmail.message.fetched")).await {
            let value = events::to_json(record.value.as_deref().unwrap()).unwrap();
            fetched.entry(record.key_text()).or_default().push(value["messageId"].as_str().unwrap().to_owned());
        }
        fetched
    }

    /// Waits until so many messages of each of these mailboxes are fetched, and checks that they are so once and in
    /// their order.
    async fn all_fetched(&self, mailboxes: &[ConnectionId], times: u64) {
        let wanted: Vec<String> = (1..=times).map(|number| MessageId::from_u64(number).to_string()).collect();
        wait_until(PATIENCE, "all are fetched", || async {
            let fetched = self.fetched().await;
            mailboxes.iter().all(|id| fetched.get(&id.to_string()).is_some_and(|of| of.len() >= wanted.len()))
        })
        .await;
        let fetched = self.fetched().await;
        for id in mailboxes {
            assert_eq!(fetched[&id.to_string()], wanted, "{id}");
        }
    }

    /// A fetcher that reads so many mailboxes at a time.
    fn fetcher(&self, instance: &str, places: u16, stub: &Arc<Stub>) -> (Shutdown, JoinHandle<anyhow::Result<()>>) {
        let settings = fetcher::Settings { mailboxes: places, ..fetcher::Settings::default() };
        let mut kafka = self.kafka.clone();
        instance.clone_into(&mut kafka.instance);
        let (stub, shutdown) = (stub.clone(), Shutdown::new());
        let until = shutdown.clone();
        let run = async move { fetcher::run_on(&settings, &kafka, stub, Health::new(), until).await };
        (shutdown, tokio::spawn(run))
    }
}

fn connections(count: usize) -> Vec<ConnectionId> {
    (0..count).map(|_| ConnectionId::from_uuid(Uuid::new_v4())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mailbox_has_one_place_and_its_order_however_many_wait() {
    const PLACES: u16 = 3;
    let corner = Corner::new("turns").await;
    // More of those with little than ever wait for a place, and some with much, which go on by themselves.
    let (large, small) = (connections(12), connections(400));
    let stub = Stub::new([large[0]]);
    let failing = [
        (large[1], CallError::Transient { detail: "not now".to_owned() }),
        (large[2], CallError::Broken { detail: "not this one".to_owned() }),
        (large[3], CallError::NotFound),
    ];
    stub.failing.lock().unwrap().extend(failing);
    corner.announce(&large, 150).await;
    corner.announce(&small, 1).await;
    let (shutdown, fetcher) = corner.fetcher("one", PLACES, &stub);
    // One that is not answered keeps its place and no other.
    corner.all_fetched(&large[1..], 150).await;
    corner.all_fetched(&small, 1).await;
    assert!(!corner.fetched().await.contains_key(&large[0].to_string()));
    stub.release();
    corner.all_fetched(&large, 150).await;
    assert_eq!(stub.most(), (usize::from(PLACES), 1));
    shutdown.request();
    fetcher.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_place_goes_with_its_partition() {
    let corner = Corner::new("turns-lost").await;
    let mailboxes = connections(60);
    corner.announce(&mailboxes, 2).await;
    let (stuck, quick) = (Stub::new(mailboxes.iter().copied()), Stub::new([]));
    let one = corner.fetcher("one", 1, &stuck);
    wait_until(PATIENCE, "one is read", || async { !stuck.begun().is_empty() }).await;
    // Half of the partitions go to another, and with them whoever waits, or is read.
    let other = corner.fetcher("other", 1, &quick);
    let partition = |id: &ConnectionId| corner.partition(*id);
    let moved = || async {
        let fetched = corner.fetched().await;
        let of = |wanted: i32| mailboxes.iter().filter(move |id| partition(id) == wanted);
        let is_fetched = |id: &ConnectionId| fetched.get(&id.to_string()).is_some_and(|of| of.len() == 2);
        (0..corner.kafka.partitions).filter(|partition| of(*partition).all(is_fetched)).collect::<BTreeSet<i32>>()
    };
    let half = usize::try_from(corner.kafka.partitions / 2).unwrap();
    wait_until(PATIENCE, "half of the partitions are fetched", || async { moved().await.len() == half }).await;
    let moved = moved().await;
    let before = stuck.begun().len();
    stuck.release();
    corner.all_fetched(&mailboxes, 2).await;
    let begun = stuck.begun();
    let strays: Vec<_> = begun[before..].iter().filter(|id| moved.contains(&partition(id))).collect();
    assert!(strays.is_empty(), "{strays:?} were read by whom they had been taken from");
    assert!(quick.begun().iter().all(|id| moved.contains(&partition(id))), "nobody else's were read");
    for (shutdown, fetcher) in [one, other] {
        shutdown.request();
        fetcher.await.unwrap().unwrap();
    }
}
