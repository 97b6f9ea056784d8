//! The settings file, flattened to dotted keys with the line each value stands on.

use std::collections::BTreeMap;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::effective::{Origin, Problem};

/// A value of the file: its text and where it stands. Without `Debug`: it may be a secret.
pub(super) struct Value {
    pub(super) text: String,
    pub(super) origin: Origin,
}

/// Reads TOML into dotted keys. Every syntax error and every value that is no setting is a problem.
pub(super) fn flatten(path: &Path, text: &str) -> (BTreeMap<String, Value>, Vec<Problem>) {
    let mut file = Flat { path, text, values: BTreeMap::new(), problems: Vec::new() };
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let line = file.line(error.span().map_or(0, |span| span.start));
        // `message` leaves out the excerpt, which could quote a secret.
        file.problem(path.display().to_string(), line, format!("is not valid TOML: {}", error.message()));
    }
    file.table("", table.get_ref());
    (file.values, file.problems)
}

struct Flat<'a> {
    path: &'a Path,
    text: &'a str,
    values: BTreeMap<String, Value>,
    problems: Vec<Problem>,
}

impl Flat<'_> {
    fn table(&mut self, prefix: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let name = name.get_ref();
            let key = if prefix.is_empty() { name.to_string() } else { format!("{prefix}.{name}") };
            match value.get_ref() {
                DeValue::Table(table) => self.table(&key, table),
                _ => self.value(key, value),
            }
        }
    }

    fn value(&mut self, key: String, value: &Spanned<DeValue<'_>>) {
        let line = self.line(value.span().start);
        let Some(text) = scalar_or_list(value.get_ref()) else {
            let message = "expected text, a number, true or false, or a list of those".to_owned();
            return self.problem(key, line, message);
        };
        let origin = Origin::File { path: self.path.to_owned(), line };
        if self.values.insert(key.clone(), Value { text, origin }).is_some() {
            self.problem(key, line, "is set twice in the file".to_owned());
        }
    }

    fn line(&self, offset: usize) -> usize {
        1 + self.text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
    }

    fn problem(&mut self, key: String, line: usize, message: String) {
        let place = Some(format!("{}:{line}", self.path.display()));
        self.problems.push(Problem { key, place, message });
    }
}

/// The text of a value as the environment would give it; a list is joined by commas.
fn scalar_or_list(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(n) if n.radix() == 10 => Some(n.as_str().to_owned()),
        DeValue::Integer(n) => i128::from_str_radix(n.as_str(), n.radix()).ok().map(|n| n.to_string()),
        DeValue::Float(n) => Some(n.as_str().to_owned()),
        DeValue::Boolean(b) => Some(b.to_string()),
        DeValue::Datetime(_) | DeValue::Table(_) => None,
        DeValue::Array(items) => {
            let items: Option<Vec<String>> = items.iter().map(|item| scalar(item.get_ref())).collect();
            items.map(|items| items.join(","))
        }
    }
}

fn scalar(value: &DeValue<'_>) -> Option<String> {
    if value.is_array() { None } else { scalar_or_list(value) }
}
