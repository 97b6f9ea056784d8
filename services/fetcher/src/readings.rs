//! The readings of one lane: in their turn, a bounded number at a time.
//!
//! The lane's thread commits most of the time where readings are short, and starts nothing meanwhile. So readings are
//! handed over ahead of their time, and each waits for a *place*: one that ends makes room for the next by itself. A
//! mailbox that holds more than one reading takes is given the next one along, its *sequel*, and goes on with it if
//! nobody else waits for the place. What a reading came to is sent before its sequel begins, so each mailbox's results
//! come in their order.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use domain::TokenVersion;
use kafka::lane::{Assignment, DoneSender};
use runtime::trace::{Span, is_on};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::app::Done;
use crate::mailboxes::Mailboxes;
use crate::publish::Names;
use crate::reading::{self, Due, Report};

/// Readings that may wait for a place: more than end while a transaction is committed.
const AHEAD: usize = 256;

/// KiB of results that may wait for the lane's thread. Beyond that whoever has a result keeps its place.
const BACKLOG: u32 = 16 << 10;

/// A reading that takes longer is not followed by its sequel: the lane's thread is quicker, and may think better of it.
const QUICK: Duration = Duration::from_millis(500);

/// The most traces that one reading is told of.
const TRACES: usize = 32;

/// Mailboxes waiting for their turn, and those being read.
pub(crate) struct Readings<M> {
    reader: Reader<M>,
    runtime: Handle,
    /// The most that may be handed over.
    most: usize,
    ready: VecDeque<(Assignment, Bytes)>,
    /// Those handed over, by their partition. Dropped, they are given up: they would spend what is its next owner's.
    under_way: BTreeMap<Assignment, (JoinSet<()>, usize)>,
    running: usize,
    /// When one was handed over or came back last.
    moved: Option<Instant>,
}

/// What a mailbox that is being read goes on with.
#[derive(Debug)]
pub(crate) struct Sequel(mpsc::Sender<Vec<Due>>);

impl Sequel {
    /// Gives it more. Where that comes too late nothing is lost: the mailbox still holds the records.
    pub(crate) fn offer(&self, due: Vec<Due>) {
        let _ = self.0.try_send(due);
    }
}

/// What a reading came to.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The mailbox.
    pub(crate) key: Bytes,
    /// The offsets of the records that it was for.
    pub(crate) asked: Vec<i64>,
    pub(crate) report: Report,
    /// How long it took, without waiting for a place.
    pub(crate) took: Duration,
    /// Whether its sequel has begun.
    pub(crate) goes_on: bool,
    /// Its part of the results that may wait.
    pub(crate) room: Option<OwnedSemaphorePermit>,
}

impl<M: Mailboxes> Readings<M> {
    /// None under way, and at most so many at a time.
    pub(crate) fn new(mailboxes: Arc<M>, runtime: Handle, done: DoneSender<Done>, names: Names, places: usize) -> Self {
        let places = places.max(1);
        let reader = Reader {
            mailboxes,
            names: Arc::new(names),
            done,
            places: Arc::new(Semaphore::new(places)),
            backlog: Arc::new(Semaphore::new(BACKLOG as usize)),
        };
        let most = places + AHEAD;
        Self { reader, runtime, most, ready: VecDeque::new(), under_way: BTreeMap::new(), running: 0, moved: None }
    }

    /// A mailbox is to be read when its turn comes.
    pub(crate) fn push(&mut self, assignment: Assignment, key: Bytes) {
        self.ready.push_back((assignment, key));
    }

    /// The mailbox whose turn it is, if another one may be handed over.
    pub(crate) fn next(&mut self) -> Option<(Assignment, Bytes)> {
        if self.running < self.most { self.ready.pop_front() } else { None }
    }

    /// Reads messages of a mailbox, and then those of its sequel if there is one.
    pub(crate) fn start(
        &mut self,
        assignment: Assignment,
        key: Bytes,
        due: Vec<Due>,
        then: Option<Vec<Due>>,
        oldest: TokenVersion,
    ) -> Option<Sequel> {
        self.moved = Some(Instant::now());
        self.running += 1;
        let (tasks, running) = self.under_way.entry(assignment).or_default();
        *running += 1;
        let (sequel, more) = then.map(sequel).unzip();
        tasks.spawn_on(self.reader.clone().run(assignment, key, due, more, oldest), &self.runtime);
        sequel
    }

