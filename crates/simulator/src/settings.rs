//! The simulator's settings, and the behaviour that can be changed while it runs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use runtime::settings::Source;
use serde::{Deserialize, Serialize};

use crate::faults::Refusal;
pub use crate::mailbox::history::Ahead;
use crate::quota::{Limits, Tariff};

/// How the simulator is started.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// What all randomness comes from: the same seed and the same requests give the same answers.
    pub seed: u64,
    /// Prices and limits, by the age of the Google project.
    pub tariff: Tariff,
    /// Units of one user in any 60 s; the tariff's when absent.
    pub user_minute: Option<u64>,
    /// Units of all users in any 60 s; the tariff's when absent.
    pub project_minute: Option<u64>,
    /// Units of all users in a day; the tariff's when absent.
    pub project_day: Option<u64>,
    /// Requests of one user at the same time; the tariff's when absent.
    pub concurrent_per_user: Option<u32>,
    /// Give consent without asking.
    pub auto_approve: bool,
    /// A JSON list of fault rules that are in force from the start.
    pub scenario: Option<PathBuf>,
    /// What can be changed while it runs.
    pub behaviour: Behaviour,
}

/// How Gmail behaves where it leaves room: lags, retention, lifetimes. Milliseconds throughout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Behaviour {
    /// A history record becomes readable after a time between 0 and this, each its own, so out of order, while the
    /// head moves at once.
    pub history_lag_ms: i64,
    /// A message is found by `messages.list` only this long after it came.
    pub index_lag_ms: i64,
    /// `messages.get` answers 404 for this long after a message came.
    pub get_lag_ms: i64,
    /// History older than this answers 404; absent keeps all.
    pub history_retention_ms: Option<i64>,
    /// What a `startHistoryId` ahead of the head answers.
    pub ahead: Ahead,
    /// History ids rise by 1 up to this. For mailboxes made from now on.
    pub max_history_gap: u64,
    /// Leave `labelIds` out of the messages that history names.
    pub history_without_labels: bool,
    /// Let history keep records of which the asked types leave nothing but `messages`.
    pub bare_records: bool,
    /// Pack bodies of clients that accept gzip and say so in their user agent too, as Google does.
    pub gzip: bool,
    /// The form in which a user's spent minute shows, instead of 403 "Quota exceeded for quota metric". If it names
    /// a time, the user is refused until then, and each early try pushes it out.
    pub user_throttle: Option<Refusal>,
    /// How long an access token is good.
    pub access_token_ms: i64,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            history_lag_ms: 0,
            index_lag_ms: 0,
            get_lag_ms: 0,
            history_retention_ms: Some(7 * 86_400_000),
            ahead: Ahead::Empty,
            max_history_gap: 300,
            history_without_labels: false,
            bare_records: false,
            gzip: true,
            user_throttle: None,
            access_token_ms: 3_599_000,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            seed: 0,
            tariff: Tariff::default(),
            user_minute: None,
            project_minute: None,
            project_day: None,
            concurrent_per_user: None,
            auto_approve: true,
            scenario: None,
            behaviour: Behaviour::default(),
        }
    }
}

