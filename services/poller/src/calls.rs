//! Calls to Gmail: queued by priority, a bounded number at a time, results back to the lane.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::mailbox::reply::{Answer, Call, CallId, Request};
use domain::{ConnectionId, Lane, OrganisationId};
use gmail::gate::Holding;
use gmail::{Client, Gate, Mailbox};
use kafka::lane::{Assignment, DoneSender};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

/// Where mailboxes are: Gmail, or what stands in for it in a benchmark.
pub trait Mailboxes: Send + Sync + 'static {
    /// Makes one call. Always answers, in bounded time.
    fn call(
        &self,
        organisation: OrganisationId,
        connection: ConnectionId,
        call: Call,
    ) -> impl Future<Output = Answer> + Send;

    /// For one lane, to tell how many partitions it has: quotas go by them. None where there are no quotas.
    fn holding(&self) -> Option<Holding> {
        None
    }
}

/// Gmail itself.
pub(crate) struct Gmail {
    pub(crate) client: Arc<Client>,
    /// The one that the client's calls pass.
    pub(crate) gate: Gate,
}

impl Mailboxes for Gmail {
    async fn call(&self, organisation: OrganisationId, connection: ConnectionId, call: Call) -> Answer {
        let mailbox = Mailbox { organisation_id: organisation, connection_id: connection };
        // A mailbox begins with it, one that was forgotten as well: a token that was kept may open what is deleted.
        if call.request == Request::Profile {
            self.client.forget_token(mailbox);
        }
        self.client.call(mailbox, &call).await
    }

    fn holding(&self) -> Option<Holding> {
        Some(self.gate.holding())
    }
}

/// What came of a call.
#[derive(Debug)]
pub struct Done {
    pub(crate) connection: ConnectionId,
    pub(crate) call: CallId,
    pub(crate) answer: Answer,
    /// Whether it was one that is patient.
    pub(crate) is_patient: bool,
}

struct Waiting {
    assignment: Assignment,
    organisation: OrganisationId,
    connection: ConnectionId,
    call: Call,
}

/// The calls of one lane.
pub(crate) struct Calls<M> {
    mailboxes: Arc<M>,
    runtime: Handle,
    done: DoneSender<Done>,
    /// The most that may be under way. They are this lane's alone: places that lanes shared would become free without a
    /// lane whose calls wait hearing of it.
    places: usize,
    /// One queue for each priority, the highest first.
    waiting: [VecDeque<Waiting>; 5],
    /// Those under way, by their partition.
    under_way: BTreeMap<Assignment, UnderWay>,
    /// How many are under way, and those of them that are patient.
    running: (usize, usize),
    /// When the last one was started.
    started: Option<Instant>,
}

/// The calls of a partition. Dropped, they are given up: they would spend what is its next owner's.
#[derive(Default)]
struct UnderWay {
    tasks: JoinSet<()>,
    /// How many there are, and those of them that are patient.
    running: (usize, usize),
}

/// Priorities from this one on, reading messages and what is less urgent, do not get the last quarter of the places.
const FIRST_PATIENT: usize = 2;

const fn queue(lane: Lane) -> usize {
    match lane {
        Lane::Live => 0,
        Lane::CatchUp => 1,
        Lane::Fetch => 2,
        Lane::Backfill => 3,
        Lane::Audit => 4,
    }
}

impl<M: Mailboxes> Calls<M> {
    /// At most `places` calls at a time.
    pub(crate) fn new(mailboxes: Arc<M>, runtime: Handle, done: DoneSender<Done>, places: usize) -> Self {
        Self {
            mailboxes,
            runtime,
            done,
            places: places.max(1),
            waiting: Default::default(),
            under_way: BTreeMap::new(),
            running: (0, 0),
            started: None,
        }
    }

    /// How many wait for a place. Bounded by the mailboxes that are awake: each has at most one call a walk.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.iter().map(VecDeque::len).sum()
    }

    pub(crate) fn push(
        &mut self,
        assignment: Assignment,
        organisation: OrganisationId,
        connection: ConnectionId,
        call: Call,
    ) {
        self.waiting[queue(call.lane)].push_back(Waiting { assignment, organisation, connection, call });
        self.start();
    }

    /// Starts as many as may run.
    pub(crate) fn start(&mut self) {
        let patient = (self.places - self.places / 4).max(1);
        while self.running.0 < self.places {
            let may = |number: usize| number < FIRST_PATIENT || self.running.1 < patient;
            let next = (0..self.waiting.len()).find(|number| may(*number) && !self.waiting[*number].is_empty());
            let Some(number) = next else { return };
            let Some(Waiting { assignment, organisation, connection, call }) = self.waiting[number].pop_front() else {
                return;
            };
            let (mailboxes, done) = (self.mailboxes.clone(), self.done.clone());
            self.started = Some(Instant::now());
            let is_patient = number >= FIRST_PATIENT;
            let under_way = self.under_way.entry(assignment).or_default();
            for running in [&mut self.running, &mut under_way.running] {
                running.0 += 1;
                running.1 += usize::from(is_patient);
            }
            let run = async move {
                let id = call.id;
                let answer = mailboxes.call(organisation, connection, call).await;
                // An answer that no lane wants any more is dropped.
                let _ = done.send(assignment, Done { connection, call: id, answer, is_patient }).await;
            };
            under_way.tasks.spawn_on(run, &self.runtime);
        }
    }

    /// Notes that a call's answer has been taken in.
    pub(crate) fn ended(&mut self, assignment: Assignment, is_patient: bool) {
        let Some(under_way) = self.under_way.get_mut(&assignment) else { return };
        while under_way.tasks.try_join_next().is_some() {}
        for running in [&mut self.running, &mut under_way.running] {
            running.0 -= 1;
            running.1 -= usize::from(is_patient);
        }
        if under_way.running.0 == 0 {
            self.under_way.remove(&assignment);
        }
    }

    /// Drops what waits for a partition that is gone, and gives up what is under way for it.
    pub(crate) fn forget(&mut self, assignment: Assignment) {
        for queue in &mut self.waiting {
            queue.retain(|waiting| waiting.assignment != assignment);
        }
        let Some(under_way) = self.under_way.remove(&assignment) else { return };
        self.running.0 -= under_way.running.0;
        self.running.1 -= under_way.running.1;
        drop(under_way);
        self.start();
    }

    /// Whether a call is under way, and one was started so recently that its answer may come any moment.
    pub(crate) fn is_busy(&self, patience: Duration) -> bool {
        !self.under_way.is_empty() && self.started.is_some_and(|started| started.elapsed() < patience)
    }
}
