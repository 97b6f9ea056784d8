//! What was measured, as a table and as JSON.

use std::fs;
use std::path::Path;

use anyhow::Context;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use serde::Serialize;

/// Which way is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Better {
    /// A rate.
    Higher,
    /// A time.
    Lower,
}

/// One figure against its limit.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Outcome {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    /// Our figure.
    pub(crate) ours: f64,
    /// The same without Mailtide.
    pub(crate) limit: f64,
    /// Ours by the limit; of a rate the median over the rounds.
    pub(crate) ratio: f64,
    pub(crate) better: Better,
    /// The bound that the ratio must keep.
    pub(crate) goal: f64,
    /// The smallest and the largest ratio of a round.
    #[serde(skip)]
    spread: (f64, f64),
}

impl Outcome {
    /// A rate, from our figure and the limit's in each round: the medians.
    pub(crate) fn of_rates(name: &'static str, unit: &'static str, rounds: &[(f64, f64)], goal: f64) -> Self {
        let ratios: Vec<f64> = rounds.iter().map(|(ours, limit)| ours / limit).collect();
        Self {
            name,
            unit,
            ours: median(rounds.iter().map(|(ours, _)| *ours)),
            limit: median(rounds.iter().map(|(_, limit)| *limit)),
            ratio: median(ratios.iter().copied()),
            better: Better::Higher,
            goal,
            spread: extremes(&ratios),
        }
    }

    /// The time within which the fraction `q` is done, from our samples and the limit's in each round: of all rounds
    /// taken together, since one round is too short for what is rare.
    pub(crate) fn of_times(name: &'static str, rounds: &[(Vec<f64>, Vec<f64>)], q: f64, goal: f64) -> Self {
        let ratio = |ours: &[f64], limit: &[f64]| quantile(ours, q) / quantile(limit, q);
        let ratios: Vec<f64> = rounds.iter().map(|(ours, limit)| ratio(ours, limit)).collect();
        let (ours, limit): (Vec<_>, Vec<_>) = rounds.iter().cloned().unzip();
        let (ours, limit) = (ours.concat(), limit.concat());
        Self {
            name,
            unit: "ms",
            ours: quantile(&ours, q),
            limit: quantile(&limit, q),
            ratio: ratio(&ours, &limit),
            better: Better::Lower,
            goal,
            spread: extremes(&ratios),
        }
    }

    /// What something costs, which must not be more than `bound`.
    pub(crate) fn of_bound(name: &'static str, unit: &'static str, ours: f64, bound: f64) -> Self {
        Self::of_growth(name, unit, ours, bound, 1.0)
    }

    /// What something costs where there is much of it, against the same where there is little.
    pub(crate) fn of_growth(name: &'static str, unit: &'static str, ours: f64, limit: f64, goal: f64) -> Self {
        let ratio = ours / limit;
        Self { name, unit, ours, limit, ratio, better: Better::Lower, goal, spread: (ratio, ratio) }
    }

    fn is_met(&self) -> bool {
        match self.better {
            Better::Higher => self.ratio >= self.goal,
            Better::Lower => self.ratio <= self.goal,
        }
    }
}

/// The middle one.
fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    quantile(&values.into_iter().collect::<Vec<_>>(), 0.5)
}

fn extremes(values: &[f64]) -> (f64, f64) {
    (quantile(values, 0.0), quantile(values, 1.0))
}

/// The value below which the fraction `q` of the values lies (nearest rank); not a number where there are none.
pub(crate) fn quantile(values: &[f64], q: f64) -> f64 {
    let mut values = values.to_vec();
    values.sort_unstable_by(f64::total_cmp);
    let rank = (q * values.len() as f64).ceil() as usize;
    values.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// All figures of a run.
#[derive(Debug, Default)]
pub(crate) struct Report(Vec<Outcome>);

impl Report {
    pub(crate) fn extend(&mut self, outcomes: Vec<Outcome>) {
        self.0.extend(outcomes);
    }

    /// Whether every goal is met.
    pub(crate) fn is_met(&self) -> bool {
        self.0.iter().all(Outcome::is_met)
    }

    /// Writes the figures as a list.
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let tried = || format!("Writing the results to {}", path.display());
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(tried)?;
        }
        let mut text = serde_json::to_string_pretty(&self.0)?;
        text.push('\n');
        fs::write(path, text).with_context(tried)
    }

    pub(crate) fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED);
        table.set_header(["benchmark", "unit", "ours", "limit", "ratio", "of rounds", "goal", ""]);
        for outcome in &self.0 {
            let bound = match outcome.better {
                Better::Higher => '≥',
                Better::Lower => '≤',
            };
            table.add_row([
                outcome.name.to_owned(),
                outcome.unit.to_owned(),
                figure(outcome.ours),
                figure(outcome.limit),
                format!("{:.2}", outcome.ratio),
                format!("{:.2} … {:.2}", outcome.spread.0, outcome.spread.1),
                format!("{bound} {}", outcome.goal),
                if outcome.is_met() { "met" } else { "missed" }.to_owned(),
            ]);
        }
        for column in 2..=6 {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table
    }
}

/// Three digits or more, as many as mean something.
fn figure(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let values = [5.0, 1.0, 4.0, 2.0, 3.0];
        assert_eq!(median(values), 3.0);
        assert_eq!(extremes(&values), (1.0, 5.0));
        assert_eq!(quantile(&values, 0.99), 5.0);
        assert!(median([]).is_nan());
    }

    #[test]
    fn a_goal_bounds_the_ratio_from_its_worse_side() {
        let rounds = [(60.0, 100.0), (50.0, 100.0), (10.0, 100.0)];
        let rate = |goal| Outcome::of_rates("rate", "1/s", &rounds, goal);
        assert!(rate(0.5).is_met() && !rate(0.51).is_met());
        let rounds = [(vec![4.0, 1.0], vec![2.0, 2.0]), (vec![3.0], vec![2.0])];
        let time = |goal| Outcome::of_times("time", &rounds, 0.5, goal);
        assert!(time(1.5).is_met() && !time(1.49).is_met());
    }

    #[test]
    fn the_json_has_the_fields_that_readers_rely_on() {
        let outcome = Outcome::of_rates("rate", "1/s", &[(1.0, 2.0)], 0.5);
        let json = serde_json::to_value([outcome]).unwrap();
        let expected = serde_json::json!([{"name": "rate", "unit": "1/s", "ours": 1.0, "limit": 2.0, "ratio": 0.5,
            "better": "higher", "goal": 0.5}]);
        assert_eq!(json, expected);
    }
}
