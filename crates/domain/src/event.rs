//! Events: what the pipeline announces.

use serde::{Deserialize, Serialize};

use crate::id::{ConnectionId, EventId, HistoryId, JobId, MessageId, OrganisationId, ThreadId, TokenVersion};
use crate::job::{JobState, Progress, Trigger};
use crate::mailbox::reply::Label;
use crate::time::Timestamp;

/// By which way a message came to be announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A record of the mailbox's history.
    Live,
    /// The listing of the last 24 hours.
    CatchUp,
    /// The listing of the older rest of an owed window.
    Gap,
    /// A backfill that somebody asked for.
    Backfill,
    /// A message that the audit found missing.
    Audit,
    /// A retained event, announced again.
    Replay,
}

impl Origin {
    /// Whether an event of this origin may be announced at most once for a message.
    pub const fn is_once(self) -> bool {
        match self {
            Self::Live | Self::CatchUp => true,
            Self::Gap | Self::Backfill | Self::Audit | Self::Replay => false,
        }
    }

    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::CatchUp => "catch_up",
            Self::Gap => "gap",
            Self::Backfill => "backfill",
            Self::Audit => "audit",
            Self::Replay => "replay",
        }
    }
}

/// One new message of one mailbox: `gmail.message.discovered`, keyed by connection id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GmailMessageDiscovered {
    /// UUIDv5 of connection and message: the same for every announcement of this message.
    pub event_id: EventId,
    /// The tenant.
    pub organisation_id: OrganisationId,
    /// The mailbox.
    pub connection_id: ConnectionId,
    /// The message, within its mailbox.
    pub message_id: MessageId,
    /// Its thread, within its mailbox.
    pub thread_id: ThreadId,
    /// The labels at the time of the record; unknown where a listing named the message.
    pub label_ids: Option<Vec<Label>>,
    /// The history record that named it; none where a listing did.
    pub history_id: Option<HistoryId>,
    /// By which way it was found.
    pub origin: Origin,
    /// A job that was answered by the walk that found it, when one was waiting.
    pub job_id: Option<JobId>,
    /// When the poller found it.
    pub discovered_at: Timestamp,
}

/// A job has moved on: `gmail.job.status`, keyed by job id. Each record stands for itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GmailJobStatusChanged {
    /// The job.
    pub job_id: JobId,
    /// The tenant.
    pub organisation_id: OrganisationId,
    /// The mailbox.
    pub connection_id: ConnectionId,
    /// What set it off.
    pub trigger: Trigger,
    /// Where it stands.
    pub state: JobState,
    /// Rises with every change of this job; of two records with equally ranked states the higher step is the later.
    pub step: i64,
    /// What it has done so far.
    pub progress: Progress,
    /// When it was asked for.
    pub requested_at: Timestamp,
    /// When its first call to Gmail was made.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// When it fails if it has not ended.
    pub deadline: Timestamp,
    /// When this record was written.
    pub at: Timestamp,
    /// The dotted code of the failure, such as `Gmail.ReauthRequired`. A job that succeeded bears one when something
    /// was put in the dead letters on its way.
    pub code: Option<String>,
    /// One sentence on it and what to do.
    pub detail: Option<String>,
}

/// How a connection fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConnectionState {
    /// Syncs run.
    Active,
    /// The grant is gone; somebody has to consent again.
    NeedsReauth,
    /// The mailbox's state broke the poller and was set aside; an operator has to look.
    Quarantined,
    /// Deleted.
    Forgotten,
}

impl ConnectionState {
    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::NeedsReauth => "needs_reauth",
            Self::Quarantined => "quarantined",
            Self::Forgotten => "forgotten",
        }
    }
}

/// A connection's state as the poller sees it: `gmail.connection.status`, keyed by connection id, compacted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GmailConnectionStatusChanged {
    /// The tenant.
    pub organisation_id: OrganisationId,
    /// The mailbox.
    pub connection_id: ConnectionId,
    /// How it fares.
    pub status: ConnectionState,
    /// Rises with every change of this connection.
    pub step: i64,
    /// The head of the newest complete walk.
    pub last_history_id: Option<HistoryId>,
    /// When the newest complete walk began.
    pub last_synced_at: Option<Timestamp>,
    /// The refresh token's version that this state was seen with.
    pub token_version: TokenVersion,
    /// The dotted code of what is wrong, if something is. An active connection may bear one, such as that of a watch
    /// which Gmail refuses.
    pub code: Option<String>,
    /// When this record was written.
    pub at: Timestamp,
    /// When Gmail stops pushing changes of this mailbox unless the watch is renewed.
    pub watch_expires_at: Option<Timestamp>,
    /// When the last push for this mailbox was taken in.
    pub last_push_at: Option<Timestamp>,
    /// Quota units that the poller spent on this mailbox on the day that `units_day` begins.
    pub units_today: Option<i64>,
    /// When the quota day began that `units_today` counts for: midnight Pacific standard time.
    pub units_day: Option<Timestamp>,
}
