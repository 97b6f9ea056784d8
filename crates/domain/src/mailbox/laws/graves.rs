//! Forgotten mailboxes: in whatever order commands come around a deletion, and how often, no job's state goes back, and
//! in the end nothing is left.

use std::collections::BTreeMap;

use proptest::prelude::*;
use uuid::Uuid;

use super::gmail::Gmail;
use super::model::RULES;
use crate::command::{CancelJob, Command, ForgetConnection, PollGmailConnection};
use crate::id::{ConnectionId, JobId, OrganisationId, TokenVersion};
use crate::job::{JobState, Trigger};
use crate::mailbox::record::{MailboxChunk, MailboxState};
use crate::mailbox::reply::{Answer, Call, CallError};
use crate::mailbox::{Action, Context, Input, Mailbox, Rules};
use crate::time::{Duration, Timestamp, Window};

const HOUR: i64 = 3_600_000;

/// So long the topic of commands retains.
const RETAINED: i64 = 7 * 24 * HOUR;

/// So much later the same command may be written again.
const REPEATED: Duration = Duration::from_hours(23);

#[derive(Debug, Clone)]
enum Step {
    /// The command that asks for this job, as often as it comes.
    Ask(u8),
    Cancel(u8),
    Forget,
    /// An answer to one of the calls; whether it is that there is no such connection.
    Answer(usize, bool),
    Commit,
    Crash,
    Pass(i64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0_u8..6).prop_map(Step::Ask),
        2 => (0_u8..6).prop_map(Step::Cancel),
        3 => Just(Step::Forget),
        8 => (any::<usize>(), any::<bool>()).prop_map(|(pick, is_gone)| Step::Answer(pick, is_gone)),
        5 => Just(Step::Commit),
        3 => Just(Step::Crash),
        3 => prop_oneof![4 => 1_i64..HOUR, 1 => HOUR..4 * 24 * HOUR].prop_map(Step::Pass),
    ]
}

/// What a transaction made durable.
#[derive(Default, Clone)]
struct Durable {
    state: Option<MailboxState>,
    chunks: BTreeMap<i64, MailboxChunk>,
    absorbed: usize,
    told: BTreeMap<JobId, Vec<(JobState, i64)>>,
}

/// A mailbox and what runs it, as the poller does: what is gone is no more, and what there is not begins at its first
/// command.
struct World {
    rules: Rules,
    now: i64,
    gmail: Gmail,
    mailbox: Option<Mailbox>,
    open: Vec<Action>,
    calls: Vec<Call>,
    /// What was written when.
    commands: Vec<(i64, Command)>,
    absorbed: usize,
    /// The command for each job, the same each time that it comes.
    asked: BTreeMap<u8, PollGmailConnection>,
    durable: Durable,
}

fn connection() -> ConnectionId {
    ConnectionId::from_uuid(Uuid::from_u128(7))
}

fn organisation() -> OrganisationId {
    OrganisationId::from_uuid(Uuid::from_u128(8))
}

fn job(number: u128) -> JobId {
    JobId::from_uuid(Uuid::from_u128(1_000 + number))
}

impl World {
    fn new(rules: Rules) -> Self {
        Self {
            rules,
            now: 1_800_000_000_000,
            gmail: Gmail::new(),
            mailbox: None,
            open: Vec::new(),
            calls: Vec::new(),
            commands: Vec::new(),
            absorbed: 0,
            asked: BTreeMap::new(),
            durable: Durable::default(),
        }
    }

    fn at(&self) -> Timestamp {
        Timestamp::from_millis(self.now)
    }

    /// Runs the mailbox through an input; none: it was just restored.
    fn feed(&mut self, input: Option<Input>) {
        let cx = Context { now: self.at(), jitter: 0, rules: &self.rules };
        let Some(mailbox) = &mut self.mailbox else { return };
        let from = self.open.len();
        match input {
            Some(input) => mailbox.on(&cx, input, &mut self.open),
            None => mailbox.advance(&cx, &mut self.open),
        }
        self.calls.extend(self.open[from..].iter().filter_map(|action| match action {
            Action::Call(call) => Some(call.clone()),
            _ => None,
        }));
        if mailbox.is_gone() {
            self.mailbox = None;
            self.calls.clear();
        }
    }

