//! What the order of each mailbox costs the others: records that each take a while, of few mailboxes and of many,
//! through the fetcher's lane. However they are worked off, it takes as long as the mailbox with the most work, and as
//! all the work takes on as many places as there are; the longer of the two is the bound.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::ensure;
use domain::mailbox::reply::CallError;
use domain::{ConnectionId, FetchFilter, MessageId, OrganisationId, TokenVersion};
use fetcher::{Away, Mailboxes};
use gmail::{Mailbox, Message, Part, Read};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use store::fetching::Terms;
use uuid::Uuid;

use crate::bare::Bytes;
use crate::fetching::Fetching;
use crate::inboxes::{announcement, written};
use crate::options::Options;
use crate::place::Place;
use crate::progress::Progress;
use crate::report::Outcome;

/// Records of one measurement.
const RECORDS: usize = 10_000;

/// How long one record takes at most; each takes a time between none and this.
const WORK: Duration = Duration::from_millis(5);

/// Mailboxes that are read at a time.
const PLACES: u16 = 16;

/// A sleep ends with the next tick of the clock of sleeps. What is late beyond that is not work, but ours.
const TICK: Duration = Duration::from_millis(1);

/// How often each is measured at most: with a single mailbox it takes 25 s.
const ROUNDS: u32 = 3;

/// What all that is random is drawn from.
const SEED: u64 = 2026;

/// How many mailboxes the records are of.
const SPACES: [(usize, &str); 4] = [
    (1, "work in order, 1 key"),
    (20, "work in order, 20 keys"),
    (1_000, "work in order, 1,000 keys"),
    (10_000, "work in order, 10,000 keys"),
];

/// Message ids begin here and rise by one: the number of the record.
const FIRST: u64 = 0x19a0_0000_0000_0000;

/// Mailboxes whose messages take as long to be read as was drawn, and hold nothing.
struct Sleepers {
    terms: Arc<Terms>,
    /// How long each message takes, by its number.
    work: Vec<Duration>,
    /// How long those of each mailbox took.
    worked: Mutex<HashMap<ConnectionId, Duration>>,
}

impl Sleepers {
    fn new(random: &mut StdRng) -> Self {
        let work = (0..RECORDS).map(|_| WORK.mul_f64(random.random())).collect();
        let terms = Terms { filter: FetchFilter::default(), token_version: TokenVersion(1) };
        Self { terms: Arc::new(terms), work, worked: Mutex::default() }
    }

    /// How long all that was read since the last time takes at least.
    fn bound(&self) -> Duration {
        let worked = std::mem::take(&mut *self.worked.lock().unwrap_or_else(PoisonError::into_inner));
        let all: Duration = worked.values().sum();
        let longest = worked.into_values().max().unwrap_or_default();
        longest.max(all / u32::from(PLACES))
    }

    fn work(&self, message: &MessageId) -> Duration {
        let number = message.as_u64().and_then(|id| usize::try_from(id - FIRST).ok());
        number.and_then(|number| self.work.get(number)).copied().unwrap_or_default()
    }
}

impl Mailboxes for Sleepers {
    /// One message after the other.
    async fn read(&self, mailbox: Mailbox, ids: &[MessageId], oldest: TokenVersion) -> Read {
        let work: Duration = ids.iter().map(|id| self.work(id)).sum();
        let begun = Instant::now();
        tokio::time::sleep(work).await;
        let worked = begun.elapsed().min(work + TICK);
        let mut all = self.worked.lock().unwrap_or_else(PoisonError::into_inner);
        *all.entry(mailbox.connection_id).or_default() += worked;
        let messages = ids.iter().map(message).collect();
        Read { messages, date: None, units: 0, token_version: oldest }
    }

    async fn terms(&self, _: Mailbox) -> Result<Option<Arc<Terms>>, Away> {
        Ok(Some(self.terms.clone()))
    }

    async fn answers(&self, _: Mailbox, _: TokenVersion) -> bool {
        true
    }

    async fn versions(
        &self,
        connections: Vec<(OrganisationId, ConnectionId)>,
    ) -> Result<Vec<(ConnectionId, TokenVersion)>, Away> {
        Ok(connections.into_iter().map(|(_, connection)| (connection, self.terms.token_version)).collect())
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

pub(crate) async fn run(place: &Place, options: &Options) -> anyhow::Result<Vec<Outcome>> {
    let progress = Progress::start("keys");
    progress.say("warming up");
    let kafka = place.kafka("keys");
    let mut random = StdRng::seed_from_u64(SEED);
    let sleepers = Arc::new(Sleepers::new(&mut random));
    let (ours, mailboxes) = (kafka.clone(), sleepers.clone());
    let settings = fetcher::Settings { mailboxes: PLACES, ..fetcher::Settings::default() };
    ensure!(settings.lanes == 1, "A single lane is measured, and the default is {}", settings.lanes);
    let mut fetching = Fetching::start(&kafka, move |health, shutdown| async move {
        fetcher::run_on(&settings, &ours, mailboxes, health, shutdown).await
    })
    .await?;
    // Whatever is measured begins with a process that has been at work.
    let (most, _) = SPACES[SPACES.len() - 1];
    for _ in 0..ROUNDS {
        fetching.announce(&drawn(&mut random, most, kafka.partitions))?;
        fetching.fetched(RECORDS).await?;
    }
    let mut outcomes = Vec::with_capacity(SPACES.len());
    let rounds = options.rounds.min(ROUNDS);
    for (keys, name) in SPACES {
        let mut measured = Vec::new();
        for number in 1..=rounds {
            let announcements = drawn(&mut random, keys, kafka.partitions);
            sleepers.bound();
            let begun = fetching.announce(&announcements)?;
            fetching.fetched(RECORDS).await?;
            let (took, bound) = (begun.elapsed(), sleepers.bound());
            progress.say(&format!(
                "{keys} keys: round {number} of {rounds}: {:.2} s, at least {:.2} s",
                took.as_secs_f64(),
                bound.as_secs_f64()
            ));
            let rate = |took: Duration| RECORDS as f64 / took.as_secs_f64();
            measured.push((rate(took), rate(bound)));
        }
        outcomes.push(Outcome::of_rates(name, "records/s", &measured, 0.9));
    }
    fetching.stop().await?;
    Ok(outcomes)
}

/// All records, each of one of so many mailboxes.
fn drawn(random: &mut StdRng, keys: usize, partitions: i32) -> Vec<Bytes> {
    let organisation_id = OrganisationId::from_uuid(Uuid::from_u128(random.random()));
    let mut mailbox = || {
        let connection_id = ConnectionId::from_uuid(Uuid::from_u128(random.random()));
        Mailbox { organisation_id, connection_id }
    };
    let mailboxes: Vec<Mailbox> = (0..keys).map(|_| mailbox()).collect();
    let record = |id| {
        let mailbox = mailboxes[random.random_range(0..keys)];
        written(&announcement(mailbox, MessageId::from_u64(id)), partitions)
    };
    (FIRST..).take(RECORDS).map(record).collect()
}
