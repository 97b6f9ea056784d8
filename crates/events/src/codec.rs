//! Avro through the library: writers and readers built once, one set for each published version.

use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use bytes::{BufMut, BytesMut};
use serde::de::DeserializeOwned;

use crate::registry::Published;
use crate::{Error, Event, Record, Registry, frame, wire};

/// What the decoder may allocate for one string, one list or one map, in bytes. No record on any topic is larger than
/// the broker's limit of 1 MiB; the rest is room for a decoded item being larger than its encoded form.
const MAX_ALLOCATION: usize = 4 << 20;

static CODECS: LazyLock<Codecs> = LazyLock::new(|| Codecs::new(Registry::built_in()));

/// The codecs of the schemas that are compiled in.
pub(crate) fn codecs() -> &'static Codecs {
    &CODECS
}

/// One codec for each record, and the way from a schema's id to it.
pub(crate) struct Codecs {
    codecs: Vec<Codec>,
    by_id: HashMap<u32, (Record, usize)>,
}

impl Codecs {
    pub(crate) fn new(registry: &Registry) -> Self {
        apache_avro::util::max_allocation_bytes(MAX_ALLOCATION);
        let codecs = Record::ALL.into_iter().map(|record| Codec::new(record, registry)).collect();
        let by_id = Record::ALL
            .into_iter()
            .flat_map(|record| registry.versions_of(record).enumerate().map(move |(at, it)| (it.id, (record, at))))
            .collect();
        Self { codecs, by_id }
    }

    pub(crate) fn of(&self, record: Record) -> &Codec {
        &self.codecs[record as usize]
    }

    /// The codec of the record, and the version within it, that a frame's id names.
    pub(crate) fn by_id(&self, id: u32) -> Result<(&Codec, &Version), Error> {
        self.own(wire::own_id(id)).ok_or(Error::UnknownSchema { id })
    }

    /// The same by the manifest's id.
    fn own(&self, id: u32) -> Option<(&Codec, &Version)> {
        let (record, at) = self.by_id.get(&id)?;
        let codec = self.of(*record);
        Some((codec, &codec.versions[*at]))
    }

    /// From now on frames of the version that has this id in the manifest are written under another.
    pub(crate) fn write_under(&self, own: u32, id: u32) {
        if let Some((_, version)) = self.own(own) {
            // Alone: whoever reads the former id a moment longer writes a frame that is read all the same.
            version.id.store(id, Ordering::Relaxed);
        }
    }

    /// The id under which frames of the version that has this id in the manifest are written.
    pub(crate) fn written_id(&self, own: u32) -> Option<u32> {
        self.own(own).map(|(_, version)| version.id.load(Ordering::Relaxed))
    }
}

/// The version that is written: the manifest's.
#[cfg(not(feature = "faults"))]
const fn written(manifests: u32) -> u32 {
    manifests
}

/// The version that is written: the manifest's or, where a process under test is told so, the one before it, as a build
/// writes that was published before the newest schemas.
#[cfg(feature = "faults")]
fn written(manifests: u32) -> u32 {
    match std::env::var(VARIABLE).as_deref() {
        Err(_) => manifests,
        Ok("previous-versions") => manifests.saturating_sub(1).max(1),
        Ok(other) => panic!("`{other}` in {VARIABLE} is no fault"),
    }
}

/// The environment variable that names a fault, for processes under test.
#[cfg(feature = "faults")]
const VARIABLE: &str = "EVENTS_FAULTS";

/// One published version, ready to be written and read.
pub(crate) struct Version {
    /// What stands in the frames that are written.
    id: AtomicU32,
    number: u32,
    schema: &'static Schema,
    writer: GenericDatumWriter<'static>,
    reader: GenericDatumReader<'static>,
}

/// All versions of one record. The Rust type has the shape of the newest.
pub(crate) struct Codec {
    record: Record,
    versions: Vec<Version>,
    written: usize,
}

impl Codec {
    fn new(record: Record, registry: &Registry) -> Self {
        let versions: Vec<Version> = registry.versions_of(record).map(Version::new).collect();
        let written = written(registry.written(record).version);
        let written =
            versions.iter().position(|version| version.number == written).expect("the written version is published");
        Self { record, versions, written }
    }

    pub(crate) const fn record(&self) -> Record {
        self.record
    }

    fn newest(&self) -> &Version {
        self.versions.last().expect("every record has a published version")
    }

