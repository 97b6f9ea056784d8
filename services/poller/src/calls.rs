//! Calls to Gmail: queued by priority, a bounded number at a time, results back to the lane.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::mailbox::reply::{Answer, Call, CallId};
use domain::{ConnectionId, Lane, OrganisationId};
use kafka::lane::{Assignment, DoneSender};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

/// Where mailboxes are: Gmail, or what stands in for it in a benchmark.
pub trait Mailboxes: Send + Sync + 'static {
    /// Makes one call. Always answers, in bounded time.
    fn call(
        &self,
        organisation: OrganisationId,
        connection: ConnectionId,
        call: Call,
    ) -> impl Future<Output = Answer> + Send;
}

/// What came of a call.
#[derive(Debug)]
pub struct Done {
    pub(crate) connection: ConnectionId,
    pub(crate) call: CallId,
    pub(crate) answer: Answer,
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
    permits: Arc<Semaphore>,
    /// One queue for each priority, the highest first.
    waiting: [VecDeque<Waiting>; 5],
    /// How many are under way for each partition that has any.
    under_way: BTreeMap<Assignment, usize>,
    /// When the last one was started.
    started: Option<Instant>,
}

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
    /// Calls that share `permits` with the process's other lanes.
    pub(crate) fn new(mailboxes: Arc<M>, runtime: Handle, done: DoneSender<Done>, permits: Arc<Semaphore>) -> Self {
        Self {
            mailboxes,
            runtime,
            done,
            permits,
            waiting: Default::default(),
            under_way: BTreeMap::new(),
            started: None,
        }
    }

    /// How many wait for a permit. Bounded by the mailboxes that are awake: each has at most one call a walk.
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
        while let Some(queue) = self.waiting.iter_mut().find(|queue| !queue.is_empty()) {
            let Ok(permit) = self.permits.clone().try_acquire_owned() else { return };
            let Some(Waiting { assignment, organisation, connection, call }) = queue.pop_front() else { return };
            let (mailboxes, done) = (self.mailboxes.clone(), self.done.clone());
            self.started = Some(Instant::now());
            *self.under_way.entry(assignment).or_default() += 1;
            self.runtime.spawn(async move {
                let id = call.id;
                let answer = tokio::select! {
                    answer = mailboxes.call(organisation, connection, call) => answer,
                    // The lane was dropped: its successor asks anew.
                    () = done.gone() => return,
                };
                // The place is free before the result is seen, so that the lane finds it when it looks.
                drop(permit);
                // An answer that no lane wants any more is dropped.
                let _ = done.send(assignment, Done { connection, call: id, answer }).await;
            });
        }
    }

    /// Notes that a call's answer has been taken in.
    pub(crate) fn ended(&mut self, assignment: Assignment) {
        if let Some(calls) = self.under_way.get_mut(&assignment) {
            *calls -= 1;
            if *calls == 0 {
                self.under_way.remove(&assignment);
            }
        }
    }

    /// Drops what waits for a partition that is gone. The answers that are under way never come.
    pub(crate) fn forget(&mut self, assignment: Assignment) {
        self.under_way.remove(&assignment);
        for queue in &mut self.waiting {
            queue.retain(|waiting| waiting.assignment != assignment);
        }
    }

    /// Whether a call is under way, and one was started so recently that its answer may come any moment.
    pub(crate) fn is_busy(&self, patience: Duration) -> bool {
        !self.under_way.is_empty() && self.started.is_some_and(|started| started.elapsed() < patience)
    }
}
