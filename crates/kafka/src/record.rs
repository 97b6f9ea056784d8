//! Records as they are read and written.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use rdkafka::message::{BorrowedMessage, Header as NativeHeader, Message, OwnedHeaders};
use smallvec::SmallVec;

use crate::header::HeaderView;

/// One header: a name, and a value that may be null.
type Header = (Cow<'static, str>, Option<Bytes>);

/// Headers that records share (see [`Headers::sharing`]).
pub type SharedHeaders = Arc<[(Cow<'static, str>, Option<Bytes>)]>;

/// Headers of a record to be written, in order. A name may repeat and a value may be null, as Kafka allows.
///
/// What many records have in common is kept once for them all: a record that is one of a million costs one reference
/// and its own header, not a list of seven.
#[derive(Clone, Default)]
pub struct Headers {
    /// Those that come first, shared with other records.
    shared: Option<SharedHeaders>,
    own: SmallVec<[Header; 1]>,
}

impl Headers {
    /// No headers.
    pub const fn new() -> Self {
        Self { shared: None, own: SmallVec::new_const() }
    }

    /// Only those that are shared.
    pub fn sharing(shared: &SharedHeaders) -> Self {
        Self { shared: Some(Arc::clone(shared)), own: SmallVec::new_const() }
    }

    /// Headers that many records can share by [`Self::sharing`].
    pub fn into_shared(self) -> SharedHeaders {
        match self.shared {
            Some(shared) if self.own.is_empty() => shared,
            shared => shared.iter().flat_map(|shared| shared.iter()).cloned().chain(self.own).collect(),
        }
    }

    /// Adds one header after those that are there.
    pub fn push(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Bytes>) {
        self.own.push((name.into(), Some(value.into())));
    }

    /// Adds one header whose value may be null.
    pub fn push_nullable(&mut self, name: impl Into<Cow<'static, str>>, value: Option<Bytes>) {
        self.own.push((name.into(), value));
    }

    /// Gives the headers of a name that are this record's own another value.
    pub fn replace(&mut self, name: &str, value: impl Into<Bytes>) {
        let value = value.into();
        self.own.iter_mut().filter(|(known, _)| known == name).for_each(|(_, old)| *old = Some(value.clone()));
    }

    fn all(&self) -> impl Iterator<Item = &Header> {
        self.shared.iter().flat_map(|shared| shared.iter()).chain(&self.own)
    }

    /// The value of the first header of that name that is not null.
    pub fn get(&self, name: &str) -> Option<&Bytes> {
        self.all().find_map(|(known, value)| value.as_ref().filter(|_| known == name))
    }

    /// All headers, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&Bytes>)> {
        self.all().map(|(name, value)| (name.as_ref(), value.as_ref()))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.shared.as_ref().map_or(0, |shared| shared.len()) + self.own.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of names and values.
    pub(crate) fn size(&self) -> usize {
        self.all().map(|(name, value)| name.len() + value.as_ref().map_or(0, Bytes::len)).sum()
    }

    /// The headers as librdkafka holds them; none where there are none, so that no record pays for an empty list.
    pub(crate) fn to_native(&self) -> Option<OwnedHeaders> {
        if self.is_empty() {
            return None;
        }
        let mut native = OwnedHeaders::new_with_capacity(self.len());
        for (name, value) in self.all() {
            native = native.insert(NativeHeader { key: name, value: value.as_deref() });
        }
        Some(native)
    }
}

impl PartialEq for Headers {
    fn eq(&self, other: &Self) -> bool {
        self.all().eq(other.all())
    }
}

impl Eq for Headers {}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.all()).finish()
    }
}

impl From<Vec<(&'static str, Bytes)>> for Headers {
    fn from(headers: Vec<(&'static str, Bytes)>) -> Self {
        headers.into_iter().collect()
    }
}

impl<N: Into<Cow<'static, str>>> FromIterator<(N, Bytes)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, Bytes)>>(headers: I) -> Self {
        Self { shared: None, own: headers.into_iter().map(|(name, value)| (name.into(), Some(value))).collect() }
    }
}

/// A record to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutRecord {
    /// The topic's full name, prefix included (see [`crate::topics::Topics`]).
    pub topic: Arc<str>,
    /// The partition; none: the one that the key hashes to (`murmur2_random`, as Java clients do).
    pub partition: Option<i32>,
    /// The key; none: any partition.
    pub key: Option<Bytes>,
    /// The value; none: a tombstone.
    pub value: Option<Bytes>,
    /// The headers.
    pub headers: Headers,
}

impl OutRecord {
    /// A record whose key decides on the partition.
    pub fn new(topic: &Arc<str>, key: impl Into<Bytes>, value: impl Into<Bytes>, headers: Headers) -> Self {
        Self { topic: topic.clone(), partition: None, key: Some(key.into()), value: Some(value.into()), headers }
    }

    /// The same record, written to this partition whatever its key.
    #[must_use]
    pub fn to_partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// The bytes that count against the bounds of queues and transactions.
    pub(crate) fn size(&self) -> usize {
        self.key.as_ref().map_or(0, Bytes::len) + self.value.as_ref().map_or(0, Bytes::len) + self.headers.size()
    }
}

/// A record as it was read, borrowed from librdkafka.
///
/// Nothing in it is to be trusted: key, value and headers are whatever somebody wrote.
#[derive(Debug, Clone, Copy)]
pub struct InputRecord<'a> {
    /// The topic's full name, prefix included.
    pub topic: &'a str,
    /// Where it was read.
    pub partition: i32,
    /// Its offset; offsets have gaps where transactions ended.
    pub offset: i64,
    /// When it was written, in milliseconds since 1970, as its writer said; none if unknown.
    pub timestamp: Option<i64>,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value; none: a tombstone.
    pub value: Option<&'a [u8]>,
    /// The headers.
    pub headers: HeaderView<'a>,
}

/// A record that was read, with bytes of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedRecord {
    /// The topic's full name, prefix included.
    pub topic: Arc<str>,
    /// Where it was read.
    pub partition: i32,
    /// Its offset; offsets have gaps where transactions ended.
    pub offset: i64,
    /// When it was written, in milliseconds since 1970, as its writer said; none if unknown.
    pub timestamp: Option<i64>,
    /// The key.
    pub key: Option<Bytes>,
    /// The value; none: a tombstone.
    pub value: Option<Bytes>,
    /// The headers.
    pub headers: Headers,
}

impl<'a> InputRecord<'a> {
    /// The record as librdkafka holds it. The topic is given, so that its name need not be looked up each time.
    pub(crate) fn of(message: &'a BorrowedMessage<'_>, topic: &'a str) -> Self {
        Self {
            topic,
            partition: message.partition(),
            offset: message.offset(),
            timestamp: message.timestamp().to_millis(),
            key: message.key(),
            value: message.payload(),
            headers: HeaderView::of(message),
        }
    }
    /// Copies the record, its topic's name being shared.
    pub fn to_owned_in(self, topic: &Arc<str>) -> OwnedRecord {
        OwnedRecord {
            topic: topic.clone(),
            partition: self.partition,
            offset: self.offset,
            timestamp: self.timestamp,
            key: self.key.map(Bytes::copy_from_slice),
            value: self.value.map(Bytes::copy_from_slice),
            headers: self.headers.to_headers(),
        }
    }
}