    fn command(&mut self, command: Command) {
        self.commands.push((self.now, command));
        self.absorb();
    }

    fn absorb(&mut self) {
        while let Some((at, command)) = self.commands.get(self.absorbed).cloned() {
            self.absorbed += 1;
            if at + RETAINED <= self.now {
                continue;
            }
            if matches!(command, Command::Poll(_)) {
                self.mailbox.get_or_insert_with(|| Mailbox::new(connection(), organisation()));
            }
            self.feed(Some(Input::Command(command, None)));
        }
    }

    fn ask(&mut self, number: u8) {
        let at = self.at();
        let command = self.asked.entry(number).or_insert_with(|| PollGmailConnection {
            job_id: job(number.into()),
            organisation_id: organisation(),
            connection_id: connection(),
            trigger: [Trigger::Schedule, Trigger::Backfill, Trigger::Push][usize::from(number) % 3],
            window: (number % 3 == 1).then(|| Window { since: at - Duration::from_hours(30), until: at }),
            token_version: TokenVersion(1),
            requested_at: at,
            deadline: at + Duration::from_hours(1),
        });
        if at < command.requested_at + REPEATED {
            let command = command.clone();
            self.command(Command::Poll(command));
        }
    }

    fn forget(&mut self) {
        let at = self.at();
        self.command(Command::Forget(ForgetConnection {
            organisation_id: organisation(),
            connection_id: connection(),
            requested_at: at,
        }));
    }

    fn answer(&mut self, pick: usize, is_gone: bool) {
        if self.calls.is_empty() {
            return;
        }
        let call = self.calls.swap_remove(pick % self.calls.len());
        let result = if is_gone { Err(CallError::ConnectionGone) } else { self.gmail.answer(self.now, &call.request) };
        let answer = Answer { result, date: Some(self.at()), units: 2, token_version: TokenVersion(1) };
        self.feed(Some(Input::Answer(call.id, answer)));
    }

    fn commit(&mut self) {
        for action in self.open.drain(..) {
            match action {
                Action::Job(status, _) => {
                    self.durable.told.entry(status.job_id).or_default().push((status.state, status.step));
                }
                Action::WriteChunk(chunk) => drop(self.durable.chunks.insert(chunk.number, chunk)),
                Action::DropChunk(number) => drop(self.durable.chunks.remove(&number)),
                _ => {}
            }
        }
        let absorbed = self.absorbed;
        self.durable.state = self.mailbox.as_ref().map(|mailbox| mailbox.state(1, absorbed as i64));
        self.durable.absorbed = absorbed;
    }

    fn crash(&mut self) {
        self.open.clear();
        self.calls.clear();
        self.absorbed = self.durable.absorbed;
        let chunks = &self.durable.chunks;
        self.mailbox = self.durable.state.clone().map(|state| Mailbox::restored(state, chunks.values()));
        if self.mailbox.as_ref().is_some_and(|mailbox| !mailbox.is_idle()) {
            self.feed(None);
        }
        self.absorb();
    }

    fn pass(&mut self, ms: i64) {
        self.now += ms;
        let due = self.mailbox.as_ref().and_then(Mailbox::wake_at).is_some_and(|at| at <= self.at());
        if due {
            self.feed(Some(Input::Timer));
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Ask(number) => self.ask(number),
            Step::Cancel(number) => {
                let requested_at = self.at();
                self.command(Command::Cancel(CancelJob {
                    job_id: job(number.into()),
                    organisation_id: organisation(),
                    connection_id: connection(),
                    requested_at,
                }));
            }
            Step::Forget => self.forget(),
            Step::Answer(pick, is_gone) => self.answer(pick, is_gone),
            Step::Commit => self.commit(),
            Step::Crash => self.crash(),
            Step::Pass(ms) => self.pass(ms),
        }
    }

