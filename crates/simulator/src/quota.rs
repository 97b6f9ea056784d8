//! What calls cost, in units, and the budgets that bound them: per user and minute, per project and minute, per
//! project and day. Every call is counted, so that a client's cost can be read.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;

/// The API's methods, as far as they are priced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Method {
    /// users.getProfile
    GetProfile,
    /// users.labels.list
    ListLabels,
    /// users.history.list
    ListHistory,
    /// users.messages.list
    ListMessages,
    /// users.messages.get
    GetMessage,
    /// users.messages.attachments.get
    GetAttachment,
    /// users.watch
    Watch,
    /// users.stop
    Stop,
}

impl Method {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::GetProfile,
        Self::ListLabels,
        Self::ListHistory,
        Self::ListMessages,
        Self::GetMessage,
        Self::GetAttachment,
        Self::Watch,
        Self::Stop,
    ];

    /// Its name in reports of usage.
    pub const fn name(self) -> &'static str {
        match self {
            Self::GetProfile => "getProfile",
            Self::ListLabels => "listLabels",
            Self::ListHistory => "listHistory",
            Self::ListMessages => "listMessages",
            Self::GetMessage => "getMessage",
            Self::GetAttachment => "getAttachment",
            Self::Watch => "watch",
            Self::Stop => "stop",
        }
    }

    /// Its name inside Google, as errors show it.
    pub(crate) const fn internal_name(self) -> &'static str {
        match self {
            Self::GetProfile => "GetProfile",
            Self::ListLabels => "ListLabels",
            Self::ListHistory => "ListHistory",
            Self::ListMessages => "ListMessages",
            Self::GetMessage => "GetMessage",
            Self::GetAttachment => "GetAttachment",
            Self::Watch => "Watch",
            Self::Stop => "Stop",
        }
    }

    pub(crate) const fn index(self) -> usize {
        match self {
            Self::GetProfile => 0,
            Self::ListLabels => 1,
            Self::ListHistory => 2,
            Self::ListMessages => 3,
            Self::GetMessage => 4,
            Self::GetAttachment => 5,
            Self::Watch => 6,
            Self::Stop => 7,
        }
    }
}

/// The price list and limits of a Google project, by when it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tariff {
    /// Projects made from 2026-05-01 on: `messages.get` costs 20, a user has 6,000 units a minute.
    #[default]
    New,
    /// Older projects: `messages.get` costs 5, a user has 15,000 units a minute.
    Old,
}

impl fmt::Display for Tariff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::New => "new",
            Self::Old => "old",
        })
    }
}

impl FromStr for Tariff {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "new" => Ok(Self::New),
            "old" => Ok(Self::Old),
            _ => Err(format!("{text:?} is no tariff: it is new or old")),
        }
    }
}

impl Tariff {
    /// Units of one call.
    pub const fn price(self, method: Method) -> u32 {
        match (method, self) {
            (Method::GetProfile | Method::ListLabels, _) => 1,
            (Method::ListHistory, _) => 2,
            (Method::ListMessages, _) => 5,
            (Method::GetMessage | Method::GetAttachment, Self::New) => 20,
            (Method::GetMessage | Method::GetAttachment, Self::Old) => 5,
            (Method::Watch, _) => 100,
            (Method::Stop, _) => 50,
        }
    }

    /// The limits that come with the price list.
    pub const fn limits(self) -> Limits {
        Limits {
            user_minute: match self {
                Self::New => 6_000,
                Self::Old => 15_000,
            },
            project_minute: 1_200_000,
            project_day: match self {
                Self::New => 80_000_000,
                Self::Old => 1_000_000_000,
            },
            concurrent_per_user: 50,
        }
    }
}

/// How much is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Units of one user in any 60 s.
    pub user_minute: u64,
    /// Units of all users in any 60 s.
    pub project_minute: u64,
    /// Units of all users in a day, which begins at midnight Pacific Standard Time.
    pub project_day: u64,
    /// Requests of one user at the same time; the parts of a batch count each.
    pub concurrent_per_user: u32,
}

/// Slots are this long: what is charged in one leaves the window together, when the last of it is 60 s old.
const SLOT_MS: i64 = 100;

