//! Records as JSON, by the published schemas alone: what any consumer that holds the schema files can do.

use std::collections::HashMap;
use std::path::Path;
use std::sync::OnceLock;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use serde_json::Value as Json;

/// The schemas of the source tree that this was built from.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../schemas");

/// The readers of all published schemas, by the id in the frame.
type Readers = HashMap<u32, GenericDatumReader<'static>>;

/// The value in a Confluent frame: UUIDs, enums and history ids as text, times as RFC 3339 in UTC with milliseconds,
/// bytes as hex. None where it is no frame, its id is unknown or the datum does not decode to its last byte.
pub(super) fn decode(frame: &[u8]) -> Option<Json> {
    let [0, a, b, c, d, datum @ ..] = frame else { return None };
    let reader = readers().get(&u32::from_be_bytes([*a, *b, *c, *d]))?;
    let mut rest = datum;
    let value = reader.read_value(&mut rest).ok()?;
    rest.is_empty().then(|| json(value))
}

fn readers() -> &'static Readers {
    static READERS: OnceLock<Readers> = OnceLock::new();
    READERS.get_or_init(|| load(Path::new(FOLDER)))
}

/// # Panics
/// When the schemas are not there: nothing can be checked then.
fn load(folder: &Path) -> Readers {
    let read = |name: &str| {
        let path = folder.join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("reading {}: {error}", path.display()))
    };
    let manifest: Json = serde_json::from_str(&read("manifest.json")).expect("the manifest is JSON");
    let mut readers = Readers::new();
    for record in manifest["records"].as_array().expect("the manifest lists records") {
        for version in record["versions"].as_array().expect("a record lists its versions") {
            let name = format!("published/{}.v{}.avsc", record["name"].as_str().expect("a name"), version["version"]);
            let schema = Schema::parse_str(&read(&name)).unwrap_or_else(|error| panic!("parsing {name}: {error}"));
            // Readers borrow it for as long as the process lives.
            let schema: &'static Schema = Box::leak(Box::new(schema));
            let reader = GenericDatumReader::builder(schema).human_readable(true).build();
            let id = version["id"].as_u64().and_then(|id| u32::try_from(id).ok()).expect("an id");
            readers.insert(id, reader.unwrap_or_else(|error| panic!("{name}: {error}")));
        }
    }
    readers
}

fn json(value: Value) -> Json {
    match value {
        Value::Union(_, inner) => json(*inner),
        Value::Record(fields) => Json::Object(fields.into_iter().map(|(name, value)| (name, json(value))).collect()),
        Value::Map(entries) => Json::Object(entries.into_iter().map(|(key, value)| (key, json(value))).collect()),
        Value::Array(items) => Json::Array(items.into_iter().map(json).collect()),
        Value::Enum(_, symbol) => Json::String(symbol),
        Value::TimestampMillis(ms) => match jiff::Timestamp::from_millisecond(ms) {
            Ok(at) => Json::String(format!("{at:.3}")),
            Err(_) => ms.into(),
        },
        Value::Bytes(bytes) | Value::Fixed(_, bytes) => {
            Json::String(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
        }
        scalar => Json::try_from(scalar).unwrap_or(Json::Null),
    }
}
