//! The events that can be replayed, and what a replay makes of one.

use bytes::{Bytes, BytesMut};
use domain::{GmailMessageDiscovered, GmailMessageFetched, Origin, Timestamp};
use events::headers::{self, Envelope};
use events::{Event, TraceParent};
use kafka::topics::Topic;
use kafka::{Headers, SharedHeaders};

use crate::cli::repair::From;

/// Who says so, in CloudEvents.
const SOURCE: &str = "urn:mailtide:replay";

/// An event that was read, marked as a replay.
pub(super) struct Marked {
    /// By which way the one that was read came to be.
    pub(super) origin: Origin,
    /// When that was written.
    pub(super) at: Timestamp,
    /// The same event, as a replay, in the version of the schema that is written now.
    pub(super) frame: Bytes,
    pub(super) headers: Headers,
}

/// A discovered event's frame, as that of a replay; none if it does not decode.
pub(crate) fn discovered_again(frame: &[u8]) -> Option<Bytes> {
    let mut event: GmailMessageDiscovered = events::decode(frame).ok()?;
    event.origin = Origin::Replay;
    Some(events::encode(&event))
}

trait Replayed: Event {
    fn origin_mut(&mut self) -> &mut Origin;
    fn at(&self) -> Timestamp;
}

impl Replayed for GmailMessageDiscovered {
    fn origin_mut(&mut self) -> &mut Origin {
        &mut self.origin
    }

    fn at(&self) -> Timestamp {
        self.discovered_at
    }
}

impl Replayed for GmailMessageFetched {
    fn origin_mut(&mut self) -> &mut Origin {
        &mut self.origin
    }

    fn at(&self) -> Timestamp {
        self.fetched_at
    }
}

impl From {
    /// The topic that carries them.
    pub(crate) const fn topic(self) -> Topic {
        match self {
            Self::Discovered => Topic::Discovered,
            Self::Fetched => Topic::Fetched,
        }
    }

    /// The headers that all events of one replay share.
    pub(super) fn headers(self, replay: &str, at: Timestamp) -> SharedHeaders {
        let envelope = Envelope::new(SOURCE, at, TraceParent::new(rand::random(), rand::random()));
        let common = match self {
            Self::Discovered => envelope.common::<GmailMessageDiscovered>(),
            Self::Fetched => envelope.common::<GmailMessageFetched>(),
        };
        let mut shared = Headers::from_iter(common);
        shared.push(headers::REPLAY_ID, replay.to_owned());
        shared.into_shared()
    }

    /// The event in a record's value, whatever version it was written with, as a replay.
    ///
    /// # Errors
    /// When it does not decode, or is another event.
    pub(super) fn mark(
        self,
        value: &[u8],
        shared: &SharedHeaders,
        buffer: &mut BytesMut,
    ) -> Result<Marked, events::Error> {
        match self {
            Self::Discovered => mark::<GmailMessageDiscovered>(value, shared, buffer),
            Self::Fetched => mark::<GmailMessageFetched>(value, shared, buffer),
        }
    }
}

fn mark<T: Replayed>(value: &[u8], shared: &SharedHeaders, buffer: &mut BytesMut) -> Result<Marked, events::Error> {
    let mut event: T = events::decode(value)?;
    let origin = std::mem::replace(event.origin_mut(), Origin::Replay);
    let frame = events::encode_into(&event, buffer);
    let mut headers = Headers::sharing(shared);
    headers::own(&event, &frame).for_each(|(name, value)| headers.push(name, value));
    Ok(Marked { origin, at: event.at(), frame, headers })
}
