//! What came of the demo: what was delivered against what was announced, and how long it took.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use domain::{ConnectionId, MessageId};

use crate::output;

/// One mailbox, delivered against announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    /// The mailbox's address.
    pub(super) address: String,
    /// Messages that the mailbox holds, by Gmail's own listing.
    pub(super) delivered: usize,
    /// Different messages of it that were announced.
    pub(super) discovered: usize,
    /// Different messages of it that are fetched by now. Their turn comes at the pace of Gmail's quota, so while there are
    /// fewer than were announced nothing is wrong.
    pub(super) fetched: usize,
    /// Delivered and not announced.
    pub(super) missing: Vec<MessageId>,
    /// Announced, or fetched, more than once.
    pub(super) twice: Vec<MessageId>,
    /// Announced and never delivered.
    pub(super) unknown: Vec<MessageId>,
}

impl Row {
    /// Compares what Gmail holds with what the topics say.
    pub(super) fn compare(
        address: &str,
        truth: &HashSet<MessageId>,
        announced: &HashMap<MessageId, u32>,
        fetched: &HashMap<MessageId, u32>,
    ) -> Self {
        let mut missing: Vec<_> = truth.iter().filter(|id| !announced.contains_key(id)).cloned().collect();
        let counts = announced.iter().chain(fetched);
        let mut twice: Vec<_> = counts.filter(|(_, n)| **n > 1).map(|(id, _)| id.clone()).collect();
        let found = announced.keys().chain(fetched.keys());
        let mut unknown: Vec<_> = found.filter(|id| !truth.contains(id)).cloned().collect();
        for list in [&mut missing, &mut twice, &mut unknown] {
            list.sort();
            list.dedup();
        }
        Self {
            address: address.to_owned(),
            delivered: truth.len(),
            discovered: announced.len(),
            fetched: fetched.len(),
            missing,
            twice,
            unknown,
        }
    }

    fn is_good(&self) -> bool {
        self.missing.is_empty() && self.twice.is_empty() && self.unknown.is_empty()
    }
}

/// What a committed read of a topic found, by connection: how often each message is named.
pub(super) type Counted = HashMap<ConnectionId, HashMap<MessageId, u32>>;

/// The whole outcome.
#[derive(Debug, Clone, Default)]
pub(super) struct Report {
    /// One for each mailbox.
    pub(super) rows: Vec<Row>,
    /// How many jobs are in which state.
    pub(super) jobs: BTreeMap<String, usize>,
    /// From the POST to the first event of the job in a committed read, one for each job that found something.
    pub(super) latencies: Vec<Duration>,
}

impl Report {
    /// Whether each message was announced once and every job succeeded.
    pub(super) fn is_good(&self) -> bool {
        self.rows.iter().all(Row::is_good) && self.jobs.keys().all(|state| state == "succeeded")
    }

    /// Prints the tables.
    pub(super) fn print(&self) {
        let mut table = output::table(["mailbox", "delivered", "discovered", "fetched", "missing", "twice", "unknown"]);
        let cells = |row: &Row| {
            let found = [&row.missing, &row.twice, &row.unknown].map(Vec::len);
            [row.delivered, row.discovered, row.fetched, found[0], found[1], found[2]]
        };
        let mut total = [0; 6];
        for row in &self.rows {
            let cells = cells(row);
            total.iter_mut().zip(cells).for_each(|(total, cell)| *total += cell);
            table.add_row([vec![row.address.clone()], cells.map(|n| n.to_string()).to_vec()].concat());
        }
        if self.rows.len() > 1 {
            table.add_row([vec!["all".to_owned()], total.map(|n| n.to_string()).to_vec()].concat());
        }
        println!("\n{table}");
        if self.rows.iter().any(|row| row.fetched < row.discovered) {
            println!("fetched so far: the rest has its turn at the pace of Gmail's quota, a few messages a second");
        }
        let jobs: Vec<String> = self.jobs.iter().map(|(state, n)| format!("{n} {state}")).collect();
        println!("jobs: {}", jobs.join(", "));
        match (percentile(&self.latencies, 50), percentile(&self.latencies, 99)) {
            (Some(p50), Some(p99)) => println!(
                "trigger to visible: p50 {} ms, p99 {} ms (from the POST to the first event in a committed read, {} jobs)",
                p50.as_millis(),
                p99.as_millis(),
                self.latencies.len()
            ),
            _ => println!("trigger to visible: no job found anything"),
        }
        for row in &self.rows {
            for (what, ids) in [
                ("missing", &row.missing),
                ("announced or fetched twice", &row.twice),
                ("never delivered", &row.unknown),
            ] {
                if !ids.is_empty() {
                    let some: Vec<String> = ids.iter().take(5).map(ToString::to_string).collect();
                    println!("{}: {} {what}, such as {}", row.address, ids.len(), some.join(", "));
                }
            }
        }
    }
}

