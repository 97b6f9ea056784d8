//! What a mailbox is on the topic `gmail.connection.state`: one [`MailboxState`] under the connection's key, and any
//! number of [`MailboxChunk`]s beside it, each under a key of its own. No record grows without a bound.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::id::{ConnectionId, HistoryId, JobId, OrganisationId, TokenVersion};
use crate::job::{Progress, Trigger};
use crate::time::{Duration, Timestamp, Window};

/// Everything about one mailbox but its sealed chunks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MailboxState {
    /// The mailbox.
    pub connection_id: ConnectionId,
    /// The tenant.
    pub organisation_id: OrganisationId,
    /// The partition count of the state topic when this was written; a lane with another count refuses it.
    pub partitions: i32,
    /// The offset after the last command that this state has taken in.
    pub absorbed: i64,
    /// Rises with every status announced, of a job or of the connection.
    pub step: i64,
    /// The number that the next sealed chunk gets.
    pub next_chunk: i64,
    /// The number that the next listed window gets.
    pub next_walk: i64,
    /// The newest refresh token's version that a command named.
    pub token_version: TokenVersion,
    /// Set while somebody has to consent again.
    pub needs_reauth: Option<NeedsReauth>,
    /// Heads of complete walks, oldest first; the first is the cursor.
    pub heads: Vec<Head>,
    /// All mail that arrived before this instant is announced, withheld, or in an owed window.
    pub reached_at: Option<Timestamp>,
    /// The head of the newest complete walk.
    pub last_synced: Option<Head>,
    /// Jobs that have not ended.
    pub jobs: Vec<Job>,
    /// The walk of history in progress.
    pub live: Option<LiveWalk>,
    /// The windows being listed, owed or asked for.
    pub windows: Vec<WindowWalk>,
    /// Messages announced live or by catch-up.
    pub seen: Tail,
    /// Messages kept back because they lay in spam or trash.
    pub withheld: Tail,
    /// Messages once kept back and since announced.
    pub rescued: Tail,
    /// Jobs that have ended.
    pub ended: Tail,
    /// Set when the mailbox was set aside because its state broke the poller.
    pub quarantine: Option<Quarantine>,
    /// The instant from which on mail of this mailbox is announced: the begin of the first window that was owed.
    pub began_at: Option<Timestamp>,
    /// When the last push was taken in.
    pub last_push_at: Option<Timestamp>,
    /// When history is walked once more without being asked: a little after a push.
    pub repoll_at: Option<Timestamp>,
    /// Since when mail has been found that no push told of, though pushes are due.
    pub unpushed_since: Option<Timestamp>,
    /// The watch; none before it was first asked for.
    pub watch: Option<Watch>,
    /// What calls for this mailbox cost on the last day on which one was made.
    pub spent: Option<Spent>,
    /// Set once the connection is forgotten: when the ids of ended jobs, all that is left, may go, too.
    pub decays_at: Option<Timestamp>,
}

/// Gmail's promise to push changes of the mailbox.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Watch {
    /// When Gmail last made it.
    pub renewed_at: Option<Timestamp>,
    /// When it ends unless it is renewed.
    pub expires_at: Option<Timestamp>,
    /// When it was last asked for.
    pub tried_at: Option<Timestamp>,
    /// The dotted code of why Gmail refused it the last time; none where it did not.
    pub code: Option<String>,
}

/// Quota units spent on a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spent {
    /// When the day began: midnight Pacific standard time, when Gmail's daily quotas begin anew.
    pub day: Timestamp,
    /// Units spent since.
    pub units: i64,
}

/// The grant is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NeedsReauth {
    /// The version of the refresh token that was refused; a newer one ends this.
    pub token_version: TokenVersion,
    /// The cause as Google named it.
    pub cause: String,
    /// When it was noticed.
    pub at: Timestamp,
}

/// A history id that was the mailbox's newest at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Head {
    /// The history id.
    pub head: HistoryId,
    /// When Gmail gave it, by Gmail's clock.
    pub taken_at: Timestamp,
}

/// A job that has not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Job {
    /// The job.
    pub job_id: JobId,
    /// What set it off.
    pub trigger: Trigger,
    /// When it was asked for.
    pub requested_at: Timestamp,
    /// When it fails if it has not ended.
    pub deadline: Timestamp,
    /// When its walk began.
    pub started_at: Option<Timestamp>,
    /// The walk that answers it: 0 is the walk of history, another number a listed window; none while it waits.
    pub walk: Option<i64>,
    /// The W3C `traceparent` under which it was asked for.
    pub trace: Option<Arc<str>>,
}

