//! What facts come to, as a pure value: the rows that Postgres has to hold after them.
//!
//! Folding is associative: facts folded in batches, and the batches' results folded after each other, give what all
//! facts folded at once do. So it makes no difference how the topics were cut into batches, nor that a part of them is
//! read twice.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use domain::{ConnectionId, ConnectionState, GmailConnectionStatusChanged, GmailJobStatusChanged, JobId};

/// One record of the topics that rows are made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// Of `gmail.job.status`.
    Job(GmailJobStatusChanged),
    /// Of `gmail.connection.status`.
    Connection(GmailConnectionStatusChanged),
}

/// The fact that stands for each job and each connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fold {
    /// Of each job.
    pub jobs: BTreeMap<JobId, GmailJobStatusChanged>,
    /// Of each connection.
    pub connections: BTreeMap<ConnectionId, GmailConnectionStatusChanged>,
}

impl Fold {
    /// Takes in one fact, later than all before it.
    pub fn take(&mut self, fact: Fact) {
        match fact {
            Fact::Job(fact) => match self.jobs.entry(fact.job_id) {
                Entry::Vacant(entry) => {
                    entry.insert(fact);
                }
                Entry::Occupied(mut entry) => {
                    if replaces_job(entry.get(), &fact) {
                        entry.insert(fact);
                    }
                }
            },
            Fact::Connection(fact) => match self.connections.entry(fact.connection_id) {
                Entry::Vacant(entry) => {
                    entry.insert(fact);
                }
                Entry::Occupied(mut entry) => {
                    if replaces_connection(entry.get(), &fact) {
                        entry.insert(fact);
                    }
                }
            },
        }
    }

    /// Takes in what later facts came to.
    pub fn append(&mut self, later: Self) {
        later.jobs.into_values().for_each(|fact| self.take(Fact::Job(fact)));
        later.connections.into_values().for_each(|fact| self.take(Fact::Connection(fact)));
    }

    /// Whether no fact was taken in.
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.connections.is_empty()
    }
}

impl FromIterator<Fact> for Fold {
    fn from_iter<I: IntoIterator<Item = Fact>>(facts: I) -> Self {
        let mut fold = Self::default();
        facts.into_iter().for_each(|fact| fold.take(fact));
        fold
    }
}

/// Terminal states share the last rank, and the first one to come stands. Below it the higher rank is the later, then
/// the higher step. A job never changes hands.
fn replaces_job(stands: &GmailJobStatusChanged, fact: &GmailJobStatusChanged) -> bool {
    stands.organisation_id == fact.organisation_id
        && !stands.state.is_terminal()
        && (stands.state.rank(), stands.step) < (fact.state.rank(), fact.step)
}

/// The first word that a connection is forgotten stands, whatever its step. Before it the higher step is the later. Were
/// an early last word passed over for its step, the outcome would hang on how the facts are cut into batches.
fn replaces_connection(stands: &GmailConnectionStatusChanged, fact: &GmailConnectionStatusChanged) -> bool {
    let rank = |fact: &GmailConnectionStatusChanged| (fact.status == ConnectionState::Forgotten, fact.step);
    stands.organisation_id == fact.organisation_id
        && stands.status != ConnectionState::Forgotten
        && rank(stands) < rank(fact)
}

#[cfg(test)]
mod tests {
    use domain::{JobState, OrganisationId, Progress, Timestamp, TokenVersion, Trigger};
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn uuid(n: u8) -> Uuid {
        Uuid::from_u128(n.into())
    }

    fn job(id: u8, state: JobState, step: i64, at: i64) -> GmailJobStatusChanged {
        GmailJobStatusChanged {
            job_id: JobId::from_uuid(uuid(id)),
            organisation_id: OrganisationId::from_uuid(uuid(0)),
            connection_id: ConnectionId::from_uuid(uuid(1)),
            trigger: Trigger::Api,
            state,
            step,
            progress: Progress::default(),
            requested_at: Timestamp::default(),
            started_at: None,
            ended_at: None,
            deadline: Timestamp::default(),
            at: Timestamp::from_millis(at),
            code: None,
            detail: None,
        }
    }

