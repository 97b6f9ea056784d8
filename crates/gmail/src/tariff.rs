//! What each call costs, and how much may be spent: both of Gmail's known tariffs, as data.

use std::fmt;
use std::str::FromStr;

/// A method of the Gmail API, as far as it is priced here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// `users.getProfile`.
    Profile,
    /// `users.history.list`.
    HistoryList,
    /// `users.messages.list`.
    MessagesList,
    /// `users.messages.get`, in whatever format.
    MessagesGet,
    /// `users.messages.attachments.get`.
    AttachmentsGet,
    /// `users.labels.list`.
    LabelsList,
    /// `users.watch`.
    Watch,
    /// `users.stop`.
    Stop,
}

impl Method {
    /// The name in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Profile => "profile",
            Self::HistoryList => "history_list",
            Self::MessagesList => "messages_list",
            Self::MessagesGet => "messages_get",
            Self::AttachmentsGet => "attachments_get",
            Self::LabelsList => "labels_list",
            Self::Watch => "watch",
            Self::Stop => "stop",
        }
    }
}

/// Prices in quota units and what may be spent of them (usage limits page of the Gmail API).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tariff {
    /// The name in the settings.
    pub name: &'static str,
    /// `users.getProfile` and `users.labels.list`.
    pub profile: u32,
    /// `users.history.list`.
    pub history_list: u32,
    /// `users.messages.list`.
    pub messages_list: u32,
    /// `users.messages.get` and `users.messages.attachments.get`.
    pub get: u32,
    /// `users.watch`.
    pub watch: u32,
    /// `users.stop`.
    pub stop: u32,
    /// Units for one user of one project in a minute.
    pub user_minute: u64,
    /// Units for one project in a minute.
    pub project_minute: u64,
    /// Units for one project in a day; none where the page names no such limit.
    pub project_day: Option<u64>,
}

impl Tariff {
    /// For projects made since 2026-05-01. The default.
    pub const SINCE_2026_05: Self = Self {
        name: "2026-05",
        profile: 1,
        history_list: 2,
        messages_list: 5,
        get: 20,
        watch: 100,
        stop: 50,
        user_minute: 6_000,
        project_minute: 1_200_000,
        project_day: Some(80_000_000),
    };

    /// For projects that used the API before, as long as they keep their old quotas.
    pub const BEFORE_2026_05: Self =
        Self { name: "before-2026-05", get: 5, user_minute: 15_000, project_day: None, ..Self::SINCE_2026_05 };

    /// What one call of `method` costs, in units.
    pub const fn price(&self, method: Method) -> u32 {
        match method {
            Method::Profile | Method::LabelsList => self.profile,
            Method::HistoryList => self.history_list,
            Method::MessagesList => self.messages_list,
            Method::MessagesGet | Method::AttachmentsGet => self.get,
            Method::Watch => self.watch,
            Method::Stop => self.stop,
        }
    }

    /// The price of the dearest call.
    pub fn dearest(&self) -> u32 {
        [self.profile, self.history_list, self.messages_list, self.get, self.watch, self.stop]
            .into_iter()
            .fold(0, u32::max)
    }
}

impl Default for Tariff {
    fn default() -> Self {
        Self::SINCE_2026_05
    }
}

impl fmt::Display for Tariff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl FromStr for Tariff {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = [Self::SINCE_2026_05, Self::BEFORE_2026_05];
        known
            .into_iter()
            .find(|tariff| tariff.name == text)
            .ok_or_else(|| format!("expected {}", known.map(|tariff| tariff.name).join(" or ")))
    }
}
