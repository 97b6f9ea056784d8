//! The records that travel on the topics.

use bytes::{Bytes, BytesMut};
use domain::mailbox::record::{MailboxChunk, MailboxState};
use domain::{
    CancelJob, FetchPosition, FetchState, ForgetConnection, GmailConnectionStatusChanged, GmailJobStatusChanged,
    GmailMessageDiscovered, GmailMessageFetched, JobId, OrganisationId, PollGmailConnection,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::discovered::{self, UUID_TEXT};
use crate::frame::HEADER;

/// Every record that has a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Record {
    /// A sync, a backfill or an audit is asked for.
    PollGmailConnection,
    /// A job is to end.
    CancelJob,
    /// A mailbox is to be forgotten.
    ForgetConnection,
    /// A message was found.
    GmailMessageDiscovered,
    /// A job has moved on.
    GmailJobStatusChanged,
    /// A connection fares differently.
    GmailConnectionStatusChanged,
    /// What a mailbox is.
    MailboxState,
    /// What a mailbox remembers.
    MailboxChunk,
    /// A message was read, or found to be gone.
    GmailMessageFetched,
    /// How far a connection's messages are fetched.
    FetchState,
    /// How far a partition is fetched.
    FetchPosition,
}

impl Record {
    /// All of them, in the order of their declaration.
    pub const ALL: [Self; 11] = [
        Self::PollGmailConnection,
        Self::CancelJob,
        Self::ForgetConnection,
        Self::GmailMessageDiscovered,
        Self::GmailJobStatusChanged,
        Self::GmailConnectionStatusChanged,
        Self::MailboxState,
        Self::MailboxChunk,
        Self::GmailMessageFetched,
        Self::FetchState,
        Self::FetchPosition,
    ];

    /// The record's name in its schema and in the manifest.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PollGmailConnection => "PollGmailConnection",
            Self::CancelJob => "CancelJob",
            Self::ForgetConnection => "ForgetConnection",
            Self::GmailMessageDiscovered => "GmailMessageDiscovered",
            Self::GmailJobStatusChanged => "GmailJobStatusChanged",
            Self::GmailConnectionStatusChanged => "GmailConnectionStatusChanged",
            Self::MailboxState => "MailboxState",
            Self::MailboxChunk => "MailboxChunk",
            Self::GmailMessageFetched => "GmailMessageFetched",
            Self::FetchState => "FetchState",
            Self::FetchPosition => "FetchPosition",
        }
    }

    /// Whether the pipeline alone reads it, and nobody else should.
    pub const fn is_private(self) -> bool {
        matches!(self, Self::MailboxState | Self::MailboxChunk | Self::FetchState | Self::FetchPosition)
    }

    /// The record with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|record| record.name() == name)
    }
}

mod sealed {
    use bytes::BytesMut;

    pub trait Sealed: Sized {
        /// A hand-written encoder for this version of the schema, where the general one is too slow. It must write the
        /// same bytes as the general one.
        fn exact(_version: u32) -> Option<fn(&Self, &mut BytesMut)> {
            None
        }
    }
}

/// A record that can be encoded and decoded. Implemented for the domain's commands and events, and for nothing else:
/// each needs a schema.
pub trait Event: sealed::Sealed + Serialize + DeserializeOwned {
    /// Which record this is.
    const RECORD: Record;

    /// The CloudEvents `type`.
    const TYPE: &'static str;

    /// The CloudEvents `id`: with the source it is the same for a repetition of this record and for nothing else.
    /// `frame` is this record's frame, so that an id which stands in it need not be copied.
    fn event_id(&self, frame: &Bytes) -> Bytes;

    /// The job that a consumer can fail when it cannot decode the record, and its tenant; headers of their own.
    fn job_to_fail(&self) -> Option<(JobId, OrganisationId)> {
        None
    }
}

macro_rules! event {
    ($name:ident, $type:literal $(, exact in version $version:literal: $write:path)?, { $($body:tt)* }) => {
        impl sealed::Sealed for $name {
            $(
                fn exact(version: u32) -> Option<fn(&Self, &mut BytesMut)> {
                    (version == $version).then_some($write)
                }
            )?
        }
        impl Event for $name {
            const RECORD: Record = Record::$name;
            const TYPE: &'static str = $type;
            $($body)*
        }
    };
}

event!(PollGmailConnection, "gmail.connection.poll", {
    fn event_id(&self, _: &Bytes) -> Bytes {
        self.job_id.to_string().into()
    }

    fn job_to_fail(&self) -> Option<(JobId, OrganisationId)> {
        Some((self.job_id, self.organisation_id))
    }
});

event!(CancelJob, "gmail.job.cancel", {
    fn event_id(&self, _: &Bytes) -> Bytes {
        format!("{}/cancel", self.job_id).into()
    }
});

event!(ForgetConnection, "gmail.connection.forget", {
    fn event_id(&self, _: &Bytes) -> Bytes {
        format!("{}/forget", self.connection_id).into()
    }
});

event!(GmailMessageDiscovered, "gmail.message.discovered", exact in version 1: discovered::write, {
    fn event_id(&self, frame: &Bytes) -> Bytes {
        leading_uuid(frame)
    }
});

event!(GmailJobStatusChanged, "gmail.job.status", {
    fn event_id(&self, _: &Bytes) -> Bytes {
        format!("{}/{}", self.job_id, self.step).into()
    }
});

event!(GmailConnectionStatusChanged, "gmail.connection.status", {
    fn event_id(&self, _: &Bytes) -> Bytes {
        format!("{}/{}", self.connection_id, self.step).into()
    }
});

event!(MailboxState, "gmail.mailbox.state", {
    fn event_id(&self, _: &Bytes) -> Bytes {
        format!("{}/state/{}", self.connection_id, self.step).into()
    }
});

event!(MailboxChunk, "gmail.mailbox.chunk", {
    fn event_id(&self, _: &Bytes) -> Bytes {
        format!("{}/chunk/{}", self.connection_id, self.number).into()
    }
});

event!(GmailMessageFetched, "gmail.message.fetched", {
    fn event_id(&self, frame: &Bytes) -> Bytes {
        leading_uuid(frame)
    }
});

event!(FetchState, "gmail.fetch.state", {
    fn event_id(&self, _: &Bytes) -> Bytes {
        let connection = self.connection_id.map_or_else(|| "none".to_owned(), |id| id.to_string());
        format!("{connection}/{}", self.from).into()
    }
});

event!(FetchPosition, "gmail.fetch.position", {
    fn event_id(&self, _: &Bytes) -> Bytes {
        self.position.to_string().into()
    }
});

/// The text of the UUID that is the first field of the frame's record in every version of its schema.
fn leading_uuid(frame: &Bytes) -> Bytes {
    frame.slice(HEADER + 1..HEADER + 1 + UUID_TEXT)
}