    /// Appends a frame.
    pub(crate) fn encode<T: Event>(&self, record: &T, out: &mut BytesMut) {
        let version = &self.versions[self.written];
        frame::begin(version.id.load(Ordering::Relaxed), out);
        match T::exact(version.number) {
            Some(write) => write(record, out),
            None => self.write(record, version, out),
        }
    }

    /// Appends a datum by way of the library.
    fn write<T: Event>(&self, record: &T, version: &Version, out: &mut BytesMut) {
        const HOLDS: &str = "the type has the shape of its newest schema, and every version can be read as any other; \
                             tests hold both";
        let newest = self.newest();
        if version.number == newest.number {
            newest.writer.write_ser(&mut out.writer(), record).expect(HOLDS);
        } else {
            let datum = newest.writer.write_ser_to_vec(record).expect(HOLDS);
            out.put_slice(&newest.transcode(version, &datum).expect(HOLDS));
        }
    }

    /// Reads a datum that was written with `version`.
    pub(crate) fn decode<T: DeserializeOwned>(&self, version: &Version, datum: &[u8]) -> Result<T, Error> {
        let newest = self.newest();
        let transcoded;
        let (version, mut rest) = if version.number == newest.number {
            (version, datum)
        } else {
            // The library's reader cannot resolve while it deserialises, so an older datum is first rewritten.
            transcoded = version.transcode(newest, datum).map_err(|reason| self.refused(version, reason))?;
            (newest, transcoded.as_slice())
        };
        let value =
            version.reader.read_deser(&mut rest).map_err(|error| self.refused(version, crate::error::reason(error)))?;
        self.at_end(version, rest)?;
        Ok(value)
    }

    /// Reads a datum as what the schema of `version` says it is.
    pub(crate) fn value(&self, version: &Version, mut datum: &[u8]) -> Result<Value, Error> {
        let value = version.read(&mut datum).map_err(|reason| self.refused(version, reason))?;
        self.at_end(version, datum)?;
        Ok(value)
    }

    fn refused(&self, version: &Version, reason: Box<str>) -> Error {
        Error::Datum { record: self.record.name(), version: version.number, reason }
    }

    const fn at_end(&self, version: &Version, rest: &[u8]) -> Result<(), Error> {
        if rest.is_empty() {
            Ok(())
        } else {
            Err(Error::TrailingBytes { record: self.record.name(), version: version.number, extra: rest.len() })
        }
    }
}

impl Version {
    fn new(published: &Published) -> Self {
        let schema = Schema::parse_str(&published.text).expect("a published schema parses; a test checks it");
        // Writers and readers borrow the schema, and live as long as the process.
        let schema: &'static Schema = Box::leak(Box::new(schema));
        let writer = GenericDatumWriter::builder(schema)
            // UUIDs as text.
            .human_readable(true)
            .build()
            .expect("a published schema resolves by itself; a test checks it");
        let reader = GenericDatumReader::builder(schema)
            .human_readable(true)
            .build()
            .expect("a published schema resolves by itself; a test checks it");
        Self { id: AtomicU32::new(published.id), number: published.version, schema, writer, reader }
    }

    /// Reads a datum as what the schema says it is.
    fn read(&self, datum: &mut &[u8]) -> Result<Value, Box<str>> {
        let mut whole = Whole { rest: datum, ended: false };
        let value = self.reader.read_value(&mut whole).map_err(crate::error::reason)?;
        if whole.ended {
            return Err("the bytes end within the datum".into());
        }
        *datum = whole.rest;
        Ok(value)
    }

    /// A datum of this version, rewritten as one of `other`.
    fn transcode(&self, other: &Self, datum: &[u8]) -> Result<Vec<u8>, Box<str>> {
        let mut rest = datum;
        let value = self.read(&mut rest)?.resolve(other.schema).map_err(crate::error::reason)?;
        let mut out = other.writer.write_value_to_vec(value).map_err(crate::error::reason)?;
        // What follows the datum follows it still, and is found where the rewritten datum is read.
        out.extend_from_slice(rest);
        Ok(out)
    }
}

/// Bytes that remember whether more was asked of them than they had: where they end too soon the library's reader puts
/// a null and goes on.
struct Whole<'a> {
    rest: &'a [u8],
    ended: bool,
}

impl Read for Whole<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.rest.read(out)?;
        self.ended |= n < out.len();
        Ok(n)
    }
}

#[cfg(test)]
mod tests;
