//! What goes on meanwhile: mail arrives and is moved about, syncs and backfills are asked for and cancelled, mailboxes are
//! connected and deleted.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use simulator::{Behaviour, Control, Delivery, Mails, NewMailbox};
use tokio::task::JoinSet;

use crate::api::Api;

/// Records of history show only after up to so long in some mailboxes.
pub(crate) const LAG: Duration = Duration::from_millis(800);

/// How often what the load does goes on, in milliseconds between two of a kind.
const MAIL: Range<u64> = 50..250;
const SYNCS: Range<u64> = 80..400;
const CANCELS: Range<u64> = 500..2_500;
const BACKFILLS: Range<u64> = 2_000..6_000;
const COMINGS_AND_GOINGS: Range<u64> = 1_500..6_000;

/// How far back a backfill reaches: what it announces again costs quota again.
const BACKFILL: Duration = Duration::from_secs(60);

/// The load. It ends when it is told to.
pub(crate) struct Load {
    going: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

/// What the tasks share.
#[derive(Clone)]
struct Shared {
    api: Api,
    control: Control,
    going: Arc<AtomicBool>,
    made: Arc<AtomicUsize>,
    /// So many mailboxes are connected at a time at most: a long run is not to become another one.
    most: usize,
}

/// Makes so many mailboxes, with some mail in them, and connects them.
pub(crate) async fn connect_all(api: &Api, control: &Control, count: usize, seed: u64) -> anyhow::Result<()> {
    let mut random = StdRng::seed_from_u64(seed);
    for number in 0..count {
        let email = make(control, number, &mut random)?;
        let mut tries = 0..100;
        while api.connect(&email).await.is_none() {
            anyhow::ensure!(tries.next().is_some(), "{email} cannot be connected, though nothing is wrong yet");
            moment(&mut random, 50..100).await;
        }
    }
    Ok(())
}

/// Makes a mailbox at Gmail.
fn make(control: &Control, number: usize, random: &mut StdRng) -> anyhow::Result<String> {
    let email = format!("m{number}@chaos.example");
    control.create(&NewMailbox { email: email.clone(), ..NewMailbox::default() })?;
    control.deliver(&email, Mails::Synthetic(random.random_range(0..20)), &Delivery::default())?;
    Ok(email)
}

/// Lets some time pass: the moment is what is random here, and no condition is waited for.
async fn moment(random: &mut StdRng, ms: Range<u64>) {
    tokio::time::sleep(Duration::from_millis(random.random_range(ms))).await;
}

impl Load {
    /// Begins. The mailboxes made before were numbered up to `made`.
    pub(crate) fn begin(api: &Api, control: &Control, made: usize, seed: u64) -> Self {
        let going = Arc::new(AtomicBool::new(true));
        let shared = Shared {
            api: api.clone(),
            control: control.clone(),
            going: going.clone(),
            made: Arc::new(made.into()),
            most: 2 * made,
        };
        let mut tasks = JoinSet::new();
        let mut random = StdRng::seed_from_u64(seed);
        let mut random = || StdRng::seed_from_u64(random.random());
        tasks.spawn(shared.clone().mail(random()));
        for _ in 0..2 {
            tasks.spawn(shared.clone().syncs(random()));
        }
        tasks.spawn(shared.clone().cancels(random()));
        tasks.spawn(shared.clone().backfills(random()));
        tasks.spawn(shared.comings_and_goings(random()));
        Self { going, tasks }
    }

    /// Ends it.
    pub(crate) async fn end(self) {
        self.going.store(false, Ordering::Relaxed);
        self.tasks.join_all().await;
    }
}

impl Shared {
    fn goes_on(&self) -> bool {
        self.going.load(Ordering::Relaxed)
    }

    /// One of the connections that live.
    fn any(&self, random: &mut StdRng) -> Option<(String, String)> {
        self.api.ledger.living().choose(random).cloned()
    }

    async fn mail(self, mut random: StdRng) {
        while self.goes_on() {
            moment(&mut random, MAIL).await;
            let Some((_, email)) = self.any(&mut random) else { continue };
            // A burst is more than the mailbox's budget for reading has room for at once.
            let count = if random.random_ratio(1, 400) { 60 } else { random.random_range(1..4) };
            let labels = random.random_ratio(1, 25).then(|| vec!["SPAM".to_owned()]);
            let how = Delivery { labels, ..Delivery::default() };
            let delivered = self.control.deliver(&email, Mails::Synthetic(count), &how).expect("it was made");
            let one = delivered.choose(&mut random).expect("at least one is delivered").id.as_str();
            let moved = match random.random_range(0..60) {
                0 => self.control.trash(&email, &[one]),
                1 => self.control.spam(&email, &[one]),
                2 => self.control.delete(&email, &[one]),
                3 => self.control.relabel(&email, &[one], &["STARRED"], &["UNREAD"]),
                _ => Ok(()),
            };
            moved.expect("the message is there");
        }
    }

    async fn syncs(self, mut random: StdRng) {
        while self.goes_on() {
            moment(&mut random, SYNCS).await;
            let Some((connection, _)) = self.any(&mut random) else { continue };
            self.api.sync(&connection).await;
        }
    }

    async fn cancels(self, mut random: StdRng) {
        while self.goes_on() {
            moment(&mut random, CANCELS).await;
            let Some(job) = self.api.ledger.recent(random.random_range(0..5)) else { continue };
            self.api.cancel(&job).await;
        }
    }

    async fn backfills(self, mut random: StdRng) {
        while self.goes_on() {
            moment(&mut random, BACKFILLS).await;
            let Some((connection, _)) = self.any(&mut random) else { continue };
            let until = jiff::Timestamp::now();
            let window = json!({"since": (until - BACKFILL).to_string(), "until": until.to_string()});
            self.api.job(&format!("/gmail-connections/{connection}/backfill"), Some(&window)).await;
        }
    }

    /// New mailboxes are connected, old ones deleted, and some of those connected anew.
    async fn comings_and_goings(self, mut random: StdRng) {
        let mut gone: Vec<String> = Vec::new();
        while self.goes_on() {
            moment(&mut random, COMINGS_AND_GOINGS).await;
            match random.random_range(0..3) {
                0 => {
                    if self.api.ledger.living().len() >= self.most {
                        continue;
                    }
                    let number = self.made.fetch_add(1, Ordering::Relaxed);
                    let email = make(&self.control, number, &mut random).expect("its number is new");
                    if random.random_ratio(1, 4) {
                        self.lag(&email);
                    }
                    self.api.connect(&email).await;
                }
                1 => {
                    let Some((connection, email)) = self.any(&mut random) else { continue };
                    self.api.delete(&connection).await;
                    gone.push(email);
                }
                _ => {
                    let Some(email) = gone.pop() else { continue };
                    self.api.connect(&email).await;
                }
            }
        }
    }

    /// Lets a mailbox hide its history for a while.
    fn lag(&self, email: &str) {
        let history_lag_ms = i64::try_from(LAG.as_millis()).expect("a short time");
        let behaviour = Behaviour { history_lag_ms, ..Behaviour::default() };
        self.control.set_behaviour(Some(email), behaviour).expect("it was made");
        self.api.ledger.lags(email);
    }
}
