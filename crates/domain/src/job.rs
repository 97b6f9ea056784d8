//! Jobs: what was asked for, how far it is, and how it ended.

use serde::{Deserialize, Serialize};

use crate::time::Window;

/// Where a job stands. `Queued → Running → Succeeded | Failed | Cancelled`; the first terminal state stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Accepted; no call to Gmail made for it yet.
    Queued,
    /// A walk that answers it is under way.
    Running,
    /// Everything it asked for was announced.
    Succeeded,
    /// It ended without; the code says why.
    Failed,
    /// Somebody cancelled it.
    Cancelled,
}

impl JobState {
    /// Whether the job has ended.
    pub const fn is_terminal(self) -> bool {
        match self {
            Self::Queued | Self::Running => false,
            Self::Succeeded | Self::Failed | Self::Cancelled => true,
        }
    }

    /// The order of states in the projection. Terminal states share one rank, so that the first one wins.
    pub const fn rank(self) -> i16 {
        match self {
            Self::Queued => 0,
            Self::Running => 1,
            Self::Succeeded | Self::Failed | Self::Cancelled => 2,
        }
    }

    /// The name on the wire: `queued`, `running`, `succeeded`, `failed`, `cancelled`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What set a job off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// `POST /gmail-connections/{id}/sync`.
    Api,
    /// The mailbox was just connected.
    Connect,
    /// The 12-hour schedule.
    Schedule,
    /// A push notification from Gmail.
    Push,
    /// `POST /gmail-connections/{id}/backfill`.
    Backfill,
    /// The part of an owed window that is older than 24 hours.
    Gap,
    /// The daily comparison of listing and stream.
    Audit,
}

impl Trigger {
    /// The name on the wire: the variant in lower case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Connect => "connect",
            Self::Schedule => "schedule",
            Self::Push => "push",
            Self::Backfill => "backfill",
            Self::Gap => "gap",
            Self::Audit => "audit",
        }
    }
}

/// The priority lane in which a job's calls to Gmail are made, highest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lane {
    /// The walk of history.
    Live,
    /// The last 24 hours, when there is no history to walk.
    CatchUp,
    /// The reading of messages.
    Fetch,
    /// Backfills and gaps.
    Backfill,
    /// Audits.
    Audit,
}

impl Lane {
    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::CatchUp => "catch_up",
            Self::Fetch => "fetch",
            Self::Backfill => "backfill",
            Self::Audit => "audit",
        }
    }
}

/// What a job has done so far. Counts never fall.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// Pages read from Gmail.
    pub pages: i64,
    /// History records or list items seen.
    pub records_seen: i64,
    /// Messages announced.
    pub discovered: i64,
    /// Messages recognised as announced before.
    pub duplicates_skipped: i64,
    /// Messages kept back by policy (drafts, chats, spam, trash).
    pub withheld: i64,
    /// Records put in the dead letters because no attempt could read them.
    pub dead_lettered: i64,
    /// Quota units spent.
    pub quota_units: i64,
    /// The window being listed, when the job lists one.
    pub window: Option<Window>,
    /// The lane in which the job's calls are made.
    pub lane: Option<Lane>,
}
