//! The kinds of faults, by the names under which they are chosen and reported.

use clap::ValueEnum;
use serde::Serialize;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// SIGKILL of one to three processes
    Kill,
    /// SIGSTOP of a process until it is fenced, then SIGCONT
    Hang,
    /// Pollers and fetchers leave and come back
    RebalanceStorm,
    /// Every process ends in order and comes back
    RollingRestart,
    /// The same, to the other version of the schemas
    RollingUpgrade,
    /// SIGKILL of a broker
    BrokerKilled,
    /// SIGKILL of the broker that leads the controllers
    ControllerLost,
    /// A broker ends in order and comes back
    LeadersMoved,
    /// SIGSTOP of a broker until it is fenced, then SIGCONT
    BrokerHung,
    /// A broker's disk is full
    DiskFull,
    /// Postgres ends in order and comes back
    PostgresRestarted,
    /// SIGKILL of Postgres; connections are refused for a while
    PostgresLost,
    /// A process' connections to one thing are reset
    WayCut,
    /// What a process and one thing send each other is swallowed
    WayBlackHole,
    /// It is late
    WayDelayed,
    /// Little of it gets through
    WayThrottled,
    /// The wall clock of a process jumps ahead
    ClockAhead,
    /// The wall clock of a process jumps back
    ClockBehind,
    /// Gmail answers many calls with 503
    GmailUnavailable,
    /// Gmail's connections break, its answers are cut short
    GmailBroken,
    /// Gmail takes long
    GmailSlow,
    /// Gmail tells users to wait
    GmailThrottling,
    /// Gmail refuses good tokens, and gives none
    GmailTokens,
    /// Gmail answers with pages of HTML
    GmailHtml,
}

impl Kind {
    /// What a round is made of beside kills: one kind of each line.
    pub(crate) const FAMILIES: [&[Self]; 14] = [
        &[Self::Hang],
        &[Self::RebalanceStorm],
        &[Self::RollingRestart],
        &[Self::RollingUpgrade],
        &[Self::BrokerKilled],
        &[Self::ControllerLost],
        &[Self::LeadersMoved],
        &[Self::BrokerHung],
        &[Self::DiskFull],
        &[Self::PostgresRestarted],
        &[Self::PostgresLost],
        &[Self::WayCut, Self::WayBlackHole, Self::WayDelayed, Self::WayThrottled],
        &[Self::ClockAhead, Self::ClockBehind],
        &[
            Self::GmailUnavailable,
            Self::GmailBroken,
            Self::GmailSlow,
            Self::GmailThrottling,
            Self::GmailTokens,
            Self::GmailHtml,
        ],
    ];

    /// What is done, in a few words.
    pub(crate) fn how(self) -> String {
        let value = self.to_possible_value().expect("every kind can be chosen");
        value.get_help().expect("every kind has a line of help").to_string()
    }

    /// Its name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kill => "processes killed",
            Self::Hang => "process hung until fenced",
            Self::RebalanceStorm => "rebalance storm",
            Self::RollingRestart => "rolling restart",
            Self::RollingUpgrade => "rolling upgrade of schemas",
            Self::BrokerKilled => "broker killed",
            Self::ControllerLost => "controller lost",
            Self::LeadersMoved => "leaders moved",
            Self::BrokerHung => "broker hung until fenced",
            Self::DiskFull => "broker's disk full",
            Self::PostgresRestarted => "Postgres restarted",
            Self::PostgresLost => "Postgres lost",
            Self::WayCut => "way cut",
            Self::WayBlackHole => "way a black hole",
            Self::WayDelayed => "way delayed",
            Self::WayThrottled => "way throttled",
            Self::ClockAhead => "clock ahead",
            Self::ClockBehind => "clock behind",
            Self::GmailUnavailable => "Gmail unavailable",
            Self::GmailBroken => "Gmail broken",
            Self::GmailSlow => "Gmail slow",
            Self::GmailThrottling => "Gmail throttling",
            Self::GmailTokens => "Gmail refuses tokens",
            Self::GmailHtml => "Gmail speaks HTML",
        }
    }
}
