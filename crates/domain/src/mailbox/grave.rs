//! What is left of a mailbox once its connection is forgotten: a grave.
//!
//! The command topic delivers at least once, so a command may come again after its job has ended with the mailbox. The
//! grave therefore knows the ids of the jobs that ended, as the mailbox did, and nothing else. They go by themselves, when
//! no command that bears one of them can be on the topic any more, and the last takes the grave with it.

use super::jobs::JobEnd;
use super::record::ChunkKind;
use super::remembered::Remembered;
use super::{Action, ConnectionState, Context, Mailbox, Timestamp};

impl Mailbox {
    /// When this is a grave: the time at which it goes, unless somebody opens it.
    pub fn decays_at(&self) -> Option<Timestamp> {
        self.decays_at
    }

    /// Whether nothing is left of the mailbox, not even a grave: its records are tombstoned.
    pub fn is_gone(&self) -> bool {
        self.decays_at.is_some() && self.ended.is_empty()
    }

    /// Ends everything: jobs, walks, what is remembered of messages.
    pub(super) fn on_forget(&mut self, cx: &Context<'_>, end: JobEnd, out: &mut Vec<Action>) {
        if self.decays_at.is_some() {
            return;
        }
        self.end_jobs(cx, |_| true, &end, out);
        self.stop_watch(cx, out);
        self.tell_connection(cx, ConnectionState::Forgotten, None, out);
        for kind in [ChunkKind::Seen, ChunkKind::Withheld, ChunkKind::Rescued] {
            out.extend(self.set(kind).chunk_numbers().map(Action::DropChunk));
        }
        *self = Self {
            // Whatever is counted goes on, so that nothing gets a number that something had.
            step: self.step,
            next_chunk: self.next_chunk,
            next_walk: self.next_walk,
            next_call: self.next_call,
            walks_begun: self.walks_begun,
            token: self.token,
            ended: std::mem::replace(&mut self.ended, Remembered::new(ChunkKind::Ended)),
            decays_at: Some(cx.now),
            ..Self::new(self.connection, self.organisation)
        };
    }

    /// Lets go of what is past.
    pub(super) fn decay(&mut self, cx: &Context<'_>, out: &mut Vec<Action>) {
        self.ended.prune(cx.now - cx.rules.ended, out);
        self.ended.seal(self.connection, &mut self.next_chunk, out);
        match self.ended.past_at() {
            Some(at) => self.decays_at = Some(at + cx.rules.ended),
            None => out.push(Action::Forget),
        }
    }
}
