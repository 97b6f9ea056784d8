//! What an edit of a schema may do: `FULL_TRANSITIVE`. Every version reads, and is read by, every other.
//!
//! The library's own check lets pass what would still break a reader: milliseconds become microseconds, a string
//! becomes bytes, a symbol goes away behind the enum's default. So the two schemas are also compared here, place by
//! place: what is in both has to be the same, what is in one only needs a default, an enum may only grow at its end.

use std::collections::HashSet;
use std::fmt;

use apache_avro::Schema;
use apache_avro::schema::{Name, RecordField, RecordSchema, ResolvedSchema};
use apache_avro::schema_compatibility::{Compatibility, SchemaCompatibility};

/// One thing that an edit must not do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach {
    /// Where: the path of fields from the record's name.
    pub at: String,
    /// What.
    pub what: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.what)
    }
}

/// Whether `new` may be published after `old`: every reason why not.
///
/// # Errors
/// All breaches that were found, at least one.
pub fn check(old: &Schema, new: &Schema) -> Result<(), Vec<Breach>> {
    let mut breaches = Vec::new();
    match (ResolvedSchema::try_from(old), ResolvedSchema::try_from(new)) {
        (Ok(old_names), Ok(new_names)) => {
            let mut walk = Walk { old: &old_names, new: &new_names, seen: HashSet::new(), breaches: &mut breaches };
            walk.compare(&name_of(new), old, new);
        }
        (Err(error), _) | (_, Err(error)) => {
            breaches.push(Breach { at: name_of(new), what: format!("a name in it is not defined: {error}") });
        }
    }
    for (writer, reader, direction) in
        [(old, new, "the new version cannot read the old"), (new, old, "the old version cannot read the new")]
    {
        let what = match SchemaCompatibility::can_read(writer, reader) {
            Ok(Compatibility::Full) => continue,
            Ok(Compatibility::Partial) => format!("{direction} in every case"),
            Err(error) => format!("{direction}: {error}"),
        };
        breaches.push(Breach { at: name_of(new), what });
    }
    if breaches.is_empty() { Ok(()) } else { Err(breaches) }
}

struct Walk<'a, 's> {
    old: &'a ResolvedSchema<'s>,
    new: &'a ResolvedSchema<'s>,
    /// Named types that are compared already, or being compared: types may contain themselves.
    seen: HashSet<Name>,
    breaches: &'a mut Vec<Breach>,
}

impl Walk<'_, '_> {
    fn breach(&mut self, at: &str, what: impl Into<String>) {
        self.breaches.push(Breach { at: at.to_owned(), what: what.into() });
    }

    fn compare(&mut self, at: &str, old: &Schema, new: &Schema) {
        let (old, new) = (follow(self.old, old), follow(self.new, new));
        if let (Some(a), Some(b)) = (old.name(), new.name()) {
            if a != b {
                return self.breach(at, format!("the type {a} became {b}"));
            }
            if !self.seen.insert(a.clone()) {
                return;
            }
        }
        match (old, new) {
            (Schema::Record(a), Schema::Record(b)) => self.fields(at, a, b),
            (Schema::Enum(a), Schema::Enum(b)) => {
                if !b.symbols.starts_with(&a.symbols) {
                    self.breach(at, "symbols went away or changed places; new ones may only follow the old");
                }
                if a.default.is_none() || a.default != b.default {
                    self.breach(at, "an enum needs a default for symbols that a reader does not know, always the same");
                }
            }
            (Schema::Array(a), Schema::Array(b)) => self.compare(&format!("{at}[]"), &a.items, &b.items),
            (Schema::Map(a), Schema::Map(b)) => self.compare(&format!("{at}{{}}"), &a.types, &b.types),
            (Schema::Union(a), Schema::Union(b)) => {
                let (a, b) = (a.variants(), b.variants());
                if a.len() != b.len() {
                    return self.breach(at, "a union lost or gained a branch");
                }
                for (a, b) in a.iter().zip(b) {
                    self.compare(at, a, b);
                }
            }
            // Everything else has no parts that are compared apart: kind, logical type, size and precision are one.
            (a, b) if a == b && shape(a) == shape(b) => {}
            (a, b) => self.breach(at, format!("{} became {}", shape(a), shape(b))),
        }
    }

    fn fields(&mut self, at: &str, old: &RecordSchema, new: &RecordSchema) {
        for field in &old.fields {
            let path = format!("{at}.{}", field.name);
            match find(new, field) {
                Some(kept) => {
                    if kept.default != field.default {
                        self.breach(&path, "the default changed: what older records say would change with it");
                    }
                    self.compare(&path, &field.schema, &kept.schema);
                }
                None if field.default.is_none() => {
                    self.breach(&path, "the field went away, and older readers have no default for it");
                }
                None => {}
            }
        }
        for field in &new.fields {
            if find(old, field).is_none() && field.default.is_none() {
                let path = format!("{at}.{}", field.name);
                self.breach(&path, "a new field needs a default, because older records do not have it");
            }
        }
    }
}

fn find<'a>(record: &'a RecordSchema, field: &RecordField) -> Option<&'a RecordField> {
    record.fields.iter().find(|it| it.name == field.name)
}

fn follow<'a>(names: &ResolvedSchema<'a>, schema: &'a Schema) -> &'a Schema {
    match schema {
        Schema::Ref { name } => names.get_names().get(name).copied().unwrap_or(schema),
        other => other,
    }
}

fn name_of(schema: &Schema) -> String {
    schema.name().map_or_else(|| "(unnamed)".to_owned(), ToString::to_string)
}

/// The kind of a schema with its logical type, as it is written in a schema file.
fn shape(schema: &Schema) -> String {
    serde_json::to_string(schema).unwrap_or_else(|_| format!("{schema:?}"))
}
