//! What was found about one thing.

use serde::Serialize;

/// Whether it is as it should be; the worst is the greatest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// It is.
    Ok,
    /// It works, but not as well, or not for long.
    Warn,
    /// Something does not work.
    Fail,
}

/// One thing, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// Of what it is: `settings`, `kafka`, `registry`, `postgres`, `google` or `clock`.
    pub(super) area: &'static str,
    /// What was looked at.
    pub(super) check: String,
    /// Whether it is as it should be.
    pub(super) state: State,
    /// What is so.
    pub(super) found: String,
    /// What to do, unless all is well.
    pub(super) remedy: Option<String>,
}

impl Finding {
    /// All is well.
    pub(super) fn ok(area: &'static str, check: impl Into<String>, found: impl Into<String>) -> Self {
        Self { area, check: check.into(), state: State::Ok, found: found.into(), remedy: None }
    }

    /// It works for now.
    pub(super) fn warn(
        area: &'static str,
        check: impl Into<String>,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { state: State::Warn, remedy: Some(remedy.into()), ..Self::ok(area, check, found) }
    }

    /// It does not work.
    pub(super) fn fail(
        area: &'static str,
        check: impl Into<String>,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { state: State::Fail, remedy: Some(remedy.into()), ..Self::ok(area, check, found) }
    }

    pub(super) fn row(&self) -> [String; 4] {
        let state = match self.state {
            State::Ok => "ok",
            State::Warn => "warn",
            State::Fail => "FAIL",
        };
        let remedy = self.remedy.clone().unwrap_or_default();
        [state.to_owned(), format!("{} {}", self.area, self.check), self.found.clone(), remedy]
    }
}