    fn connection(id: u8, status: ConnectionState, step: i64, at: i64) -> GmailConnectionStatusChanged {
        GmailConnectionStatusChanged {
            organisation_id: OrganisationId::from_uuid(uuid(0)),
            connection_id: ConnectionId::from_uuid(uuid(id)),
            status,
            step,
            last_history_id: None,
            last_synced_at: None,
            token_version: TokenVersion(1),
            code: None,
            at: Timestamp::from_millis(at),
            watch_expires_at: None,
            last_push_at: None,
            units_today: None,
            units_day: None,
        }
    }

    const STATES: [JobState; 5] =
        [JobState::Queued, JobState::Running, JobState::Succeeded, JobState::Failed, JobState::Cancelled];
    const FARES: [ConnectionState; 4] = [
        ConnectionState::Active,
        ConnectionState::NeedsReauth,
        ConnectionState::Quarantined,
        ConnectionState::Forgotten,
    ];

    fn facts() -> impl Strategy<Value = Vec<Fact>> {
        let job = (0_u8..4, prop::sample::select(&STATES), 0_i64..6, any::<i64>())
            .prop_map(|(id, state, step, at)| Fact::Job(job(id, state, step, at)));
        let connection = (0_u8..4, prop::sample::select(&FARES), 0_i64..6, any::<i64>())
            .prop_map(|(id, fares, step, at)| Fact::Connection(connection(id, fares, step, at)));
        prop::collection::vec(prop_oneof![job, connection], 0..40)
    }

    proptest! {
        #[test]
        fn however_facts_are_cut_into_batches_they_come_to_the_same(facts in facts(), cuts: Vec<prop::sample::Index>) {
            let whole: Fold = facts.iter().cloned().collect();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(facts.len() + 1)).collect();
            cuts.push(facts.len());
            cuts.sort_unstable();
            let mut fold = Fold::default();
            let mut from = 0;
            for cut in cuts {
                fold.append(facts[from..cut].iter().cloned().collect());
                from = cut;
            }
            prop_assert_eq!(fold, whole);
        }

        #[test]
        fn facts_read_again_change_nothing(facts in facts(), from: prop::sample::Index) {
            let whole: Fold = facts.iter().cloned().collect();
            let again = &facts[from.index(facts.len() + 1)..];
            let mut fold = whole.clone();
            again.iter().cloned().for_each(|fact| fold.take(fact));
            prop_assert_eq!(fold, whole);
        }

        #[test]
        fn the_first_end_of_a_job_stands(facts in facts()) {
            let fold: Fold = facts.iter().cloned().collect();
            for (id, stands) in &fold.jobs {
                let of_job = facts.iter().filter_map(|fact| match fact {
                    Fact::Job(fact) if fact.job_id == *id => Some(fact),
                    Fact::Job(_) | Fact::Connection(_) => None,
                });
                let first_end = of_job.clone().find(|fact| fact.state.is_terminal());
                let latest = of_job.map(|fact| (fact.state.rank(), fact.step)).max();
                match first_end {
                    Some(end) => prop_assert_eq!(stands, end),
                    None => prop_assert_eq!(Some((stands.state.rank(), stands.step)), latest),
                }
            }
        }
    }

    #[test]
    fn a_fact_of_another_tenant_changes_nothing() {
        let mine = job(1, JobState::Queued, 0, 0);
        let other = GmailJobStatusChanged {
            organisation_id: OrganisationId::from_uuid(uuid(9)),
            ..job(1, JobState::Failed, 9, 0)
        };
        let fold: Fold = [Fact::Job(mine.clone()), Fact::Job(other)].into_iter().collect();
        assert_eq!(fold.jobs[&mine.job_id], mine);
    }
}
