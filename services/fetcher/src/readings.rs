//! The readings of one lane: in their turn, a bounded number at a time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use domain::TokenVersion;
use kafka::lane::{Assignment, DoneSender};
use runtime::trace::{Span, is_on};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::app::Done;
use crate::mailboxes::Mailboxes;
use crate::publish::Names;
use crate::reading::{self, Due};

/// The most traces that one reading is told of.
const TRACES: usize = 32;

/// Mailboxes waiting for their turn, and those being read.
pub(crate) struct Readings<M> {
    mailboxes: Arc<M>,
    runtime: Handle,
    done: DoneSender<Done>,
    names: Arc<Names>,
    /// The most that may be under way.
    places: usize,
    ready: VecDeque<(Assignment, Bytes)>,
    /// Those under way, by their partition. Dropped, they are given up: they would spend what is its next owner's.
    under_way: BTreeMap<Assignment, (JoinSet<()>, usize)>,
    running: usize,
    started: Option<Instant>,
}

impl<M: Mailboxes> Readings<M> {
    pub(crate) fn new(mailboxes: Arc<M>, runtime: Handle, done: DoneSender<Done>, names: Names, places: usize) -> Self {
        Self {
            mailboxes,
            runtime,
            done,
            names: Arc::new(names),
            places: places.max(1),
            ready: VecDeque::new(),
            under_way: BTreeMap::new(),
            running: 0,
            started: None,
        }
    }

    /// A mailbox is to be read when its turn comes.
    pub(crate) fn push(&mut self, assignment: Assignment, key: Bytes) {
        self.ready.push_back((assignment, key));
    }

    /// The mailbox whose turn it is, if there is a place for it.
    pub(crate) fn next(&mut self) -> Option<(Assignment, Bytes)> {
        if self.running < self.places { self.ready.pop_front() } else { None }
    }

    /// Reads messages of a mailbox.
    pub(crate) fn start(&mut self, assignment: Assignment, key: Bytes, due: Vec<Due>, oldest: TokenVersion) {
        let (mailboxes, names, done) = (self.mailboxes.clone(), self.names.clone(), self.done.clone());
        self.started = Some(Instant::now());
        self.running += 1;
        let (tasks, running) = self.under_way.entry(assignment).or_default();
        *running += 1;
        let run = async move {
            let begun = Instant::now();
            let span = span_of(&due);
            let report = span.scope(reading::read(&*mailboxes, &names, &due, oldest)).await;
            if let Some(trouble) = &report.trouble {
                span.fail(trouble.as_str());
            }
            drop(span);
            let took = begun.elapsed();
            // What no lane wants any more is dropped.
            let _ = done.send(assignment, Done::Read { key, report, took }).await;
        };
        tasks.spawn_on(run, &self.runtime);
    }

    /// Notes that the result of one has been taken in.
    pub(crate) fn ended(&mut self, assignment: Assignment) {
        let Some((tasks, running)) = self.under_way.get_mut(&assignment) else { return };
        while tasks.try_join_next().is_some() {}
        self.running -= 1;
        *running -= 1;
        if *running == 0 {
            self.under_way.remove(&assignment);
        }
    }

    /// Drops what waits for a partition that is gone, and gives up what is under way for it.
    pub(crate) fn forget(&mut self, assignment: Assignment) {
        self.ready.retain(|(of, _)| *of != assignment);
        if let Some((_, running)) = self.under_way.remove(&assignment) {
            self.running -= running;
        }
    }

    /// Whether one is under way, and one was started so recently that its answer may come any moment.
    pub(crate) fn is_busy(&self, patience: Duration) -> bool {
        self.running > 0 && self.started.is_some_and(|started| started.elapsed() < patience)
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
