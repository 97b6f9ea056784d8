//! `mailtide settings`: what is in force, and why.

use runtime::settings::{Entry, Origin};

use crate::WrongUse;
use crate::cli::Settings as Asked;
use crate::output;
use crate::settings::Settings;

/// Prints the settings, a table for each group.
pub(crate) fn run(asked: &Asked, settings: &Settings) -> anyhow::Result<()> {
    let all = settings.effective.entries();
    if let Some(group) = asked.groups.iter().find(|group| !all.iter().any(|entry| is_of(entry, group))) {
        let mut known: Vec<&str> = all.iter().map(group_of).collect();
        known.dedup();
        return Err(WrongUse(format!("there are no settings `{group}`; groups are {}", known.join(", "))).into());
    }
    let shown: Vec<&Entry> = all
        .iter()
        .filter(|entry| asked.groups.is_empty() || asked.groups.iter().any(|group| is_of(entry, group)))
        .filter(|entry| !asked.changed || entry.origin != Origin::Default)
        .collect();
    if asked.output.json {
        return output::line(&shown);
    }
    for group in shown.chunk_by(|left, right| group_of(left) == group_of(right)) {
        output::print(
            asked.output,
            &(),
            ["setting", "value", "default", "from"],
            group.iter().map(|entry| row(entry)),
        )?;
    }
    Ok(())
}

/// Settings are grouped by what they are of: a service, or what services share.
fn group_of(entry: &Entry) -> &str {
    entry.key.split('.').next().unwrap_or_default()
}

fn is_of(entry: &Entry, group: &str) -> bool {
    entry.key.strip_prefix(group).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn row(Entry { key, value, default, origin, .. }: &Entry) -> [String; 4] {
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".to_owned());
    [key.clone(), text(value), text(default), origin.to_string()]
}