/// The smallest sample that `percent` of all do not exceed.
fn percentile(samples: &[Duration], percent: usize) -> Option<Duration> {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(numbers: &[u64]) -> HashSet<MessageId> {
        numbers.iter().map(|n| MessageId::from_u64(*n)).collect()
    }

    fn announced(counts: &[(u64, u32)]) -> HashMap<MessageId, u32> {
        counts.iter().map(|(id, n)| (MessageId::from_u64(*id), *n)).collect()
    }

    fn report(row: Row, jobs: &[(&str, usize)]) -> Report {
        let jobs = jobs.iter().map(|(state, n)| ((*state).to_owned(), *n)).collect();
        Report { rows: vec![row], jobs, latencies: Vec::new() }
    }

    #[test]
    fn each_once_is_good() {
        let row = Row::compare("a", &ids(&[1, 2]), &announced(&[(1, 1), (2, 1)]), &announced(&[(1, 1)]));
        assert_eq!((row.delivered, row.discovered, row.fetched), (2, 2, 1));
        // What is not fetched yet is to come.
        assert!(report(row, &[("succeeded", 3)]).is_good());
    }

    #[test]
    fn missing_twice_and_unknown_are_told_and_are_not_good() {
        let row = Row::compare("a", &ids(&[1, 2]), &announced(&[(1, 2), (3, 1)]), &announced(&[(3, 1)]));
        assert_eq!(row.missing, [MessageId::from_u64(2)]);
        assert_eq!(row.twice, [MessageId::from_u64(1)]);
        assert_eq!(row.unknown, [MessageId::from_u64(3)]);
        for (truth, found) in [(&[1, 2][..], &[(1, 1)][..]), (&[1], &[(1, 2)]), (&[1], &[(1, 1), (2, 1)])] {
            let row = Row::compare("a", &ids(truth), &announced(found), &announced(&[]));
            assert!(!report(row, &[("succeeded", 1)]).is_good());
        }
        for fetched in [&[(1, 2)][..], &[(4, 1)]] {
            let row = Row::compare("a", &ids(&[1]), &announced(&[(1, 1)]), &announced(fetched));
            assert!(!report(row, &[("succeeded", 1)]).is_good(), "{fetched:?}");
        }
    }

    #[test]
    fn a_job_that_did_not_succeed_is_not_good() {
        let row = || Row::compare("a", &ids(&[]), &announced(&[]), &announced(&[]));
        assert!(!report(row(), &[("succeeded", 3), ("failed", 1)]).is_good());
        assert!(!report(row(), &[("running", 1)]).is_good());
    }

    #[test]
    fn percentiles_are_samples() {
        let samples: Vec<Duration> = (1..=200).rev().map(Duration::from_millis).collect();
        assert_eq!(percentile(&samples, 50), Some(Duration::from_millis(100)));
        assert_eq!(percentile(&samples, 99), Some(Duration::from_millis(198)));
        assert_eq!(percentile(&samples[..1], 50), Some(Duration::from_millis(200)));
        assert_eq!(percentile(&[], 50), None);
    }
}
