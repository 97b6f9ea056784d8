//! Which connections have a slot in the next stretch of time: one pass over all of them, in bounded memory.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use domain::schedule::{self, Schedule};
use domain::{ConnectionState, Duration, JobId, Timestamp};
use runtime::health::Check;
use runtime::{Backoff, Shutdown};
use store::Store;
use store::connections::{self, Due};

/// A slot that is fired so late was missed.
const LATE: Duration = Duration::from_minutes(1);

/// What a schedule asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Round {
    /// A sync, twice a day or as often as the connection says.
    Sync,
    /// A comparison of what arrived with what was announced, once a day.
    Audit,
}

/// One slot of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    /// When it is due.
    pub(crate) at: Timestamp,
    /// Whose it is.
    pub(crate) connection: Due,
    /// What it asks for.
    pub(crate) round: Round,
}

impl Round {
    /// The watermark's name in the store, and the label in metrics.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Sync => crate::SCHEDULE,
            Self::Audit => crate::AUDITS,
        }
    }
}

impl Slot {
    /// The job that the slot is.
    pub(crate) fn job_id(&self) -> JobId {
        match self.round {
            Round::Sync => schedule::job_id(self.connection.connection_id, self.at),
            Round::Audit => schedule::audit_id(self.connection.connection_id, self.at),
        }
    }
}

/// All slots after one instant and up to another, in order.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// The instant up to which the plan is complete.
    pub(crate) until: Timestamp,
    slots: VecDeque<Slot>,
}

impl Plan {
    /// A plan of nothing, for the time up to `until`.
    pub(crate) const fn empty(until: Timestamp) -> Self {
        Self { until, slots: VecDeque::new() }
    }

    /// Adds the slots of a page of connections, when the clock says `now`. Of the slots of one connection that were
    /// missed, by more than [`LATE`], only the latest counts: one sync makes up for them all.
    fn add(&mut self, (round, schedule): (Round, Schedule), from: Timestamp, now: Timestamp, page: &[Due]) {
        // The others have nothing to be synced with; a renewed consent starts a sync of its own.
        let active = page.iter().filter(|connection| connection.state == ConnectionState::Active);
        self.slots.extend(active.flat_map(|connection| {
            // An interval of its own is one of syncs.
            let own = connection.interval.filter(|_| round == Round::Sync);
            let schedule = own.and_then(Schedule::every).unwrap_or(schedule);
            let latest = schedule.latest(connection.connection_id, now - LATE);
            let due = schedule.due(connection.connection_id, from, self.until).skip_while(move |slot| *slot < latest);
            due.map(move |at| Slot { at, connection: *connection, round })
        }));
    }

    /// Appends the plan of the time that follows this one's.
    pub(crate) fn append(&mut self, mut next: Self) {
        self.until = next.until;
        self.slots.append(&mut next.slots);
    }

    /// Takes out the slots up to `to`, at most `limit` of them.
    pub(crate) fn take(&mut self, to: Timestamp, limit: usize) -> Vec<Slot> {
        let due = self.slots.iter().take(limit).take_while(|slot| slot.at <= to).count();
        self.slots.drain(..due).collect()
    }

    /// Drops the slots up to `to`.
    pub(crate) fn skip_to(&mut self, to: Timestamp) {
        let due = self.slots.partition_point(|slot| slot.at <= to);
        self.slots.drain(..due);
    }

    /// When the next slot is due, if there is one.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.slots.front().map(|slot| slot.at)
    }

    /// How many slots there are.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }
}

