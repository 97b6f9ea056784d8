//! The settings as they were given, and the typed reads that take them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use secrecy::SecretString;

use super::effective::{Effective, Entry, Origin, Problem};
use super::file::{self, Value};
use super::parse::{format_duration, format_size, from_text, parse_duration, parse_size};

/// What the environment variables of settings begin with.
pub const PREFIX: &str = "MAILTIDE_";

/// The variable that names the settings file. It starts with [`PREFIX`] and is no setting itself.
pub const CONFIG_VARIABLE: &str = "MAILTIDE_CONFIG";

/// Names that other programs use for the same thing.
const ALIASES: [(&str, &str); 11] = [
    ("kafka.bootstrap_servers", "KAFKA_BOOTSTRAP_SERVERS"),
    ("database.url", "DATABASE_URL"),
    ("registry.url", "SCHEMA_REGISTRY_URL"),
    ("trace.endpoint", "OTEL_EXPORTER_OTLP_ENDPOINT"),
    ("trace.traces_endpoint", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
    ("trace.protocol", "OTEL_EXPORTER_OTLP_PROTOCOL"),
    ("trace.headers", "OTEL_EXPORTER_OTLP_HEADERS"),
    ("trace.sampler", "OTEL_TRACES_SAMPLER"),
    ("trace.sampler_arg", "OTEL_TRACES_SAMPLER_ARG"),
    ("trace.service_name", "OTEL_SERVICE_NAME"),
    ("trace.queue", "OTEL_BSP_MAX_QUEUE_SIZE"),
];

/// How a secret that is set is shown.
const REDACTED: &str = "***";

/// Why the settings could not be taken up at all. What is wrong *in* them is a [`Problem`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The named file cannot be read.
    #[error("reading the settings file {}: {source}", path.display())]
    File {
        /// The file as it was named.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

/// Settings as given by a file and the environment. See the [module](super) for the rules.
pub struct Source {
    file: BTreeMap<String, Value>,
    environment: BTreeMap<String, String>,
    entries: BTreeMap<String, Entry>,
    variables: BTreeSet<String>,
    problems: BTreeSet<Problem>,
}

impl Source {
    /// Takes up the file, if one is named, and this process's environment.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn load(file: Option<&Path>) -> Result<Self, Error> {
        Self::load_with(file, [])
    }

    /// The same, with variables of the program's own over those of the environment: where it starts what the settings
    /// lead to.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn load_with(
        file: Option<&Path>,
        overrides: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Error> {
        let text = match file {
            Some(path) => {
                let text =
                    std::fs::read_to_string(path).map_err(|source| Error::File { path: path.to_owned(), source })?;
                Some((path, text))
            }
            None => None,
        };
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())));
        // Of two variables of one name the later one counts.
        let environment = environment.chain(overrides);
        Ok(Self::from_parts(text.as_ref().map(|(path, text)| (*path, text.as_str())), environment))
    }

    /// The same from a file's name and text, and from variables given one by one.
    pub fn from_parts<N, V>(file: Option<(&Path, &str)>, environment: impl IntoIterator<Item = (N, V)>) -> Self
    where
        N: Into<String>,
        V: Into<String>,
    {
        let (file, problems) = file.map(|(path, text)| file::flatten(path, text)).unwrap_or_default();
        let environment = environment
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .filter(|(name, value): &(String, String)| !value.is_empty() && is_ours(name))
            .collect();
        let problems = problems.into_iter().collect();
        Self { file, environment, entries: BTreeMap::new(), variables: BTreeSet::new(), problems }
    }

    /// A value with a default, by [`FromStr`].
    pub fn read<T>(&mut self, key: &'static str, default: T, doc: &'static str) -> T
    where
        T: FromStr<Err: Display> + Display,
    {
        let shown = default.to_string();
        self.typed(key, Some(shown), doc, from_text, T::to_string).unwrap_or(default)
    }

    /// A value that may be missing, by [`FromStr`].
    pub fn read_opt<T>(&mut self, key: &'static str, doc: &'static str) -> Option<T>
    where
        T: FromStr<Err: Display> + Display,
    {
        self.typed(key, None, doc, from_text, T::to_string)
    }

    /// A list: commas between the values in the environment, an array or the same text in the
    /// file. Blanks around a value go away; an empty value is a problem.
    pub fn list<T>(&mut self, key: &'static str, default: Vec<T>, doc: &'static str) -> Vec<T>
    where
        T: FromStr<Err: Display> + Display,
    {
        let show = |list: &Vec<T>| list.iter().map(T::to_string).collect::<Vec<_>>().join(",");
        let parse = |text: &str| text.split(',').map(|item| from_text(item.trim())).collect();
        let shown = show(&default);
        self.typed(key, Some(shown), doc, parse, show).unwrap_or(default)
    }

    /// A duration with a default: `500ms`, `5s`, `2m`, `12h`.
    pub fn duration(&mut self, key: &'static str, default: Duration, doc: &'static str) -> Duration {
        let show = |duration: &Duration| format_duration(*duration);
        self.typed(key, Some(show(&default)), doc, parse_duration, show).unwrap_or(default)
    }

    /// A size in bytes with a default: `512`, `64KiB`, `4MiB`, `1GB`.
    pub fn size(&mut self, key: &'static str, default: u64, doc: &'static str) -> u64 {
        let show = |bytes: &u64| format_size(*bytes);
        self.typed(key, Some(show(&default)), doc, parse_size, show).unwrap_or(default)
    }

    /// A secret. It is shown as `***` wherever settings are shown.
    pub fn secret(&mut self, key: &'static str, doc: &'static str) -> Option<SecretString> {
        let value = self.take(key);
        let origin = value.as_ref().map_or(Origin::Default, |value| value.origin.clone());
        self.enter(key.to_owned(), None, value.as_ref().map(|_| REDACTED.to_owned()), origin, doc);
        value.map(|value| SecretString::from(value.text))
    }

    /// Every value below `key`, by the rest of its name: properties that are passed through to a
    /// library. In the file the rest keeps its dots; in the environment each `_` of the rest is a
    /// dot (`MAILTIDE_KAFKA_LIBRDKAFKA_SOCKET_KEEPALIVE_ENABLE` is `socket.keepalive.enable`).
    /// Any of them may be a secret, so all are handed out and shown as such.
    pub fn properties(&mut self, key: &'static str, doc: &'static str) -> BTreeMap<String, SecretString> {
        let below = format!("{key}.");
        let variable = variable_of(key);
        let mut names: BTreeSet<String> =
            self.file.keys().filter_map(|name| name.strip_prefix(&below)).map(str::to_owned).collect();
        let prefix = format!("{variable}_");
        names.extend(
            self.environment.keys().filter_map(|n| n.strip_prefix(&prefix)).map(|n| n.to_lowercase().replace('_', ".")),
        );
        self.enter(format!("{key}.*"), None, None, Origin::Default, doc);
        let mut properties = BTreeMap::new();
        for name in names {
            let key = format!("{below}{name}");
            if let Some(value) = self.take(&key) {
                self.enter(key, None, Some(REDACTED.to_owned()), value.origin, doc);
                properties.insert(name, SecretString::from(value.text));
            }
        }
        properties
    }

    /// Notes that the value of `key` is out of bounds or contradicts another. Ignored when the
    /// value could not even be read, which is reported already.
    pub fn error(&mut self, key: &str, message: impl Into<String>) {
        if self.problems.iter().any(|problem| problem.key == key) {
            return;
        }
        let place = match self.entries.get(key).map(|entry| &entry.origin) {
            None | Some(Origin::Default) => Some(variable_of(key)),
            Some(origin) => Some(origin.to_string()),
        };
        self.problems.insert(Problem { key: key.to_owned(), place, message: message.into() });
    }

    /// All settings in force, or everything that is wrong with them.
    ///
    /// # Errors
    /// Every malformed, contradicting and unknown key. Call it when *all* settings of the program
    /// have been read, else what was not read counts as unknown.
    pub fn finish(mut self) -> Result<Effective, Vec<Problem>> {
        for (key, value) in &self.file {
            if !self.entries.contains_key(key) {
                let message = unknown(key, self.entries.keys().map(String::as_str));
                let place = Some(value.origin.to_string());
                self.problems.insert(Problem { key: key.clone(), place, message });
            }
        }
        for name in self.environment.keys() {
            if !self.variables.contains(name) && name != CONFIG_VARIABLE && name.starts_with(PREFIX) {
                let message = unknown(name, self.variables.iter().map(String::as_str));
                self.problems.insert(Problem { key: name.clone(), place: None, message });
            }
        }
        if self.problems.is_empty() {
            Ok(Effective::new(self.entries.into_values().collect()))
        } else {
            Err(self.problems.into_iter().collect())
        }
    }

    fn typed<T>(
        &mut self,
        key: &'static str,
        default: Option<String>,
        doc: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
        show: impl Fn(&T) -> String,
    ) -> Option<T> {
        let Some(Value { text, origin }) = self.take(key) else {
            self.enter(key.to_owned(), default.clone(), default, Origin::Default, doc);
            return None;
        };
        let parsed = parse(text.trim());
        self.enter(key.to_owned(), default, parsed.as_ref().ok().map(show), origin.clone(), doc);
        match parsed {
            Ok(value) => Some(value),
            Err(message) => {
                let message = format!("{message}, got `{text}`");
                self.problems.insert(Problem { key: key.to_owned(), place: Some(origin.to_string()), message });
                None
            }
        }
    }

    /// The text in force for `key`. Two variables for one key must agree.
    fn take(&mut self, key: &str) -> Option<Value> {
        let names = [Some(variable_of(key)), alias_of(key).map(str::to_owned)];
        let mut found: Option<(String, String)> = None;
        for name in names.into_iter().flatten() {
            let text = self.environment.get(&name).cloned();
            self.variables.insert(name.clone());
            match (&found, text) {
                (None, Some(text)) => found = Some((name, text)),
                (Some((first, earlier)), Some(text)) if *earlier != text => {
                    let message = format!("{first} and {name} are both set and differ; set one of them");
                    self.problems.insert(Problem { key: key.to_owned(), place: None, message });
                }
                _ => {}
            }
        }
        match found {
            Some((name, text)) => Some(Value { text, origin: Origin::Environment(name) }),
            None => self.file.get(key).map(|value| Value { text: value.text.clone(), origin: value.origin.clone() }),
        }
    }

    /// Several services may read one setting; the first reader's default and words are listed.
    fn enter(
        &mut self,
        key: String,
        default: Option<String>,
        value: Option<String>,
        origin: Origin,
        doc: &'static str,
    ) {
        let variable = variable_of(&key);
        let entry = Entry { key: key.clone(), variable, default, value, origin, doc };
        self.entries.entry(key).or_insert(entry);
    }
}

