//! The partitions a lane owns, each under its current assignment.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::lane::app::Assignment;
use crate::lane::outbox::Outbox;
use crate::lane::restore::Cancel;

/// The next epoch of the process.
fn next_epoch() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// How far a partition is.
#[derive(Debug)]
pub(crate) enum Stage {
    /// Its state is being rebuilt.
    Restoring(Cancel),
    /// Its records are worked on.
    Open(Open),
}

/// A partition whose records are worked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Open {
    /// The next offset to read.
    pub(crate) next: i64,
    /// What a transaction commits, also for a partition that has not moved: `next`, unless the application says less.
    pub(crate) target: i64,
    /// What is committed, or where reading began.
    pub(crate) committed: i64,
    /// Whether it is held back because the application does not want its records now.
    pub(crate) is_paused: bool,
    /// Whether outputs of it wait for a transaction.
    is_touched: bool,
}

/// All partitions of a lane.
#[derive(Debug, Default)]
pub(crate) struct Partitions {
    owned: BTreeMap<i32, (Assignment, Stage)>,
}

impl Partitions {
    /// A new assignment of a partition, never to be mistaken for an earlier one.
    pub(crate) fn assign(partition: i32) -> Assignment {
        Assignment { partition, epoch: next_epoch() }
    }

    /// Notes an assignment whose state is being rebuilt.
    pub(crate) fn insert(&mut self, assignment: Assignment, cancel: Cancel) {
        self.owned.insert(assignment.partition, (assignment, Stage::Restoring(cancel)));
    }

    /// Forgets a partition. Returns its assignment if it was open; cancels its restore otherwise.
    pub(crate) fn remove(&mut self, partition: i32) -> Option<Assignment> {
        match self.owned.remove(&partition)? {
            (assignment, Stage::Open(_)) => Some(assignment),
            (_, Stage::Restoring(cancel)) => {
                cancel.cancel();
                None
            }
        }
    }

    /// Whether this is the partition's current assignment, and its state is being rebuilt.
    pub(crate) fn is_restoring(&self, assignment: Assignment) -> bool {
        matches!(self.owned.get(&assignment.partition), Some((current, Stage::Restoring(_))) if *current == assignment)
    }

    /// Lets a restored partition begin at `start`.
    pub(crate) fn open(&mut self, assignment: Assignment, start: i64) {
        let open = Open { next: start, target: start, committed: start, is_paused: false, is_touched: false };
        self.owned.insert(assignment.partition, (assignment, Stage::Open(open)));
    }

    /// An open partition, with its assignment.
    pub(crate) fn open_mut(&mut self, partition: i32) -> Option<(Assignment, &mut Open)> {
        match self.owned.get_mut(&partition) {
            Some((assignment, Stage::Open(open))) => Some((*assignment, open)),
            Some((_, Stage::Restoring(_))) | None => None,
        }
    }

    /// Whether this is the partition's current assignment, and it is open.
    pub(crate) fn is_current(&self, assignment: Assignment) -> bool {
        matches!(self.owned.get(&assignment.partition), Some((current, Stage::Open(_))) if *current == assignment)
    }

    /// Open partitions.
    pub(crate) fn opened_mut(&mut self) -> impl Iterator<Item = (Assignment, &mut Open)> {
        self.owned.values_mut().filter_map(|(assignment, stage)| match stage {
            Stage::Open(open) => Some((*assignment, open)),
            Stage::Restoring(_) => None,
        })
    }

