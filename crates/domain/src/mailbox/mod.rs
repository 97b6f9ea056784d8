//! The mailbox: a pure state machine, one value per connection.
//!
//! [`Mailbox::on`] takes an [`Input`] and says what is to be done as [`Action`]s. Whoever runs it writes the actions
//! and the new [`MailboxState`] in one transaction with the offset of the command that was the input, makes the calls,
//! and brings back the answers. A crash loses only what was in memory: page tokens and answers under way.
//!
//! What holds whatever happens, and is tested as laws:
//! - each message is announced at most once as live or catch-up, and none that is owed is left out;
//! - the cursor never goes back, and passes nothing that is not announced, kept back or owed;
//! - every job ends, once.

mod audit;
mod grave;
mod heads;
mod jobs;
#[cfg(test)]
mod laws;
mod listing;
mod live;
mod owed;
mod policy;
mod push;
pub mod rebuilt;
pub mod record;
mod remembered;
pub mod reply;
mod retry;
mod rules;
mod tries;
mod watch;
mod window;

use std::sync::Arc;

use crate::command::Command;
use crate::event::{ConnectionState, GmailConnectionStatusChanged, GmailJobStatusChanged, GmailMessageDiscovered};
use crate::id::{ConnectionId, EventId, HistoryId, JobId, OrganisationId, TokenVersion};
use crate::time::{Duration, Timestamp, Window};
use heads::Heads;
use live::Live;
use record::{ChunkKind, Job, MailboxChunk, MailboxState, NeedsReauth, Spent, Watch};
use remembered::Remembered;
pub use remembered::chunk_ids;
use reply::{Answer, Call, CallId, MessageRef};
use window::Listing;

pub use jobs::code;
pub use push::Alarm;
pub use rules::{Context, Rules};

/// What happens to a mailbox.
#[derive(Debug, Clone)]
pub enum Input {
    /// A record of `gmail.connection.poll`, with its `traceparent`.
    Command(Command, Option<Arc<str>>),
    /// What came of a call.
    Answer(CallId, Answer),
    /// The time that [`Mailbox::wake_at`] named has come.
    Timer,
    /// The connection has a newer refresh token.
    TokenRenewed(TokenVersion),
}

/// What a mailbox wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Make this call and bring the answer back.
    Call(Call),
    /// Announce a message, under the `traceparent` of the job that found it.
    Discovered(GmailMessageDiscovered, Option<Arc<str>>),
    /// Tell a job's state, under the job's `traceparent`.
    Job(GmailJobStatusChanged, Option<Arc<str>>),
    /// Tell the connection's state.
    Connection(GmailConnectionStatusChanged),
    /// Write a sealed chunk of remembered ids under its own key.
    WriteChunk(MailboxChunk),
    /// Tombstone the chunk with this number.
    DropChunk(i64),
    /// Put what cannot be read into the dead letters.
    DeadLetter(DeadLetter),
    /// Tell an operator.
    Alarm(Alarm),
    /// Tombstone the state itself: nothing is left of the mailbox.
    Forget,
}

/// Something at Gmail that no attempt could read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Where it is.
    pub place: Place,
    /// Why it could not be read, without anything of the mail.
    pub reason: String,
    /// A job that the walk which met it answers, when one was waiting.
    pub job_id: Option<JobId>,
}

/// A place in a mailbox at Gmail: one record, or one shortest slice of time, asked for one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The record of history that follows `after`, and all that follow it until a new cursor was pinned. What they
    /// announce is looked for by listing the window `owed`.
    History {
        /// The id of the last record that was read, or the cursor.
        after: HistoryId,
        /// The time that is owed instead.
        owed: Window,
    },
    /// A slice of a listing. It is owed to the audit.
    Listing {
        /// By `internalDate`.
        window: Window,
        /// It could not be read what of it lies in spam or trash; what was never kept back is announced.
        held_only: bool,
    },
}

/// One mailbox.
#[derive(Debug)]
pub struct Mailbox {
    connection: ConnectionId,
    organisation: OrganisationId,
    step: i64,
    next_chunk: i64,
    next_walk: i64,
    next_call: u64,
    token: TokenVersion,
    needs_reauth: Option<NeedsReauth>,
    heads: Heads,
    reached: Option<Timestamp>,
    last_synced: Option<record::Head>,
    jobs: Vec<Job>,
    live: Option<Live>,
    windows: Vec<Listing>,
    began: Option<Timestamp>,
    last_push: Option<Timestamp>,
    repoll_at: Option<Timestamp>,
    unpushed_since: Option<Timestamp>,
    watch: Option<Watch>,
    watch_call: Option<CallId>,
    spent: Option<Spent>,
    /// How many walks of history began, in memory only.
    walks_begun: u64,
    seen: Remembered,
    withheld: Remembered,
    rescued: Remembered,
    ended: Remembered,
    /// Set when the connection is forgotten and this is the grave of its mailbox.
    decays_at: Option<Timestamp>,
}