/// `poller.lanes` → `MAILTIDE_POLLER_LANES`.
fn variable_of(key: &str) -> String {
    format!("{PREFIX}{}", key.to_uppercase().replace('.', "_"))
}

fn alias_of(key: &str) -> Option<&'static str> {
    ALIASES.into_iter().find(|(setting, _)| *setting == key).map(|(_, alias)| alias)
}

fn is_ours(name: &str) -> bool {
    name.starts_with(PREFIX) || ALIASES.into_iter().any(|(_, alias)| alias == name)
}

fn unknown<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let nearest = known.map(|known| (strsim::osa_distance(name, known), known)).min();
    match nearest {
        Some((distance, known)) if distance <= 3 => format!("is no setting; did you mean {known}?"),
        _ => "is no setting".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn source(file: &str, environment: &[(&str, &str)]) -> Source {
        Source::from_parts(Some((Path::new("mailtide.toml"), file)), environment.iter().copied())
    }

    fn problems(source: Source) -> Vec<String> {
        source.finish().unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn environment_goes_over_file_over_default() {
        let file = "[poller]\nlanes = 2\nbatch = 3\n";
        let mut source = source(file, &[("MAILTIDE_POLLER_LANES", "4"), ("UNRELATED", "x")]);
        assert_eq!(source.read("poller.lanes", 1_u16, "a"), 4);
        assert_eq!(source.read("poller.batch", 1_u16, "b"), 3);
        assert_eq!(source.read("poller.other", 1_u16, "c"), 1);
        let effective = source.finish().unwrap();
        let origin = |key| effective.get(key).unwrap().origin.to_string();
        assert_eq!(origin("poller.lanes"), "MAILTIDE_POLLER_LANES");
        assert_eq!(origin("poller.batch"), "mailtide.toml:3");
        assert_eq!(origin("poller.other"), "default");
    }

    #[test]
    fn what_the_program_gives_goes_over_the_environment() {
        let mut source = source("", &[("MAILTIDE_A_B", "1"), ("MAILTIDE_A_B", "2")]);
        assert_eq!(source.read("a.b", 0_u8, ""), 2);
        let given = [("MAILTIDE_A_B".to_owned(), "3".to_owned())];
        assert_eq!(Source::load_with(None, given).unwrap().read("a.b", 0_u8, ""), 3);
    }

    #[test]
    fn everything_wrong_is_told_at_once() {
        let file = "[poller]\nlanes = \"many\"\nlans = 2\nwhen = 2026-01-01\n";
        let mut source = source(file, &[("MAILTIDE_POLLER_TIMEOUT", "5"), ("MAILTIDE_POLLER_LANE", "1")]);
        assert_eq!(source.read("poller.lanes", 1_u16, ""), 1, "the default stands in for a malformed value");
        source.duration("poller.timeout", Duration::from_secs(1), "");
        source.read("poller.batch", 0_u32, "");
        source.error("poller.batch", "must be at least 1");
        assert_eq!(
            problems(source),
            [
                "MAILTIDE_POLLER_LANE: is no setting; did you mean MAILTIDE_POLLER_LANES?",
                "poller.batch (MAILTIDE_POLLER_BATCH): must be at least 1",
                "poller.lanes (mailtide.toml:2): expected a whole number from 0 to 65535, got `many`",
                "poller.lans (mailtide.toml:3): is no setting; did you mean poller.lanes?",
                "poller.timeout (MAILTIDE_POLLER_TIMEOUT): expected a duration such as 500ms, 5s, 2m or 12h, got `5`",
                "poller.when (mailtide.toml:4): expected text, a number, true or false, or a list of those",
            ]
        );
    }

    #[test]
    fn a_file_that_is_no_toml_says_where() {
        let problems = problems(source("[poller]\nlanes = = 2\n", &[]));
        assert!(problems[0].starts_with("mailtide.toml (mailtide.toml:2): is not valid TOML: "), "{problems:?}");
    }

    #[test]
    fn a_malformed_value_is_reported_once() {
        let mut source = source("", &[("MAILTIDE_A_B", "x")]);
        source.read("a.b", 1_u8, "");
        source.read("a.b", 1_u8, "");
        source.error("a.b", "must be even");
        assert_eq!(problems(source).len(), 1);
    }

    #[test]
    fn aliases_are_read_and_must_agree() {
        let key = "kafka.bootstrap_servers";
        let mut alone = source("", &[("KAFKA_BOOTSTRAP_SERVERS", "a:1")]);
        assert_eq!(alone.read_opt::<String>(key, "").as_deref(), Some("a:1"));
        assert!(alone.finish().is_ok());
        let mut both = source("", &[("KAFKA_BOOTSTRAP_SERVERS", "a:1"), ("MAILTIDE_KAFKA_BOOTSTRAP_SERVERS", "b:1")]);
        both.read_opt::<String>(key, "");
        assert!(problems(both)[0].contains("both set and differ"));
    }

    #[test]
    fn secrets_are_handed_out_and_never_shown() {
        let file = "[database]\nurl = \"postgres://u:hunter2@h/d\"\n[kafka.librdkafka]\nsasl.password = \"hunter2\"\n";
        let mut source = source(file, &[("MAILTIDE_KAFKA_LIBRDKAFKA_SSL_KEY_PASSWORD", "hunter2")]);
        let url = source.secret("database.url", "").unwrap();
        assert_eq!(url.expose_secret(), "postgres://u:hunter2@h/d");
        let properties = source.properties("kafka.librdkafka", "");
        assert_eq!(properties.keys().collect::<Vec<_>>(), ["sasl.password", "ssl.key.password"]);
        assert_eq!(properties["ssl.key.password"].expose_secret(), "hunter2");
        let effective = source.finish().unwrap();
        let shown = format!("{effective:?}{}{properties:?}", effective.markdown());
        assert!(!shown.contains("hunter2"), "{shown}");
        assert_eq!(effective.get("database.url").unwrap().value.as_deref(), Some("***"));
    }

    #[test]
    fn lists_come_from_arrays_and_from_commas() {
        let mut source = source("[a]\nb = [\"x\", \"y\"]\nports = [1, 2]\n", &[("MAILTIDE_A_C", "x, y")]);
        assert_eq!(source.list::<String>("a.b", vec![], ""), ["x", "y"]);
        assert_eq!(source.list::<String>("a.c", vec![], ""), ["x", "y"]);
        assert_eq!(source.list::<u16>("a.ports", vec![], ""), [1, 2]);
        assert!(source.finish().is_ok());
    }

    #[test]
    fn text_stays_text_and_empty_is_not_set() {
        let mut source = source("[a]\nhex = 0x10\n", &[("MAILTIDE_A_B", "007"), ("MAILTIDE_A_C", "")]);
        assert_eq!(source.read("a.b", String::new(), ""), "007");
        assert_eq!(source.read_opt::<u32>("a.c", ""), None);
        assert_eq!(source.read("a.hex", 0_u8, ""), 16);
        assert!(source.finish().is_ok());
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = Source::load(Some(Path::new("/nowhere/mailtide.toml"))).err().unwrap();
        assert!(error.to_string().contains("/nowhere/mailtide.toml"));
    }
}