/// The walk of history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase")]
pub struct LiveWalk {
    /// No cursor, or one that Gmail no longer takes: `getProfile` comes first.
    pub pinning: bool,
    /// The head that the walk's very first page showed: the candidate for the next cursor.
    pub first: Option<Head>,
    /// The highest record id up to which all is announced; none where ids did not rise.
    pub checkpoint: Option<HistoryId>,
    /// Records asked for per page.
    pub page_size: i32,
    /// Failures in a row that were not the page's own, which decide how long to wait.
    pub failures: i32,
    /// Attempts at the page at hand, counted before they are made, that were not answered or failed for the page
    /// itself.
    pub attempts: i32,
    /// Not to be called before.
    pub not_before: Option<Timestamp>,
    /// What the walk has done.
    pub progress: Progress,
    /// Until when the mailbox itself wants this walk, whether or not a job waits for it.
    pub own_until: Option<Timestamp>,
}

/// Why a window is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// The last 24 hours of an owed window.
    CatchUp,
    /// The older rest of an owed window.
    Gap,
    /// What was kept back before an owed window may have left spam or trash within it.
    Rescue,
    /// Somebody asked for it.
    Backfill,
    /// To compare the listing with what was announced.
    Audit,
    /// What no attempt could read, owed to the audit.
    Unread,
}

impl Purpose {
    /// Whether the window is owed: only a finished listing removes it.
    pub const fn is_owed(self) -> bool {
        match self {
            Self::CatchUp | Self::Gap | Self::Rescue | Self::Unread => true,
            Self::Backfill | Self::Audit => false,
        }
    }
}

impl Purpose {
    /// Whether the window is owed because history was lost.
    pub(super) const fn is_owed_for_history(self) -> bool {
        match self {
            Self::CatchUp | Self::Gap | Self::Rescue => true,
            Self::Backfill | Self::Audit | Self::Unread => false,
        }
    }

    /// Whether what was announced since the window's begin is remembered until it is listed.
    pub(super) const fn keeps_memory(self) -> bool {
        match self {
            Self::CatchUp | Self::Gap | Self::Rescue | Self::Audit => true,
            Self::Backfill | Self::Unread => false,
        }
    }
}

/// A window being listed, oldest slice first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WindowWalk {
    /// Which walk this is; never 0, never used again in this mailbox.
    pub walk: i64,
    /// Why.
    pub purpose: Purpose,
    /// The whole window.
    pub window: Window,
    /// All before this instant is done.
    pub position: Timestamp,
    /// How long the next slice is.
    pub slice: Duration,
    /// The window is done but for its newest slice, which is listed once more.
    pub settling: bool,
    /// Failures in a row that were not the page's own, which decide how long to wait.
    pub failures: i32,
    /// Attempts at the page at hand, counted before they are made, that were not answered or failed for the page
    /// itself.
    pub attempts: i32,
    /// Not to be called before.
    pub not_before: Option<Timestamp>,
    /// What the walk has done.
    pub progress: Progress,
    /// Messages asked for per page.
    pub page_size: i32,
    /// It waits for the next audit.
    pub parked: bool,
}

/// The youngest remembered ids, not yet sealed into a chunk.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tail {
    /// 16 bytes an id, big-endian.
    pub ids: Bytes,
    /// 4 bytes an id, big-endian: the minute since the epoch in which it was remembered.
    pub minutes: Bytes,
}

/// What a chunk remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChunkKind {
    /// Messages announced live or by catch-up.
    Seen,
    /// Messages kept back.
    Withheld,
    /// Messages once kept back and since announced.
    Rescued,
    /// Jobs that have ended.
    Ended,
}

/// A sealed chunk of remembered ids: written once, tombstoned when its time is past.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MailboxChunk {
    /// The mailbox.
    pub connection_id: ConnectionId,
    /// What is remembered.
    pub kind: ChunkKind,
    /// The chunk's number, unique in the mailbox.
    pub number: i64,
    /// 16 bytes an id, big-endian, sorted.
    pub ids: Bytes,
    /// The minute since the epoch in which the youngest of them was remembered.
    pub newest_minute: i32,
}

/// A mailbox set aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Quarantine {
    /// What broke.
    pub reason: String,
    /// When.
    pub at: Timestamp,
    /// The state record as it was read, whole.
    pub bytes: Bytes,
}
