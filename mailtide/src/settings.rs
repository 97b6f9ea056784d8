//! All settings of all services, read for every sub-command, so that an unknown key is found whatever is run.

use std::collections::BTreeMap;
use std::path::Path;

use runtime::settings::{Effective, Origin, Problem, Source};
use runtime::{admin, telemetry, trace};
use secrecy::SecretString;
use url::Url;

/// Everything that can be set.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Logs.
    pub(crate) telemetry: telemetry::Settings,
    /// Traces.
    pub(crate) trace: trace::Settings,
    /// The admin port.
    pub(crate) admin: admin::Settings,
    /// The broker.
    pub(crate) kafka: kafka::Settings,
    /// The database.
    pub(crate) store: store::Settings,
    /// The schema registry, if there is one.
    pub(crate) registry: registry::Settings,
    /// Gmail.
    pub(crate) gmail: gmail::Settings,
    /// The REST service.
    pub(crate) ingress: ingress::Settings,
    /// The schedule.
    pub(crate) scheduler: scheduler::Settings,
    /// The poller.
    pub(crate) poller: poller::Settings,
    /// The fetcher.
    pub(crate) fetcher: fetcher::Settings,
    /// The projector.
    pub(crate) projector: projector::Settings,
    /// The simulated Gmail.
    pub(crate) simulator: simulator::Settings,
    /// How the operator's commands reach the API.
    pub(crate) client: Client,
    /// Every key with its value and where it came from, secrets hidden.
    pub(crate) effective: Effective,
}

/// How `mailtide sync` reaches the API.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    /// The API's URL.
    pub(crate) url: Url,
    /// The API key to send.
    pub(crate) api_key: Option<SecretString>,
}

impl Client {
    fn read(source: &mut Source) -> Self {
        let default = Url::parse("http://127.0.0.1:8080").expect("a constant URL parses");
        Self {
            url: source.read("client.url", default, "The API that `mailtide sync` calls"),
            api_key: source.secret("client.api_key", "The API key that `mailtide sync` sends"),
        }
    }
}

/// Why no settings came of it.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The file cannot be read.
    Source(runtime::settings::Error),
    /// What is wrong with them, all at once.
    Problems(Vec<Problem>),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Source(error) => write!(f, "error: {error}"),
            Self::Problems(problems) => {
                write!(f, "error: {} problem(s) with the settings", problems.len())?;
                problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
            }
        }
    }
}

/// Settings from the file, the environment, and over them `overrides` (environment variables by name).
pub(crate) fn load(file: Option<&Path>, overrides: BTreeMap<String, String>) -> Result<Settings, Failure> {
    read(Source::load_with(file, overrides).map_err(Failure::Source)?)
}

fn read(mut source: Source) -> Result<Settings, Failure> {
    let telemetry = telemetry::Settings::read(&mut source);
    let trace = trace::Settings::read(&mut source);
    let admin = admin::Settings::read(&mut source);
    let kafka = kafka::Settings::read(&mut source);
    let store = store::Settings::read(&mut source);
    let registry = registry::Settings::read(&mut source);
    let gmail = gmail::Settings::read(&mut source);
    let ingress = ingress::Settings::read(&mut source);
    let scheduler = scheduler::Settings::read(&mut source);
    let poller = poller::Settings::read(&mut source);
    let fetcher = fetcher::Settings::read(&mut source);
    let projector = projector::Settings::read(&mut source);
    let simulator = simulator::Settings::read(&mut source);
    let client = Client::read(&mut source);
    let effective = source.finish().map_err(Failure::Problems)?;
    Ok(Settings {
        telemetry,
        trace,
        admin,
        kafka,
        store,
        registry,
        gmail,
        ingress,
        scheduler,
        poller,
        fetcher,
        projector,
        simulator,
        client,
        effective,
    })
}

impl Settings {
    /// Whether somebody set `key`.
    pub(crate) fn is_set(&self, key: &str) -> bool {
        self.effective.get(key).is_some_and(|entry| entry.origin != Origin::Default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const README: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
    const BEGIN: &str = "cargo test -p mailtide readme` -->\n";
    const END: &str = "<!-- end of settings -->";

    /// Every setting's name, default and meaning, as the README has them.
    fn table() -> String {
        let settings = read(Source::from_parts::<String, String>(None, [])).expect("the defaults contradict nothing");
        let host = settings.kafka.instance;
        // The one default that differs from machine to machine.
        settings.effective.markdown().replace(&format!("| `{host}` | Name of this"), "| the host's name | Name of this")
    }

    /// `UPDATE_GOLDEN=1 cargo test -p mailtide readme` writes it anew.
    #[test]
    fn the_readme_lists_every_setting_with_its_default() {
        let text = std::fs::read_to_string(README).unwrap();
        let (before, rest) = text.split_once(BEGIN).expect("the README marks where the settings begin");
        let (listed, after) = rest.split_once(END).expect("the README marks where the settings end");
        let table = table();
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(README, format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
        } else {
            assert!(
                listed == table,
                "the README's settings are not the binary's; write them anew with UPDATE_GOLDEN=1"
            );
        }
    }
}