impl Settings {
    /// Reads them; what is malformed or out of bounds is noted in `source`.
    pub fn read(source: &mut Source) -> Self {
        let default = Self::default();
        let usual = Behaviour::default();
        let mut lag = |key, doc| millis(source.duration(key, Duration::ZERO, doc));
        let history_lag_ms = lag(
            "simulator.history_lag",
            "A history record becomes readable after a random time up to this, while the head moves at once",
        );
        let index_lag_ms =
            lag("simulator.index_lag", "A message is found by messages.list only this long after it came");
        let get_lag_ms = lag("simulator.get_lag", "messages.get answers 404 for this long after a message came");
        let retention = source.duration(
            "simulator.history_retention",
            Duration::from_millis(usual.history_retention_ms.unwrap_or_default().unsigned_abs()),
            "History older than this answers 404",
        );
        let token = source.duration(
            "simulator.access_token_lifetime",
            Duration::from_millis(usual.access_token_ms.unsigned_abs()),
            "How long an access token is good",
        );
        if token < Duration::from_secs(1) {
            source.error("simulator.access_token_lifetime", "must be at least 1s: lifetimes are told in seconds");
        }
        Self {
            listen: source.read(
                "simulator.listen",
                default.listen,
                "Address that the Gmail simulator listens on; port 0 takes a free one",
            ),
            seed: source.read("simulator.seed", default.seed, "What all randomness of the simulator comes from"),
            tariff: source.read(
                "simulator.tariff",
                default.tariff,
                "Prices and limits: new (projects made from 2026-05-01 on) or old",
            ),
            user_minute: source
                .read_opt("simulator.user_minute", "Quota units of one user in 60 s, instead of the tariff's"),
            project_minute: source
                .read_opt("simulator.project_minute", "Quota units of all users in 60 s, instead of the tariff's"),
            project_day: source
                .read_opt("simulator.project_day", "Quota units of all users in a day, instead of the tariff's"),
            concurrent_per_user: source.read_opt(
                "simulator.concurrent_per_user",
                "Requests of one user at the same time, instead of the usual",
            ),
            auto_approve: source.read(
                "simulator.auto_approve",
                default.auto_approve,
                "Give OAuth consent at once instead of showing the consent page",
            ),
            scenario: source
                .read_opt::<String>(
                    "simulator.scenario",
                    "File with a JSON list of fault rules, in force from the start",
                )
                .map(PathBuf::from),
            behaviour: Behaviour {
                history_lag_ms,
                index_lag_ms,
                get_lag_ms,
                history_retention_ms: Some(millis(retention)),
                access_token_ms: millis(token),
                ..usual
            },
        }
    }

    /// The limits in force at the start.
    pub(crate) fn limits(&self) -> Limits {
        let usual = self.tariff.limits();
        Limits {
            user_minute: self.user_minute.unwrap_or(usual.user_minute),
            project_minute: self.project_minute.unwrap_or(usual.project_minute),
            project_day: self.project_day.unwrap_or(usual.project_day),
            concurrent_per_user: self.concurrent_per_user.unwrap_or(usual.concurrent_per_user),
        }
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(file: &str) -> (Settings, Result<(), Vec<String>>) {
        let path = std::path::Path::new("mailtide.toml");
        let mut source = Source::from_parts(Some((path, file)), std::iter::empty::<(String, String)>());
        let settings = Settings::read(&mut source);
        let problems = |problems: Vec<runtime::settings::Problem>| problems.iter().map(|p| p.key.clone()).collect();
        (settings, source.finish().map(|_| ()).map_err(problems))
    }

    #[test]
    fn defaults_are_as_gmail_is() {
        let (settings, outcome) = read("");
        assert_eq!(outcome, Ok(()));
        assert_eq!(settings.behaviour, Behaviour::default());
        assert_eq!(settings.limits(), Tariff::New.limits());
        assert!(settings.listen.ip().is_loopback());
    }

    #[test]
    fn what_is_set_is_taken_and_what_is_wrong_is_named() {
        let (settings, outcome) = read(
            "[simulator]\ntariff = \"old\"\nproject_day = 7\nhistory_lag = \"3s\"\nhistory_retention = \"12h\"\nauto_approve = false\n",
        );
        assert_eq!(outcome, Ok(()));
        assert_eq!(settings.limits(), Limits { project_day: 7, ..Tariff::Old.limits() });
        assert_eq!(settings.behaviour.history_lag_ms, 3_000);
        assert_eq!(settings.behaviour.history_retention_ms, Some(43_200_000));
        assert!(!settings.auto_approve);
        let (_, outcome) = read("[simulator]\ntariff = \"free\"\naccess_token_lifetime = \"10ms\"\nlatency = 3\n");
        assert_eq!(
            outcome.unwrap_err(),
            ["simulator.access_token_lifetime", "simulator.latency", "simulator.tariff"].map(str::to_owned)
        );
    }
}
