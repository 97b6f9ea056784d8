//! A model of whatever runs a mailbox and crashes, with a model of Gmail that fails.

use std::collections::{BTreeMap, HashMap, HashSet};

use proptest::prelude::*;
use uuid::Uuid;

use super::gmail::{Gmail, Kind, Message};
use crate::command::{CancelJob, PollGmailConnection};
use crate::event::Origin;
use crate::id::MessageId;
use crate::job::Trigger;
use crate::mailbox::record::MailboxState;
use crate::mailbox::reply::*;
use crate::mailbox::*;

const PARTITIONS: i32 = 12;

const SECOND: Duration = Duration::from_secs(2);

/// Small pages, so that a few messages make several.
pub(super) const RULES: Rules =
    Rules { page_size: 3, waiting: 5, watch: Some(Duration::from_days(1)), ..Rules::DEFAULT };

#[derive(Debug, Clone)]
pub(super) enum Step {
    Deliver { kind: Kind, lag_ms: i64, index_lag_ms: i64 },
    Rescue,
    Sync { repeat: bool },
    Backfill { hours: i64 },
    Cancel,
    Answer { pick: usize, fault: Fault },
    Commit,
    Crash,
    Pass { ms: i64 },
    Expire,
    Respam,
    Renew,
    Push,
    Audit,
    Poison { pick: usize, listing: bool },
    Heal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    Throttled,
    Transient,
    Broken,
    BadToken,
    Revoked,
    Hopeless,
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let kind = prop_oneof![8 => Just(Kind::Mail), 2 => Just(Kind::Spam), 1 => Just(Kind::Draft)];
    let fault = prop_oneof![
        12 => Just(Fault::None),
        1 => Just(Fault::Throttled),
        1 => Just(Fault::Transient),
        1 => Just(Fault::Broken),
        1 => Just(Fault::BadToken),
        1 => Just(Fault::Revoked),
        1 => Just(Fault::Hopeless),
    ];
    let pass = prop_oneof![
        10 => 1_i64..5_000,
        4 => 5_000_i64..900_000,
        1 => 3_600_000_i64..40_000_000,
        1 => 86_400_000_i64..200_000_000
    ];
    prop_oneof![
        12 => (kind, 0_i64..20_000, 0_i64..40_000)
            .prop_map(|(kind, lag_ms, index_lag_ms)| Step::Deliver { kind, lag_ms, index_lag_ms }),
        2 => Just(Step::Rescue),
        5 => any::<bool>().prop_map(|repeat| Step::Sync { repeat }),
        1 => (1_i64..72).prop_map(|hours| Step::Backfill { hours }),
        1 => Just(Step::Cancel),
        24 => (any::<usize>(), fault).prop_map(|(pick, fault)| Step::Answer { pick, fault }),
        6 => Just(Step::Commit),
        3 => Just(Step::Crash),
        8 => pass.prop_map(|ms| Step::Pass { ms }),
        1 => Just(Step::Expire),
        1 => Just(Step::Respam),
        2 => Just(Step::Renew),
        2 => Just(Step::Push),
        1 => Just(Step::Audit),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(pick, listing)| Step::Poison { pick, listing }),
        1 => Just(Step::Heal),
    ]
}

/// What a transaction made durable.
#[derive(Default, Clone)]
pub(super) struct Durable {
    pub(super) state: Option<MailboxState>,
    pub(super) chunks: BTreeMap<i64, MailboxChunk>,
    next_command: usize,
    pub(super) discovered: Vec<(MessageId, Origin)>,
    pub(super) ended: HashMap<JobId, u32>,
    cursors: Vec<HistoryId>,
    pub(super) dead: Vec<Place>,
    /// The last word on each job that ended, in order.
    pub(super) last_words: Vec<GmailJobStatusChanged>,
    pub(super) connection: Option<GmailConnectionStatusChanged>,
    pub(super) alarms: Vec<Alarm>,
}

/// The mailbox and what runs it.
pub(super) struct World {
    rules: Rules,
    pub(super) now: i64,
    jitter: u64,
    pub(super) gmail: Gmail,
    pub(super) mailbox: Mailbox,
    pub(super) durable: Durable,
    /// Actions of inputs that no transaction holds yet.
    open: Vec<Action>,
    commands: Vec<Command>,
    next_command: usize,
    pub(super) calls: Vec<Call>,
    revoked: bool,
    token: TokenVersion,
    first_sync: Option<i64>,
    pub(super) loses_pushes: bool,
    /// Why Gmail refuses to watch, if it does.
    pub(super) watch_refused: Option<&'static str>,
    /// How many calls were answered.
    pub(super) answered: u32,
    /// A message that was neither announced nor owed by name when nothing was under way any more.
    lost: Option<MessageId>,
}

