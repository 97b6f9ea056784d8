//! Commands: what `gmail.connection.poll` carries, keyed by connection id.

use serde::{Deserialize, Serialize};

use crate::id::{ConnectionId, JobId, OrganisationId, TokenVersion};
use crate::job::Trigger;
use crate::time::{Timestamp, Window};

/// Asks the poller to bring one mailbox up to date, or to list a window of it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PollGmailConnection {
    /// The job that this command is. The same id again is no new job.
    pub job_id: JobId,
    /// The tenant.
    pub organisation_id: OrganisationId,
    /// The mailbox.
    pub connection_id: ConnectionId,
    /// What set the job off.
    pub trigger: Trigger,
    /// The window to list again (a backfill, or an audit); none: walk history from the cursor (a sync).
    pub window: Option<Window>,
    /// The version of the connection's refresh token when the command was written; a newer one than the mailbox
    /// failed with ends `needs_reauth`.
    pub token_version: TokenVersion,
    /// When it was asked for.
    pub requested_at: Timestamp,
    /// When the job fails if it has not ended.
    pub deadline: Timestamp,
}

/// Asks the poller to end a job without finishing it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CancelJob {
    /// The job to end.
    pub job_id: JobId,
    /// The tenant.
    pub organisation_id: OrganisationId,
    /// The mailbox.
    pub connection_id: ConnectionId,
    /// When it was asked for.
    pub requested_at: Timestamp,
}

/// Asks the poller to forget a mailbox whose connection was deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ForgetConnection {
    /// The tenant.
    pub organisation_id: OrganisationId,
    /// The mailbox.
    pub connection_id: ConnectionId,
    /// When it was asked for.
    pub requested_at: Timestamp,
}

/// Any record of `gmail.connection.poll`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// A sync, a backfill or an audit.
    Poll(PollGmailConnection),
    /// An end to one job.
    Cancel(CancelJob),
    /// An end to the connection.
    Forget(ForgetConnection),
}

impl Command {
    /// The mailbox that the command is for: the record's key.
    pub const fn connection_id(&self) -> ConnectionId {
        match self {
            Self::Poll(command) => command.connection_id,
            Self::Cancel(command) => command.connection_id,
            Self::Forget(command) => command.connection_id,
        }
    }

    /// The tenant.
    pub const fn organisation_id(&self) -> OrganisationId {
        match self {
            Self::Poll(command) => command.organisation_id,
            Self::Cancel(command) => command.organisation_id,
            Self::Forget(command) => command.organisation_id,
        }
    }

    /// The job that the command names, if it names one.
    pub const fn job_id(&self) -> Option<JobId> {
        match self {
            Self::Poll(command) => Some(command.job_id),
            Self::Cancel(command) => Some(command.job_id),
            Self::Forget(_) => None,
        }
    }
}