    /// The connection is deleted for good; time passes until nothing waits for it.
    fn end(&mut self) {
        self.forget();
        self.commit();
        // What is left survives, whoever owns it.
        self.crash();
        for _ in 0..1_000 {
            let Some(at) = self.mailbox.as_ref().and_then(Mailbox::wake_at) else { break };
            self.pass((at.as_millis() - self.now).max(0));
        }
        self.commit();
    }

    fn check(&self) -> Result<(), TestCaseError> {
        for (job, told) in &self.durable.told {
            let ranks = told.iter().map(|(state, _)| match state {
                JobState::Queued => 0,
                JobState::Running => 1,
                JobState::Succeeded | JobState::Failed | JobState::Cancelled => 2,
            });
            prop_assert!(ranks.clone().is_sorted(), "{job} went back: {told:?}");
            prop_assert_eq!(ranks.filter(|rank| *rank == 2).count(), 1, "{} ends once: {:?}", job, told);
            prop_assert!(told.is_sorted_by_key(|(_, step)| *step), "{job}'s steps rise: {told:?}");
        }
        prop_assert!(self.mailbox.is_none() && self.durable.state.is_none(), "a grave is left: {:?}", self.mailbox);
        prop_assert!(self.durable.chunks.is_empty(), "chunks are left: {:?}", self.durable.chunks);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    /// Syncs, backfills and pushes, each any number of times, cancelled or not, before, between and after deletions, and
    /// crashes: each job ends once, nothing is told of it thereafter, and what is left of the mailbox goes by itself.
    #[test]
    fn no_job_goes_back_around_a_deletion_and_graves_go(steps in prop::collection::vec(step(), 1..80)) {
        let mut world = World::new(RULES);
        for step in &steps {
            world.step(step);
        }
        world.end();
        world.check()?;
    }
}

/// Two schedulers asked for one slot, and the connection was deleted in between.
fn twice(rules: Rules, first_answer: Option<bool>) -> Result<(), TestCaseError> {
    let mut world = World::new(rules);
    world.ask(0);
    world.commit();
    match first_answer {
        Some(is_gone) => world.answer(0, is_gone),
        None => world.forget(),
    }
    world.commit();
    world.crash();
    world.pass(180_000);
    world.ask(0);
    world.answer(0, true);
    world.end();
    world.check()
}

#[test]
fn a_command_that_comes_again_after_its_mailbox_is_forgotten_is_known_again() {
    twice(RULES, None).unwrap();
    twice(RULES, Some(true)).unwrap();
}

/// The laws can fail: this is the machine without graves.
#[test]
fn without_a_grave_its_job_would_go_back() {
    let error = twice(Rules { ended: Duration::ZERO, ..RULES }, Some(true)).unwrap_err();
    assert!(error.to_string().contains("went back"), "{error}");
}

/// What a grave knows is as bounded as what a mailbox knows: in chunks that are written once.
#[test]
fn a_grave_of_many_jobs_is_kept_in_chunks_and_goes_with_them() {
    const JOBS: u128 = 6_000;
    let mut world = World::new(Rules { waiting: 10_000, ..RULES });
    let at = world.at();
    let ask = |world: &mut World, number: u128| {
        world.command(Command::Poll(PollGmailConnection {
            job_id: job(number),
            organisation_id: organisation(),
            connection_id: connection(),
            trigger: Trigger::Api,
            window: None,
            token_version: TokenVersion(1),
            requested_at: at,
            deadline: at + Duration::from_hours(1),
        }));
    };
    (0..JOBS).for_each(|number| ask(&mut world, number));
    world.forget();
    world.commit();
    let state = world.durable.state.clone().unwrap();
    assert!(state.ended.ids.len() <= 16 * 1_024, "what is left in the state is short: {}", state.ended.ids.len());
    assert!(world.durable.chunks.values().all(|chunk| chunk.ids.len() <= 64_000));
    assert!(state.jobs.is_empty() && state.heads.is_empty() && state.seen.ids.is_empty());
    world.crash();
    world.pass(6 * 24 * HOUR);
    (0..JOBS).step_by(97).for_each(|number| ask(&mut world, number));
    assert!(world.open.is_empty(), "nothing is told of what ended: {:?}", world.open);
    world.end();
    world.check().unwrap();
}