/// Slots in a minute.
const MINUTE: i64 = 60_000 / SLOT_MS;

/// Units spent in the last 60 s. Never less than the truth, and at most [`SLOT_MS`] late in forgetting.
#[derive(Debug, Default)]
pub(crate) struct MinuteWindow {
    slots: VecDeque<(i64, u32)>,
    sum: u64,
}

impl MinuteWindow {
    /// Units spent in the 60 s before `now_ms`.
    pub(crate) fn spent(&mut self, now_ms: i64) -> u64 {
        let now = now_ms.div_euclid(SLOT_MS);
        while let Some(&(slot, units)) = self.slots.front() {
            // A clock set back leaves slots in its future; they are from another time.
            if now - slot <= MINUTE && slot <= now {
                break;
            }
            self.slots.pop_front();
            self.sum -= u64::from(units);
        }
        self.sum
    }

    /// Notes `units` as spent at `now_ms`.
    pub(crate) fn spend(&mut self, units: u32, now_ms: i64) {
        let now = now_ms.div_euclid(SLOT_MS);
        match self.slots.back_mut() {
            Some((slot, spent)) if *slot >= now => *spent = spent.saturating_add(units),
            _ => self.slots.push_back((now, units)),
        }
        self.sum += u64::from(units);
    }
}

/// What the whole project spent.
#[derive(Debug, Default)]
pub(crate) struct Project {
    minute: MinuteWindow,
    day: i64,
    day_units: u64,
}

/// Which budget a call does not fit in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exceeded {
    /// The user's minute.
    UserMinute,
    /// The project's minute.
    ProjectMinute,
    /// The project's day.
    ProjectDay,
}

/// Midnight Pacific Standard Time, when the day's quota begins anew, lies 8 h after UTC's.
const DAY_OFFSET_MS: i64 = 8 * 3_600_000;
const DAY_MS: i64 = 86_400_000;

/// Charges a call to the user and the project, or says what it does not fit in and charges nothing.
pub(crate) fn charge(
    user: &mut MinuteWindow,
    project: &mut Project,
    limits: &Limits,
    units: u32,
    now_ms: i64,
) -> Result<(), Exceeded> {
    let more = u64::from(units);
    let day = (now_ms - DAY_OFFSET_MS).div_euclid(DAY_MS);
    if day != project.day {
        (project.day, project.day_units) = (day, 0);
    }
    if project.day_units + more > limits.project_day {
        return Err(Exceeded::ProjectDay);
    }
    if project.minute.spent(now_ms) + more > limits.project_minute {
        return Err(Exceeded::ProjectMinute);
    }
    if user.spent(now_ms) + more > limits.user_minute {
        return Err(Exceeded::UserMinute);
    }
    user.spend(units, now_ms);
    project.minute.spend(units, now_ms);
    project.day_units += more;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_slides() {
        let (mut user, mut project) = (MinuteWindow::default(), Project::default());
        let limits = Limits { user_minute: 100, project_minute: 170, project_day: 175, concurrent_per_user: 1 };
        let mut spend = |user: &mut MinuteWindow, units, at| charge(user, &mut project, &limits, units, at);
        assert_eq!(spend(&mut user, 60, 1_000), Ok(()));
        assert_eq!(spend(&mut user, 40, 31_000), Ok(()));
        assert_eq!(spend(&mut user, 1, 60_999), Err(Exceeded::UserMinute));
        assert_eq!(spend(&mut user, 61, 60_999), Err(Exceeded::UserMinute));
        let mut other = MinuteWindow::default();
        assert_eq!(spend(&mut other, 71, 60_999), Err(Exceeded::ProjectMinute));
        assert_eq!(spend(&mut user, 60, 61_100), Ok(()));
        assert_eq!(spend(&mut other, 20, 200_000), Err(Exceeded::ProjectDay));
        assert_eq!(spend(&mut other, 20, 200_000 + DAY_MS), Ok(()));
    }

    #[test]
    fn a_clock_set_back_frees_the_window() {
        let mut window = MinuteWindow::default();
        window.spend(5, 1_000_000);
        assert_eq!(window.spent(1_000_050), 5);
        assert_eq!(window.spent(500_000), 0);
    }
}