fn connection() -> ConnectionId {
    ConnectionId::from_uuid(Uuid::from_u128(7))
}

fn organisation() -> OrganisationId {
    OrganisationId::from_uuid(Uuid::from_u128(8))
}

impl World {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            now: 1_800_000_000_000,
            jitter: 1,
            gmail: Gmail::new(),
            mailbox: Mailbox::new(connection(), organisation()),
            durable: Durable::default(),
            open: Vec::new(),
            commands: Vec::new(),
            next_command: 0,
            calls: Vec::new(),
            revoked: false,
            token: TokenVersion(1),
            first_sync: None,
            loses_pushes: false,
            watch_refused: None,
            answered: 0,
            lost: None,
        }
    }

    fn feed(&mut self, input: Input) {
        self.jitter = self.jitter.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let cx = Context { now: Timestamp::from_millis(self.now), jitter: self.jitter >> 33, rules: &self.rules };
        let from = self.open.len();
        self.mailbox.on(&cx, input, &mut self.open);
        self.take_calls(from);
    }

    fn take_calls(&mut self, from: usize) {
        let calls = self.open[from..].iter().filter_map(|action| match action {
            Action::Call(call) => Some(call.clone()),
            _ => None,
        });
        self.calls.extend(calls);
    }

    fn absorb(&mut self) {
        while let Some(command) = self.commands.get(self.next_command) {
            let command = command.clone();
            self.next_command += 1;
            self.feed(Input::Command(command, None));
        }
    }

    pub(super) fn commit(&mut self) {
        for action in self.open.drain(..) {
            match action {
                Action::Discovered(event, _) => self.durable.discovered.push((event.message_id, event.origin)),
                Action::Job(status, _) if status.state.is_terminal() => {
                    *self.durable.ended.entry(status.job_id).or_default() += 1;
                    self.durable.last_words.push(status);
                }
                Action::WriteChunk(chunk) => {
                    assert!(chunk.ids.len() <= 64_000);
                    self.durable.chunks.insert(chunk.number, chunk);
                }
                Action::DropChunk(number) => {
                    self.durable.chunks.remove(&number);
                }
                Action::DeadLetter(letter) => self.durable.dead.push(letter.place),
                Action::Connection(status) => self.durable.connection = Some(status),
                Action::Alarm(alarm) => self.durable.alarms.push(alarm),
                Action::Call(_) | Action::Job(..) | Action::Forget => {}
            }
        }
        let state = self.mailbox.state(PARTITIONS, self.next_command as i64);
        let again = Mailbox::restored(state.clone(), self.durable.chunks.values());
        assert_eq!(again.state(PARTITIONS, self.next_command as i64), state, "a state survives its writing");
        self.durable.cursors.extend(self.mailbox.cursor());
        self.durable.state = Some(state);
        self.durable.next_command = self.next_command;
    }

    pub(super) fn crash(&mut self) {
        self.open.clear();
        self.calls.clear();
        self.next_command = self.durable.next_command;
        self.mailbox = match self.durable.state.clone() {
            Some(state) => Mailbox::restored(state, self.durable.chunks.values()),
            None => Mailbox::new(connection(), organisation()),
        };
        let cx = Context { now: Timestamp::from_millis(self.now), jitter: 0, rules: &self.rules };
        self.mailbox.advance(&cx, &mut self.open);
        self.take_calls(0);
        self.absorb();
    }

    pub(super) fn sync(&mut self, repeat: bool) {
        self.first_sync.get_or_insert(self.now);
        let number = if repeat { self.commands.len() / 2 } else { self.commands.len() };
        self.command(1_000 + number as u128, Trigger::Api, None);
    }

    pub(super) fn backfill(&mut self, hours: i64) {
        let until = Timestamp::from_millis(self.now);
        let window = Window { since: until - Duration::from_hours(hours), until };
        self.command(50_000 + self.commands.len() as u128, Trigger::Backfill, Some(window));
    }

    pub(super) fn cancel(&mut self, trigger: Trigger) {
        if let Some(job) = self.mailbox.jobs().iter().find(|job| job.trigger == trigger).map(|job| job.job_id) {
            let at = Timestamp::from_millis(self.now);
            self.commands.push(Command::Cancel(CancelJob {
                job_id: job,
                organisation_id: organisation(),
                connection_id: connection(),
                requested_at: at,
            }));
            self.absorb();
        }
    }

    fn command(&mut self, job: u128, trigger: Trigger, window: Option<Window>) {
        let now = Timestamp::from_millis(self.now);
        self.commands.push(Command::Poll(PollGmailConnection {
            job_id: JobId::from_uuid(Uuid::from_u128(job)),
            organisation_id: organisation(),
            connection_id: connection(),
            trigger,
            window,
            token_version: self.token,
            requested_at: now,
            deadline: now + Duration::from_hours(1),
        }));
        self.absorb();
    }

    pub(super) fn answer(&mut self, pick: usize, fault: Fault) {
        if self.calls.is_empty() {
            return;
        }
        let call = self.calls.swap_remove(pick % self.calls.len());
        self.answered += 1;
        let is_watch = call.request == Request::Watch;
        let result = match fault {
            _ if self.revoked => Err(CallError::Revoked { cause: "invalid_grant".to_owned() }),
            Fault::None if is_watch && self.watch_refused.is_some() => {
                let code = self.watch_refused.unwrap_or_default().to_owned();
                Err(CallError::Permanent { code, detail: "refused".to_owned() })
            }
            Fault::None => self.gmail.answer(self.now, &call.request),
            Fault::Throttled => Err(CallError::Throttled { until: Some(Timestamp::from_millis(self.now + 3_000)) }),
            Fault::Transient => Err(CallError::Transient { detail: "reset".to_owned() }),
            Fault::Broken => Err(CallError::Broken { detail: "history[0].id".to_owned() }),
            Fault::BadToken => Err(CallError::InvalidPageToken),
            Fault::Hopeless => Err(CallError::Permanent { code: "Gmail.Forbidden".to_owned(), detail: String::new() }),
            Fault::Revoked => {
                self.revoked = true;
                Err(CallError::Revoked { cause: "invalid_grant".to_owned() })
            }
        };
        let date = Some(Timestamp::from_millis(self.now / 1_000 * 1_000));
        let is_watched = is_watch && result.is_ok();
        self.feed(Input::Answer(call.id, Answer { result, date, units: 2, token_version: self.token }));
        // A watch that is set is told of at once.
        if is_watched && !self.loses_pushes {
            self.push();
        }
    }

    pub(super) fn pass(&mut self, ms: i64) {
        self.now += ms;
        if self.mailbox.wake_at().is_some_and(|at| at.as_millis() <= self.now) {
            self.feed(Input::Timer);
        }
    }

    pub(super) fn renew(&mut self) {
        if self.revoked {
            self.revoked = false;
            self.token = TokenVersion(self.token.0 + 1);
            self.feed(Input::TokenRenewed(self.token));
        }
    }

    pub(super) fn step(&mut self, step: &Step) {
        match *step {
            Step::Deliver { kind, lag_ms, index_lag_ms } => self.gmail.deliver(self.now, kind, lag_ms, index_lag_ms),
            Step::Rescue => self.gmail.rescue(self.now),
            Step::Sync { repeat } => self.sync(repeat),
            Step::Backfill { hours } => self.backfill(hours),
            Step::Cancel => {
                let trigger = self.mailbox.jobs().first().map_or(Trigger::Api, |job| job.trigger);
                self.cancel(trigger);
            }
            Step::Answer { pick, fault } => self.answer(pick, fault),
            Step::Commit => self.commit(),
            Step::Crash => self.crash(),
            Step::Pass { ms } => self.pass(ms),
            Step::Respam => self.gmail.respam(self.now),
            Step::Expire => self.gmail.floor = self.gmail.head,
            Step::Renew => self.renew(),
            Step::Push => self.push(),
            Step::Audit => self.audit(),
            Step::Poison { pick, listing } => self.poison(pick, listing),
            Step::Heal => self.heal(),
        }
    }

    pub(super) fn push(&mut self) {
        self.first_sync.get_or_insert(self.now);
        self.command(100_000 + self.commands.len() as u128, Trigger::Push, None);
    }

    pub(super) fn audit(&mut self) {
        let until = Timestamp::from_millis(self.now);
        let window = Window { since: until - Duration::from_hours(48), until };
        self.command(200_000 + self.commands.len() as u128, Trigger::Audit, Some(window));
    }

    /// Makes a message that was just delivered unreadable, in history or in listings.
    pub(super) fn poison(&mut self, pick: usize, listing: bool) {
        let n = self.gmail.messages.len();
        if n > 0 {
            let message = &mut self.gmail.messages[n - 1 - pick % n.min(4)];
            *(if listing { &mut message.poison.1 } else { &mut message.poison.0 }) = true;
        }
    }

    pub(super) fn heal(&mut self) {
        self.gmail.messages.iter_mut().for_each(|message| message.poison = (false, false));
    }

    /// Works off everything, with no more faults. What is poisoned stays so until the last audit.
    pub(super) fn settle(&mut self) {
        self.renew();
        for _ in 0..4 {
            self.pass(11 * 60_000);
            self.sync(false);
            self.drain();
            self.commit();
        }
        self.check_owed();
        self.heal();
        self.audit();
        self.drain();
        self.commit();
    }

    /// While something cannot be read, all that is not announced is owed by name.
    fn check_owed(&mut self) {
        let announced: HashSet<&MessageId> = self.durable.discovered.iter().map(|(id, _)| id).collect();
        let owed = |message: &Message| {
            let at = Timestamp::from_millis(message.arrived);
            let inside = |window: Window| window.since - SECOND <= at && at < window.until + SECOND;
            let state = self.durable.state.as_ref().unwrap();
            state.windows.iter().any(|walk| walk.purpose == record::Purpose::Unread && inside(walk.window))
        };
        let mut owing = self.gmail.messages.iter().filter(|message| self.is_owed(message));
        self.lost = owing.find(|message| !announced.contains(&message.id) && !owed(message)).map(|it| it.id.clone());
    }

    /// Whether a message has to be announced.
    fn is_owed(&self, message: &Message) -> bool {
        let owed_since = self.first_sync.unwrap_or(i64::MAX).saturating_sub(RULES.catch_up.as_millis());
        message.labels() == [Label::new("INBOX")] && message.arrived >= owed_since
    }

    /// Answers everything, with no faults, until nothing waits.
    pub(super) fn drain(&mut self) {
        for _ in 0..20_000 {
            if !self.calls.is_empty() {
                self.answer(0, Fault::None);
            } else if let Some(at) = self.mailbox.wake_at() {
                let ms = at.as_millis().saturating_sub(self.now).max(0);
                self.pass(ms);
            } else {
                return;
            }
        }
        panic!("the mailbox never comes to rest: {:?}", self.mailbox);
    }

    pub(super) fn check(&self) -> Result<(), TestCaseError> {
        let mut once: HashMap<&MessageId, u32> = HashMap::new();
        let mut any: HashSet<&MessageId> = HashSet::new();
        for (id, origin) in &self.durable.discovered {
            any.insert(id);
            *once.entry(id).or_default() += u32::from(origin.is_once());
        }
        prop_assert!(self.lost.is_none(), "{:?} is lost, and not owed by name either", self.lost);
        for message in &self.gmail.messages {
            let announced = any.contains(&message.id);
            if self.is_owed(message) {
                prop_assert!(announced, "{} is lost: arrived at {}", message.id, message.arrived);
            }
            // Where it cannot be read what lies in spam, what was never kept back is announced.
            let torn = |place: &Place| matches!(place, Place::Listing { held_only: true, .. });
            if message.labels() != [Label::new("INBOX")] && !self.durable.dead.iter().any(torn) {
                prop_assert!(!announced, "{} is {:?} and was announced", message.id, message.kind);
            }
            prop_assert!(once.get(&message.id).copied().unwrap_or(0) <= 1, "{} came twice", message.id);
        }
        if self.durable.dead.is_empty() {
            let found = self.durable.discovered.iter().find(|(_, origin)| *origin == Origin::Audit);
            prop_assert!(found.is_none(), "nothing was missed, and the audit found {found:?}");
        }
        for command in &self.commands {
            if let Command::Poll(command) = command {
                prop_assert_eq!(
                    self.durable.ended.get(&command.job_id).copied(),
                    Some(1),
                    "{} ends once",
                    command.job_id
                );
            }
        }
        prop_assert!(self.durable.ended.values().all(|ends| *ends == 1));
        prop_assert!(self.mailbox.jobs().is_empty());
        prop_assert!(self.durable.cursors.is_sorted(), "the cursor went back");
        prop_assert!(self.mailbox.is_idle(), "something still waits: {:?}", self.mailbox);
        Ok(())
    }
}
