//! The cursor, and why it lags.
//!
//! Gmail's reads lag by seconds: a record may become visible below a head that was already seen. So the head of a
//! walk becomes the cursor only when a *later* walk, begun at least [`Rules::lag`] after that head was taken, has read
//! across it again: what was invisible then was visible to that walk. Until then walks start from an older head and
//! what they read again is recognised by its id.

use super::record::Head;
use super::{Duration, HistoryId, Timestamp};

/// Heads closer together than this are kept as one: a mailbox synced every second keeps a dozen, not hundreds.
const APART: Duration = Duration::from_minutes(1);

/// The heads of complete walks, oldest first. The first is the cursor. Ids and times rise.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Heads(Vec<Head>);

impl Heads {
    pub(super) fn restored(heads: Vec<Head>) -> Self {
        Self(heads)
    }

    pub(super) fn record(&self) -> Vec<Head> {
        self.0.clone()
    }

    /// Where the next walk starts.
    pub(super) fn cursor(&self) -> Option<Head> {
        self.0.first().copied()
    }

    /// Starts anew at a head whose window before it is owed.
    pub(super) fn pin(&mut self, head: HistoryId, taken_at: Timestamp) {
        self.0 = vec![Head { head, taken_at }];
    }

    /// Takes in the first head of a walk that is complete, and moves the cursor as far as that walk vouches for.
    pub(super) fn completed(&mut self, walk: Head, lag: Duration) {
        let vouched = walk.taken_at - lag;
        if let Some(newest) = self.0.iter().rposition(|head| head.taken_at <= vouched) {
            self.0.drain(..newest);
        }
        let apart = match self.0.as_slice() {
            [] | [_] => true,
            [.., last] => walk.taken_at >= last.taken_at + APART,
        };
        let rises = self.0.last().is_none_or(|last| walk.head >= last.head && walk.taken_at >= last.taken_at);
        if apart && rises {
            self.0.push(walk);
        }
    }
}
