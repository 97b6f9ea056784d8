//! The status as tables.

use super::{Number, Status};
use crate::cli::Output;
use crate::command::ask::say;
use crate::output;

/// Prints every part that could be told, then what could not.
pub(super) fn all(status: &Status, output: Output) -> anyhow::Result<()> {
    if let Some(connections) = &status.connections {
        let rows = [
            ("active", connections.active),
            ("needs_reauth", connections.needs_reauth),
            ("quarantined", connections.quarantined),
            ("all", connections.all),
        ];
        output::print(output, &(), ["connections", ""], rows.map(|(state, number)| [state.to_owned(), text(number)]))?;
    }
    if let Some(jobs) = &status.jobs {
        let more = if jobs.precision == "exact" { "" } else { "+" };
        let rows = jobs.counts.iter().map(|it| [it.state.clone(), it.trigger.clone(), format!("{}{more}", it.count)]);
        output::print(output, &(), [&format!("jobs since {}", jobs.since), "trigger", ""], rows)?;
        let rows = jobs.slowest.iter().map(|it| {
            let longest = format!("{:.1} s", it.longest_ms as f64 / 1_000.0);
            [it.connection_id.clone(), it.organisation_id.clone(), longest, it.jobs.to_string(), it.open.to_string()]
        });
        output::print(output, &(), ["slowest mailboxes", "organisation", "longest job", "jobs", "open"], rows)?;
    }
    if let Some(lag) = &status.lag {
        let rows = lag.iter().map(|it| {
            let members = it.members.map_or_else(|| "-".to_owned(), |members| members.to_string());
            [it.group.clone(), members, it.topic.clone(), it.lag.to_string()]
        });
        output::print(output, &(), ["group", "members", "topic", "lag"], rows)?;
    }
    if let Some(units) = &status.units {
        let part = units.project_day.map_or_else(
            || "no limit".to_owned(),
            |day| format!("{:.0} of the project's {day}", day as f64 * units.poller_part),
        );
        let row = [["poller today".to_owned(), text(units.poller_today), part]];
        output::print(output, &(), ["units", "spent", "its part of the day"], row)?;
    }
    for service in &status.services {
        let state = match (&service.away, service.not_ready.is_empty()) {
            (Some(away), _) => away.clone(),
            (None, true) => "ready".to_owned(),
            (None, false) => {
                let failing = service.not_ready.iter().map(|(check, why)| format!("{check}: {why}"));
                format!("not ready: {}", failing.collect::<Vec<_>>().join("; "))
            }
        };
        let mut rows = vec![[service.address.to_string(), state, String::new(), String::new()]];
        rows.extend(service.budgets.iter().map(|(budget, units)| {
            [String::new(), budget.clone(), format!("{:.0}", units.left), format!("{:.0}", units.limit)]
        }));
        output::print(output, &(), ["service", "state and budgets", "units at once", "in its window"], rows)?;
    }
    if let Some(letters) = &status.dead_letters {
        let row = [[text(letters.open), letters.oldest.clone().unwrap_or_else(|| "-".to_owned())]];
        output::print(output, &(), ["open dead letters", "the oldest since"], row)?;
    }
    for (part, why) in &status.failed {
        say(&format!("{part} cannot be told: {why}"))?;
    }
    Ok(())
}

/// A number, and how far it can be relied on.
fn text(number: Number) -> String {
    match number.precision {
        "exact" => number.count.to_string(),
        "atLeast" => format!("{}+", number.count),
        _ => format!("~{}", number.count),
    }
}
