//! The numbers that the mailbox decides by.

use super::{Duration, Timestamp};

/// The numbers that the mailbox decides by.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// How long Gmail's reads may lag: a head becomes the cursor once a walk this much younger has crossed it.
    pub lag: Duration,
    /// How far an owed window and the memory of ids reach back beyond what is known to be complete.
    pub overlap: Duration,
    /// The part of an owed window that is listed first and answers the job.
    pub catch_up: Duration,
    /// How far back an audit looks, and so the least that is remembered: not below [`Self::catch_up`].
    pub audit: Duration,
    /// After so long Gmail's search index is taken to know all that has arrived.
    pub index_lag: Duration,
    /// The newest part of a listed window that is listed once more after [`Self::index_lag`].
    pub settle: Duration,
    /// Records or messages asked for per page.
    pub page_size: u16,
    /// A page that failed for itself so often is asked for in smaller pages; a single record is put in the dead
    /// letters.
    pub attempts: i32,
    /// More jobs than this do not wait in one mailbox.
    pub waiting: usize,
    /// How long an ended job's id is kept: longer than the command topic retains.
    pub ended: Duration,
    /// How long a message kept back is remembered: longer than Gmail keeps spam and trash.
    pub withheld: Duration,
    /// How long a gap's job may take.
    pub gap_deadline: Duration,
    /// How long an owed window rests after an error that trying again does not mend.
    pub rest: Duration,
    /// A job's progress is told at most this often.
    pub progress: Duration,
    /// How long after a push history is walked once more: Gmail pushes before the record can be read, by seconds.
    pub push_again: Duration,
    /// How long a walk that the mailbox asks for itself is kept up where it fails.
    pub own_walk: Duration,
    /// How old a watch may grow before it is renewed; none: the mailbox is not watched.
    pub watch: Option<Duration>,
    /// How long after an attempt at a watch the next one may follow.
    pub watch_retry: Duration,
    /// A watched mailbox in which mail is found though no push came for so long may have lost its pushes.
    pub push_silence: Duration,
    /// So long after mail was found in such a mailbox a push may still come. Then an alarm is raised.
    pub push_grace: Duration,
    /// How often a mailbox whose pushes are lost walks without being asked.
    pub silent_poll: Duration,
}

impl Rules {
    /// What the poller runs by.
    pub const DEFAULT: Self = Self {
        lag: Duration::from_minutes(10),
        overlap: Duration::from_minutes(10),
        catch_up: Duration::from_hours(24),
        audit: Duration::from_hours(48),
        index_lag: Duration::from_secs(60),
        settle: Duration::from_minutes(10),
        page_size: 500,
        attempts: 3,
        waiting: 1_000,
        ended: Duration::from_days(8),
        withheld: Duration::from_days(31),
        gap_deadline: Duration::from_days(7),
        rest: Duration::from_minutes(15),
        progress: Duration::from_secs(1),
        push_again: Duration::from_secs(15),
        own_walk: Duration::from_hours(1),
        watch: None,
        watch_retry: Duration::from_hours(1),
        push_silence: Duration::from_hours(1),
        push_grace: Duration::from_minutes(10),
        silent_poll: Duration::from_hours(1),
    };
}

/// What the mailbox may know of the world: the time, a random number drawn for this input, and the rules.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The time.
    pub now: Timestamp,
    /// Random; used for jitter only.
    pub jitter: u64,
    /// The numbers to decide by.
    pub rules: &'a Rules,
}