    /// All partitions.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Assignment, &Stage)> {
        self.owned.values().map(|(assignment, stage)| (*assignment, stage))
    }

    /// How many are restoring, and how many open.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let open = self.owned.values().filter(|(_, stage)| matches!(stage, Stage::Open(_))).count();
        (self.owned.len() - open, open)
    }

    /// Whether there is an offset to commit that no transaction has: `commit_at` gives each partition's.
    pub(crate) fn have_moved(&self, commit_at: impl Fn(Assignment, i64) -> i64) -> bool {
        self.owned.values().any(|(assignment, stage)| match stage {
            Stage::Open(open) => commit_at(*assignment, open.next) != open.committed,
            Stage::Restoring(_) => false,
        })
    }

    /// The partitions that a transaction with these outputs touches, each with the offset it commits.
    ///
    /// All of them, whether they moved or not: sending their offsets is what fences a zombie and what makes the next
    /// owner's stable fetch wait for us.
    pub(crate) fn touched(
        &mut self,
        outbox: &Outbox,
        commit_at: impl Fn(Assignment, i64) -> i64,
    ) -> Vec<(Assignment, Open)> {
        let mut last = None;
        for (assignment, _) in outbox.records() {
            if last != Some(*assignment) {
                last = Some(*assignment);
                if let Some((_, open)) = self.open_mut(assignment.partition) {
                    open.is_touched = true;
                }
            }
        }
        self.opened_mut()
            .filter_map(|(assignment, open)| {
                open.target = commit_at(assignment, open.next);
                let is_touched = std::mem::take(&mut open.is_touched) || open.target != open.committed;
                is_touched.then_some((assignment, *open))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Cancel, Outbox, Partitions};
    use crate::record::{Headers, OutRecord};

    fn two_open() -> (Partitions, super::Assignment, super::Assignment) {
        let mut partitions = Partitions::default();
        let (a, b) = (Partitions::assign(0), Partitions::assign(1));
        for assignment in [a, b] {
            partitions.insert(assignment, Cancel::default());
            partitions.open(assignment, 5);
        }
        (partitions, a, b)
    }

    /// What an application commits that says nothing else.
    fn as_read(_: super::Assignment, next: i64) -> i64 {
        next
    }

    fn record() -> OutRecord {
        OutRecord::new(&Arc::from("topic"), "key", "value", Headers::new())
    }

    #[test]
    fn a_partition_with_outputs_is_touched_though_it_has_not_moved() {
        let (mut partitions, a, _) = two_open();
        let mut outbox = Outbox::default();
        outbox.push(a, record());
        let touched = partitions.touched(&outbox, as_read);
        assert_eq!(touched.iter().map(|(assignment, open)| (*assignment, open.target)).collect::<Vec<_>>(), [(a, 5)]);
        assert!(
            partitions.touched(&Outbox::default(), as_read).is_empty(),
            "the mark does not outlive one transaction"
        );
    }

    #[test]
    fn a_partition_that_moved_is_touched_though_it_has_no_outputs() {
        let (mut partitions, _, b) = two_open();
        partitions.open_mut(1).unwrap().1.next = 8;
        assert!(partitions.have_moved(as_read));
        let touched = partitions.touched(&Outbox::default(), as_read);
        assert_eq!(touched.iter().map(|(assignment, open)| (*assignment, open.target)).collect::<Vec<_>>(), [(b, 8)]);
    }

    #[test]
    fn an_application_may_hold_the_offset_back() {
        let (mut partitions, a, b) = two_open();
        partitions.open_mut(1).unwrap().1.next = 8;
        assert!(!partitions.have_moved(|_, _| 5), "what was read is not done");
        let mut outbox = Outbox::default();
        outbox.push(a, record());
        let touched = partitions.touched(&outbox, |assignment, next| if assignment == b { 7 } else { next });
        let targets: Vec<_> = touched.iter().map(|(assignment, open)| (*assignment, open.target)).collect();
        assert_eq!(targets, [(a, 5), (b, 7)]);
    }

    #[test]
    fn an_earlier_ownership_is_not_the_current_one() {
        let (mut partitions, a, _) = two_open();
        let mut outbox = Outbox::default();
        outbox.push(a, record());
        assert_eq!(partitions.remove(0), Some(a));
        let again = Partitions::assign(0);
        partitions.insert(again, Cancel::default());
        partitions.open(again, 5);
        assert!(!partitions.is_current(a) && partitions.is_current(again));
        assert_eq!(outbox.retain(|assignment| partitions.is_current(assignment)), 1);
        assert_eq!((outbox.len(), outbox.bytes()), (0, 0));
    }

    #[test]
    fn revoking_a_restore_cancels_it() {
        let mut partitions = Partitions::default();
        let assignment = Partitions::assign(3);
        partitions.insert(assignment, Cancel::default());
        assert!(partitions.is_restoring(assignment) && !partitions.is_current(assignment));
        assert_eq!(partitions.remove(3), None);
        assert!(!partitions.is_restoring(assignment));
    }
}