    /// Notes that the result of one has been taken in; `goes_on`: its sequel is under way.
    pub(crate) fn ended(&mut self, assignment: Assignment, goes_on: bool) {
        self.moved = Some(Instant::now());
        let Some((tasks, running)) = self.under_way.get_mut(&assignment) else { return };
        while tasks.try_join_next().is_some() {}
        if goes_on {
            return;
        }
        self.running -= 1;
        *running -= 1;
        if *running == 0 {
            self.under_way.remove(&assignment);
        }
    }

    /// Drops what waits for a partition that is gone, and gives up what is handed over for it.
    pub(crate) fn forget(&mut self, assignment: Assignment) {
        self.ready.retain(|(of, _)| *of != assignment);
        if let Some((_, running)) = self.under_way.remove(&assignment) {
            self.running -= running;
        }
    }

    /// Whether one is under way, and one was started or came back so recently that an answer may come any moment.
    pub(crate) fn is_busy(&self, patience: Duration) -> bool {
        self.running > 0 && self.moved.is_some_and(|moved| moved.elapsed() < patience)
    }
}

/// A sequel that has something already.
fn sequel(then: Vec<Due>) -> (Sequel, mpsc::Receiver<Vec<Due>>) {
    let (sender, more) = mpsc::channel(1);
    let sequel = Sequel(sender);
    sequel.offer(then);
    (sequel, more)
}

/// Reads off the lane's thread.
struct Reader<M> {
    mailboxes: Arc<M>,
    names: Arc<Names>,
    done: DoneSender<Done>,
    /// Held while messages are read. Whoever waits longest is next.
    places: Arc<Semaphore>,
    /// Room for results, in KiB.
    backlog: Arc<Semaphore>,
}

impl<M> Clone for Reader<M> {
    fn clone(&self) -> Self {
        Self {
            mailboxes: self.mailboxes.clone(),
            names: self.names.clone(),
            done: self.done.clone(),
            places: self.places.clone(),
            backlog: self.backlog.clone(),
        }
    }
}

impl<M: Mailboxes> Reader<M> {
    async fn run(
        self,
        assignment: Assignment,
        key: Bytes,
        mut due: Vec<Due>,
        mut more: Option<mpsc::Receiver<Vec<Due>>>,
        oldest: TokenVersion,
    ) {
        // The semaphores are never closed.
        let Ok(mut place) = self.places.clone().acquire_owned().await else { return };
        loop {
            let begun = Instant::now();
            let span = span_of(&due);
            let report = span.scope(reading::read(&*self.mailboxes, &self.names, &due, oldest)).await;
            if let Some(trouble) = &report.trouble {
                span.fail(trouble.as_str());
            }
            drop(span);
            let took = begun.elapsed();
            let asked: Vec<i64> = due.iter().map(|due| due.record.offset).collect();
            let kib = u32::try_from(report.bytes().div_ceil(1 << 10)).unwrap_or(BACKLOG).min(BACKLOG);
            let room = self.backlog.clone().acquire_many_owned(kib).await.ok();
            let next = match &mut more {
                Some(more) if took < QUICK && report.is_whole(asked.len()) => more.try_recv().ok(),
                _ => None,
            };
            // It goes to whoever waits for it; only if nobody does it is free after that.
            drop(place);
            let next = next.and_then(|due| Some((due, self.places.clone().try_acquire_owned().ok()?)));
            let ended = Ended { key: key.clone(), asked, report, took, goes_on: next.is_some(), room };
            // What no lane wants any more is dropped.
            let is_wanted = self.done.send(assignment, Done::Read(ended)).await.is_ok();
            match next {
                Some(next) if is_wanted => (due, place) = next,
                _ => return,
            }
        }
    }
}

/// The span of a reading: a part of the first record's trace, which points at those of the others.
fn span_of(due: &[Due]) -> Span {
    let Some(first) = due.first().filter(|_| is_on()) else { return Span::default() };
    let mut parents: Vec<&str> = Vec::new();
    for parent in due.iter().filter_map(|due| kafka::trace::parent_of(&due.record.headers)) {
        if !parents.contains(&parent) && parents.len() < TRACES {
            parents.push(parent);
        }
    }
    let span = kafka::trace::process_all(&first.record.topic, due.len(), parents, None);
    span.set_with("messaging.destination.partition.id", || first.record.partition.to_string());
    if let Some(key) = &first.record.key {
        span.set_with("mailtide.connection.id", || String::from_utf8_lossy(key).into_owned());
    }
    span
}
