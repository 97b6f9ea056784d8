//! Whose turn it is among the priorities: each weighs four times the next, and none starves.
//!
//! Start-time fair queueing (Goyal, Vin and Cheng, 1996): a priority's next call starts where its last one ended, in
//! virtual time, and the earliest start goes first. While all of them wait, each gets its weight's part of the units.
//! One that has not waited starts now, so it can neither save up nor fall behind.

use domain::Lane;

/// Priorities.
pub(super) const LANES: usize = 5;

pub(super) const fn index(lane: Lane) -> usize {
    match lane {
        Lane::Live => 0,
        Lane::CatchUp => 1,
        Lane::Fetch => 2,
        Lane::Backfill => 3,
        Lane::Audit => 4,
    }
}

/// How fast a priority's virtual time goes: the inverse of its weight.
const COST: [u64; LANES] = [1, 4, 16, 64, 256];

/// The turns of one queue of each priority.
#[derive(Debug, Clone, Default)]
pub(super) struct Turns {
    now: u64,
    /// Where each priority's last call ended.
    ended: [u64; LANES],
}

impl Turns {
    fn start(&self, lane: usize) -> u64 {
        self.ended[lane].max(self.now)
    }

    /// Which of the priorities that have a call is next.
    pub(super) fn next(&self, has_call: impl Fn(usize) -> bool) -> Option<usize> {
        // The first of equals is the highest.
        (0..LANES).filter(|lane| has_call(*lane)).min_by_key(|lane| self.start(*lane))
    }

    /// Its call has had its turn.
    pub(super) fn took(&mut self, lane: usize, price: u64) {
        self.now = self.start(lane);
        self.ended[lane] = self.now.saturating_add(price.saturating_mul(COST[lane]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_goes_first_and_the_lowest_is_not_forgotten() {
        let mut turns = Turns::default();
        let mut order = Vec::new();
        for _ in 0..341 {
            let lane = turns.next(|_| true).unwrap();
            turns.took(lane, 1);
            order.push(lane);
        }
        let times = |lane| order.iter().filter(|it| **it == lane).count();
        assert_eq!(order[..LANES], [0, 1, 2, 3, 4]);
        assert_eq!([0, 1, 2, 3, 4].map(times), [256, 64, 16, 4, 1]);
    }

    #[test]
    fn one_that_comes_late_goes_first_and_has_saved_nothing_up() {
        let mut turns = Turns::default();
        for _ in 0..1_000 {
            turns.took(3, 7);
        }
        // A live call waits for none that came before it, a hundred of them take nothing from the backfill for good.
        assert_eq!(turns.next(|lane| lane == 0 || lane == 3), Some(0));
        let live = (0..100).filter(|_| {
            let lane = turns.next(|lane| lane == 0 || lane == 3).unwrap();
            turns.took(lane, 7);
            lane == 0
        });
        assert!(live.count() >= 98);
    }
}
