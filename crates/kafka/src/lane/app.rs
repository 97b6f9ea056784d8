//! What a lane drives.

use std::fmt;
use std::time::Instant;

use crate::lane::outbox::Outbox;
use crate::record::InputRecord;

/// One partition of the input under one ownership. Results and outputs of another ownership are dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Assignment {
    /// The partition of the input topic, and of the state topic.
    pub partition: i32,
    /// Never used twice in a process.
    pub epoch: u64,
}

impl fmt::Display for Assignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.partition, self.epoch)
    }
}

/// The application that a lane drives.
///
/// Every method is called on the lane's thread, and none may block: while one runs, no record is read and no
/// transaction commits. Whatever waits (for Gmail, for a database) is spawned elsewhere and comes back through
/// [`crate::lane::DoneSender`]. A panic drops the whole lane, which is then rebuilt from what is committed.
pub trait App: 'static {
    /// Rebuilds a partition's state, off the lane's thread.
    type Restore: Restore;
    /// A finished piece of asynchronous work.
    type Done: Send + 'static;

    /// A partition was assigned: how to rebuild its state. What is returned is moved to another thread.
    fn restore(&mut self, assignment: Assignment) -> Self::Restore;

    /// The partition's state is rebuilt; its records follow.
    fn opened(&mut self, assignment: Assignment, part: <Self::Restore as Restore>::Part, out: &mut Outbox);

    /// The partition was revoked or lost: forget all of it. Called only for what was opened.
    fn closed(&mut self, assignment: Assignment);

    /// One record of the input. It cannot fail: what is no use becomes a dead letter in `out`.
    fn record(&mut self, assignment: Assignment, record: &InputRecord<'_>, out: &mut Outbox);

    /// A piece of asynchronous work ended; its assignment is still the current one.
    fn done(&mut self, assignment: Assignment, done: Self::Done, out: &mut Outbox);

    /// When [`App::tick`] is wanted next; none: not at all. Asked for after every turn of the loop.
    fn wake_at(&self) -> Option<Instant>;

    /// The time given by [`App::wake_at`] has come.
    fn tick(&mut self, now: Instant, out: &mut Outbox);

    /// Whether work is in flight whose result may come any moment: outputs then linger for it (at most for
    /// [`crate::lane::LaneSettings::linger`]), so that it rides in the same transaction.
    fn busy(&self) -> bool;

    /// Whether this partition takes records now; otherwise it is paused, while polling goes on.
    fn wants_input(&self, assignment: Assignment) -> bool;

    /// Whether something changed that [`App::before_commit`] has yet to put out, so that there has to be a transaction.
    fn is_dirty(&self) -> bool {
        false
    }

    /// A transaction is about to carry all that was put out: the time to add to it what is put out once for many
    /// inputs, such as the state of what has changed since the last one.
    fn before_commit(&mut self, out: &mut Outbox) {
        let _ = out;
    }

    /// Which input offset to commit when every record before `next` was given to [`App::record`]: at most `next`, and
    /// never less than before. An application that works on records for long commits the first that is not done, and has
    /// to know those behind it again after a crash: it puts that out as state. Asked for in every turn of the loop.
    fn commit_at(&self, assignment: Assignment, next: i64) -> i64 {
        let _ = assignment;
        next
    }

    /// All that the partition had put out is durable, and so is `next`, the input offset to go on from.
    fn committed(&mut self, assignment: Assignment, next: i64) {
        let _ = (assignment, next);
    }
}

/// Rebuilds one partition's state from the state topic, on a thread of its own.
pub trait Restore: Send + 'static {
    /// What the state is rebuilt into.
    type Part: Send + 'static;

    /// One committed record of the state partition, oldest first. It cannot fail: what does not decode is kept aside
    /// in the part.
    fn record(&mut self, record: &InputRecord<'_>);

    /// All records were read.
    ///
    /// # Errors
    /// Refuses the partition, which stops the lane with this sentence; for what a restart cannot mend, such as a
    /// state written under another partition count.
    fn finish(self) -> Result<Restored<Self::Part>, Refused>;
}

/// A partition's state, rebuilt.
#[derive(Debug, Clone)]
pub struct Restored<P> {
    /// The state.
    pub part: P,
    /// The input offset after the last record that the state says was absorbed. It decides only where nothing was
    /// ever committed for the group (a new group, or offsets that expired); none: from the log's start.
    pub absorbed: Option<i64>,
}

/// Why a partition cannot be worked on, as a sentence without a period: what is wrong and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

/// The restore of an application that keeps no state topic.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoState;

impl Restore for NoState {
    type Part = ();

    fn record(&mut self, _: &InputRecord<'_>) {}

    fn finish(self) -> Result<Restored<()>, Refused> {
        Ok(Restored { part: (), absorbed: None })
    }
}