/// The plan for the time after `from` and up to `until`. Waits while Postgres is away; none when the stop was ordered.
///
/// # Errors
/// When Postgres answers what cannot be used.
pub(crate) async fn make(
    store: &Store,
    schedule: (Round, Schedule),
    page: u16,
    from: Timestamp,
    until: Timestamp,
    alive: &Check,
    shutdown: &Shutdown,
) -> Result<Option<Plan>, store::Error> {
    let mut backoff = Backoff::default();
    while !shutdown.is_requested() {
        let mut plan = Plan::empty(until);
        let read = connections::pass(store, page, |connections| {
            alive.pass();
            plan.add(schedule, from, crate::clock(), connections);
            if shutdown.is_requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        match read.await {
            Ok(()) if shutdown.is_requested() => break,
            Ok(()) => {
                plan.slots.make_contiguous().sort_unstable_by_key(|slot| (slot.at, slot.connection.connection_id));
                return Ok(Some(plan));
            }
            Err(error) if error.is_unavailable() => {
                alive.pass();
                tracing::warn!(%error, "Connections could not be read, trying again");
                backoff.pause(shutdown).await;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use domain::{ConnectionId, OrganisationId, TokenVersion};
    use uuid::Uuid;

    use super::*;

    fn connection(n: u128, state: ConnectionState) -> Due {
        Due {
            connection_id: ConnectionId::from_uuid(Uuid::new_v5(&Uuid::NAMESPACE_OID, &n.to_be_bytes())),
            organisation_id: OrganisationId::from_uuid(Uuid::from_u128(1)),
            token_version: TokenVersion(1),
            state,
            interval: None,
        }
    }

    fn planned(page: &[Due], from: Timestamp, until: Timestamp) -> Plan {
        let mut plan = Plan::empty(until);
        plan.add((Round::Sync, Schedule::default()), from, from, page);
        plan.slots.make_contiguous().sort_unstable_by_key(|slot| slot.at);
        plan
    }

    const START: Timestamp = Timestamp::from_millis(1_770_000_000_000);

    #[test]
    fn plans_of_times_that_follow_each_other_hold_each_slot_once() {
        let page: Vec<Due> = (0..500).map(|n| connection(n, ConnectionState::Active)).collect();
        let steps = [0, 1, 7, 60, 61, 400, 720].map(|minutes| START + Duration::from_minutes(minutes));
        let mut plan = Plan::empty(START);
        for step in steps.windows(2) {
            plan.append(planned(&page, step[0], step[1]));
        }
        assert_eq!(plan.len(), 500, "12 hours hold one slot of each connection");
        let mut fired = plan.take(START + Duration::from_minutes(30), 10);
        assert_eq!(fired.len(), 10);
        while plan.len() > 0 {
            fired.extend(plan.take(plan.until, 64));
        }
        assert!(fired.is_sorted_by_key(|slot| slot.at));
        fired.sort_unstable_by_key(Slot::job_id);
        fired.dedup_by_key(|slot| slot.job_id());
        assert_eq!(fired.len(), 500);
    }

    #[test]
    fn connections_that_cannot_be_synced_are_left_out() {
        let states = [
            ConnectionState::Active,
            ConnectionState::NeedsReauth,
            ConnectionState::Quarantined,
            ConnectionState::Forgotten,
        ];
        let page: Vec<Due> = states.iter().enumerate().map(|(n, state)| connection(n as u128, *state)).collect();
        let mut plan = planned(&page, START, START + Duration::from_hours(12));
        let fired = plan.take(plan.until, 10);
        assert_eq!(fired.iter().map(|slot| slot.connection).collect::<Vec<_>>(), page[..1]);
    }

    #[test]
    fn a_connection_of_its_own_interval_has_slots_of_its_own() {
        let hours =
            |n, hours| Due { interval: Some(Duration::from_hours(hours)), ..connection(n, ConnectionState::Active) };
        let page = [hours(1, 1), hours(2, 24), connection(3, ConnectionState::Active)];
        let mut plan = planned(&page, START, START + Duration::from_hours(48));
        let slots = plan.take(plan.until, 1_000);
        let of = |due: &Due| slots.iter().filter(|slot| slot.connection == *due).count();
        assert_eq!([of(&page[0]), of(&page[1]), of(&page[2])], [48, 2, 4]);
    }

    #[test]
    fn of_the_slots_that_were_missed_only_the_latest_is_made_up_for() {
        let often = Due { interval: Some(Duration::from_hours(1)), ..connection(1, ConnectionState::Active) };
        let rarely = Due { interval: Some(Duration::from_hours(24)), ..connection(2, ConnectionState::Active) };
        let page = [often, rarely, connection(3, ConnectionState::Active)];
        // A day was missed, and is planned in pieces.
        let now = START + Duration::from_hours(24);
        let mut plan = Plan::empty(START);
        for hour in 0..24 {
            let mut piece = Plan::empty(START + Duration::from_hours(hour + 1));
            piece.add((Round::Sync, Schedule::default()), START + Duration::from_hours(hour), now, &page);
            plan.append(piece);
        }
        for due in page {
            let slots: Vec<_> = plan.slots.iter().filter(|slot| slot.connection == due).map(|slot| slot.at).collect();
            assert!(!slots.is_empty() && slots[1..].iter().all(|slot| *slot > now - LATE), "{slots:?}");
        }
    }

    #[test]
    fn audits_go_by_their_own_interval_and_are_jobs_of_their_own() {
        let often = Due { interval: Some(Duration::from_hours(1)), ..connection(1, ConnectionState::Active) };
        let mut plan = Plan::empty(START + Duration::from_hours(48));
        let daily = Schedule::every(Duration::from_hours(24)).unwrap();
        plan.add((Round::Audit, daily), START, START, &[often]);
        let audits = plan.take(plan.until, 10);
        assert_eq!(audits.len(), 2);
        let sync = Slot { round: Round::Sync, ..audits[0] };
        assert_ne!(sync.job_id(), audits[0].job_id());
    }

    #[test]
    fn what_another_has_fired_is_dropped() {
        let page: Vec<Due> = (0..100).map(|n| connection(n, ConnectionState::Active)).collect();
        let mut plan = planned(&page, START, START + Duration::from_hours(12));
        let middle = START + Duration::from_hours(6);
        plan.skip_to(middle);
        assert!(plan.next().is_some_and(|slot| slot > middle));
    }
}