impl Mailbox {
    /// A mailbox of which nothing is known.
    pub fn new(connection: ConnectionId, organisation: OrganisationId) -> Self {
        Self {
            connection,
            organisation,
            step: 0,
            next_chunk: 0,
            next_walk: 1,
            next_call: 0,
            token: TokenVersion::default(),
            needs_reauth: None,
            heads: Heads::default(),
            reached: None,
            last_synced: None,
            jobs: Vec::new(),
            live: None,
            windows: Vec::new(),
            began: None,
            last_push: None,
            repoll_at: None,
            unpushed_since: None,
            watch: None,
            watch_call: None,
            spent: None,
            walks_begun: 0,
            seen: Remembered::new(ChunkKind::Seen),
            withheld: Remembered::new(ChunkKind::Withheld),
            rescued: Remembered::new(ChunkKind::Rescued),
            ended: Remembered::new(ChunkKind::Ended),
            decays_at: None,
        }
    }

    /// The mailbox as it was when `state` and `chunks` were written, with nothing in flight.
    pub fn restored<'a>(state: MailboxState, chunks: impl IntoIterator<Item = &'a MailboxChunk>) -> Self {
        let mut mailbox = Self {
            connection: state.connection_id,
            organisation: state.organisation_id,
            step: state.step,
            next_chunk: state.next_chunk,
            next_walk: state.next_walk,
            next_call: 0,
            token: state.token_version,
            needs_reauth: state.needs_reauth,
            heads: Heads::restored(state.heads),
            reached: state.reached_at,
            last_synced: state.last_synced,
            jobs: state.jobs,
            live: state.live.map(Live::restored),
            windows: state.windows.into_iter().map(Listing::restored).collect(),
            began: state.began_at,
            last_push: state.last_push_at,
            repoll_at: state.repoll_at,
            unpushed_since: state.unpushed_since,
            watch: state.watch,
            watch_call: None,
            spent: state.spent,
            walks_begun: 0,
            seen: Remembered::restored(ChunkKind::Seen, &state.seen),
            withheld: Remembered::restored(ChunkKind::Withheld, &state.withheld),
            rescued: Remembered::restored(ChunkKind::Rescued, &state.rescued),
            ended: Remembered::restored(ChunkKind::Ended, &state.ended),
            decays_at: state.decays_at,
        };
        for chunk in chunks {
            mailbox.set(chunk.kind).restore_chunk(chunk);
        }
        mailbox
    }

    fn set(&mut self, kind: ChunkKind) -> &mut Remembered {
        match kind {
            ChunkKind::Seen => &mut self.seen,
            ChunkKind::Withheld => &mut self.withheld,
            ChunkKind::Rescued => &mut self.rescued,
            ChunkKind::Ended => &mut self.ended,
        }
    }

    /// The state to write in the transaction that carries the actions of all inputs so far.
    pub fn state(&self, partitions: i32, absorbed: i64) -> MailboxState {
        MailboxState {
            connection_id: self.connection,
            organisation_id: self.organisation,
            partitions,
            absorbed,
            step: self.step,
            next_chunk: self.next_chunk,
            next_walk: self.next_walk,
            token_version: self.token,
            needs_reauth: self.needs_reauth.clone(),
            heads: self.heads.record(),
            reached_at: self.reached,
            last_synced: self.last_synced,
            jobs: self.jobs.clone(),
            live: self.live.as_ref().map(|live| live.walk),
            windows: self.windows.iter().map(|listing| listing.walk).collect(),
            seen: self.seen.tail(),
            withheld: self.withheld.tail(),
            rescued: self.rescued.tail(),
            ended: self.ended.tail(),
            quarantine: None,
            began_at: self.began,
            last_push_at: self.last_push,
            repoll_at: self.repoll_at,
            unpushed_since: self.unpushed_since,
            watch: self.watch.clone(),
            spent: self.spent,
            decays_at: self.decays_at,
        }
    }

    /// Whether nothing is under way and nothing waits for a time, but for a grave's [`Self::decays_at`]: the mailbox may
    /// be put away until its next input.
    pub fn is_idle(&self) -> bool {
        (self.decays_at.is_some() || self.wake_at().is_none()) && !self.is_calling()
    }

    /// Whether an answer is awaited.
    pub fn is_calling(&self) -> bool {
        let is_listing = self.windows.iter().any(Listing::is_calling);
        is_listing || self.live.as_ref().is_some_and(Live::is_calling) || self.watch_call.is_some()
    }

    /// The tenant.
    pub fn organisation(&self) -> OrganisationId {
        self.organisation
    }

    /// The history id that the next walk starts from.
    pub fn cursor(&self) -> Option<HistoryId> {
        self.heads.cursor().map(|head| head.head)
    }

    /// The jobs that have not ended.
    pub fn jobs(&self) -> &[Job] {
        &self.jobs
    }

    /// Takes in what happened and says what is to be done.
    pub fn on(&mut self, cx: &Context<'_>, input: Input, out: &mut Vec<Action>) {
        match input {
            Input::Command(Command::Poll(command), trace) => self.on_poll(cx, command, trace, out),
            Input::Command(Command::Cancel(command), _) => self.on_cancel(cx, command.job_id, out),
            Input::Command(Command::Forget(_), _) => self.on_forget(cx, JobEnd::cancelled(), out),
            Input::Answer(id, answer) => self.on_answer(cx, id, answer, out),
            Input::Timer => {}
            Input::TokenRenewed(version) => self.renew(cx, version, out),
        }
        self.advance(cx, out);
    }

    /// Breaks the memory of ids, to show what it is for.
    #[cfg(test)]
    fn forget_what_was_seen(&mut self) {
        self.seen = Remembered::new(ChunkKind::Seen);
    }

    /// When [`Input::Timer`] is due, if it ever is.
    pub fn wake_at(&self) -> Option<Timestamp> {
        if self.decays_at.is_some() {
            return self.decays_at;
        }
        let jobs = self.jobs.iter().map(|job| job.deadline).min();
        let walks = if self.needs_reauth.is_some() {
            None
        } else {
            let live = self.live.as_ref().filter(|_| self.serves_live()).and_then(Live::wake_at);
            self.windows.iter().filter_map(Listing::wake_at).chain(live).chain(self.own_walk_at()).min()
        };
        jobs.into_iter().chain(walks).min()
    }

    /// Starts what can be started, and tidies up. The last step of every input, and the first after a restore.
    pub fn advance(&mut self, cx: &Context<'_>, out: &mut Vec<Action>) {
        if self.decays_at.is_some() {
            return self.decay(cx, out);
        }
        self.expire_jobs(cx, out);
        let jobs = &self.jobs;
        self.windows.retain(|listing| {
            listing.walk.purpose.is_owed() || jobs.iter().any(|job| job.walk == Some(listing.walk.walk))
        });
        if self.needs_reauth.is_none() {
            self.advance_live(cx, out);
            self.advance_windows(cx, out);
            if self.is_judging() {
                self.advance_live(cx, out);
            }
        }
        self.tidy(cx, out);
    }

    fn on_answer(&mut self, cx: &Context<'_>, id: CallId, answer: Answer, out: &mut Vec<Action>) {
        if self.decays_at.is_some() {
            return;
        }
        self.spend(cx, answer.units);
        if self.watch_call == Some(id) {
            self.on_watch_answer(cx, answer, out);
        } else if self.live.as_ref().is_some_and(|live| live.awaits(id)) {
            self.on_live_answer(cx, answer, out);
        } else if let Some(index) = self.windows.iter().position(|listing| listing.awaits(id)) {
            self.on_window_answer(cx, index, answer, out);
        }
    }

    /// A newer refresh token ends `needs_reauth`.
    fn renew(&mut self, cx: &Context<'_>, version: TokenVersion, out: &mut Vec<Action>) {
        self.token = self.token.max(version);
        if self.needs_reauth.as_ref().is_some_and(|refused| refused.token_version < self.token) {
            self.needs_reauth = None;
            self.tell_connection(cx, ConnectionState::Active, None, out);
        }
    }

    /// The grant is gone: all jobs fail, the cursor and what is owed stay. False when the refused token was an older
    /// one than is known, so that the call is worth another try at once.
    fn refuse(&mut self, cx: &Context<'_>, cause: String, version: TokenVersion, out: &mut Vec<Action>) -> bool {
        if version < self.token {
            return false;
        }
        let end = JobEnd::reauth(&cause);
        self.token = version;
        self.needs_reauth = Some(NeedsReauth { token_version: version, cause, at: cx.now });
        self.stop_calls();
        self.repoll_at = None;
        self.end_jobs(cx, |_| true, &end, out);
        self.tell_connection(cx, ConnectionState::NeedsReauth, Some(code::REAUTH_REQUIRED), out);
        true
    }

    /// Drops every answer under way.
    fn stop_calls(&mut self) {
        if let Some(live) = &mut self.live {
            live.stop();
            live.walk.own_until = None;
        }
        self.watch_call = None;
        self.windows.iter_mut().for_each(Listing::stop);
    }

    /// Whether a message may be announced as one that is announced once; it is remembered as such.
    fn announce_once(&mut self, cx: &Context<'_>, key: u128) -> bool {
        self.not_rescued_before(cx, key) && self.seen.insert(key, cx.now)
    }

    /// A message that was kept back is announced when it is freed, and that once is remembered for as long as its
    /// having been kept back is: longer than other announcements.
    fn not_rescued_before(&mut self, cx: &Context<'_>, key: u128) -> bool {
        !self.withheld.contains(key) || self.rescued.insert(key, cx.now)
    }

    fn announce(
        &mut self,
        cx: &Context<'_>,
        message: MessageRef,
        history_id: Option<HistoryId>,
        origin: crate::Origin,
        job: Option<&Finder>,
        out: &mut Vec<Action>,
    ) {
        let event = GmailMessageDiscovered {
            event_id: EventId::of(self.connection, &message.id),
            organisation_id: self.organisation,
            connection_id: self.connection,
            message_id: message.id,
            thread_id: message.thread_id,
            label_ids: message.labels,
            history_id,
            origin,
            job_id: job.map(|job| job.id),
            discovered_at: cx.now,
        };
        out.push(Action::Discovered(event, job.and_then(|job| job.trace.clone())));
    }

    fn tell_connection(
        &mut self,
        cx: &Context<'_>,
        status: ConnectionState,
        code: Option<&str>,
        out: &mut Vec<Action>,
    ) {
        self.step += 1;
        let watch = self.watch.as_ref();
        out.push(Action::Connection(GmailConnectionStatusChanged {
            organisation_id: self.organisation,
            connection_id: self.connection,
            status,
            step: self.step,
            last_history_id: self.last_synced.map(|head| head.head),
            last_synced_at: self.last_synced.map(|head| head.taken_at),
            token_version: self.token,
            code: code.map(str::to_owned).or_else(|| watch.and_then(|watch| watch.code.clone())),
            at: cx.now,
            watch_expires_at: watch.and_then(|watch| watch.expires_at),
            last_push_at: self.last_push,
            units_today: self.spent.map(|spent| spent.units),
            units_day: self.spent.map(|spent| spent.day),
        }));
    }

    /// Puts a place that cannot be read into the dead letters, in the name of the walk that met it.
    fn bury(&mut self, cx: &Context<'_>, place: Place, walk: i64, reason: String, out: &mut Vec<Action>) {
        let job_id = self.first_job(walk).map(|job| job.job_id);
        out.push(Action::DeadLetter(DeadLetter { place, reason, job_id }));
        self.tell_walk(cx, walk, out);
    }

    fn call_id(&mut self) -> CallId {
        self.next_call += 1;
        CallId(self.next_call)
    }

    /// Seals what has grown long and forgets what is past.
    ///
    /// Announced ids are kept as far back as anything may name them again: the cursor's walk, an owed window, an audit,
    /// and whatever window would be owed if the cursor were lost now. They never go by the clock alone. What could not
    /// be read keeps nothing: it may stay so for ever, and an audit that reads it at last may name a message again.
    fn tidy(&mut self, cx: &Context<'_>, out: &mut Vec<Action>) {
        let rules = cx.rules;
        let cursor = self.heads.cursor().map(|head| head.taken_at - rules.overlap);
        let walk = self.live.as_ref().and_then(|live| live.walk.first).map(|first| first.taken_at - rules.overlap);
        let listed = self.windows.iter().map(|listing| &listing.walk).filter(|walk| walk.purpose.keeps_memory());
        let listed = listed.map(|walk| walk.window.since - rules.overlap);
        let kept = cursor.into_iter().chain(walk).chain(listed);
        let horizon = kept.fold(self.audited_since(cx) - rules.overlap, Timestamp::min);
        self.seen.prune(horizon, out);
        self.withheld.prune(cx.now - rules.withheld, out);
        self.rescued.prune(cx.now - rules.withheld, out);
        self.ended.prune(cx.now - rules.ended, out);
        let (connection, next) = (self.connection, &mut self.next_chunk);
        for set in [&mut self.seen, &mut self.withheld, &mut self.rescued, &mut self.ended] {
            set.seal(connection, next, out);
        }
    }
}

use jobs::Finder;
pub(crate) use jobs::JobEnd;
