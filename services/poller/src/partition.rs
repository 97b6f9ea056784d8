//! The mailboxes of one partition and their timers.

use std::collections::BTreeSet;

use domain::mailbox::Mailbox;
use domain::{ConnectionId, OrganisationId, Timestamp};
use kafka::lane::Assignment;

use crate::restore::Part;
use crate::slot::{Awake, Broken, Buried, Slot, Slots, Stored, WakeError};

/// One partition under one assignment.
pub(crate) struct Partition {
    pub(crate) assignment: Assignment,
    slots: Slots,
    /// When which mailbox wants its timer; one entry at most for each that is awake or buried.
    timers: BTreeSet<(Timestamp, ConnectionId)>,
    /// Mailboxes whose state is to be written.
    pub(crate) dirty: Vec<ConnectionId>,
}

/// A mailbox as the partition has it.
pub(crate) enum Found<'a> {
    Awake(&'a mut Awake),
    Broken(&'a Broken),
}

impl Partition {
    /// The partition as it was restored, and which of its mailboxes have work under way.
    pub(crate) fn new(assignment: Assignment, part: Part) -> (Self, Vec<ConnectionId>) {
        let Part { mailboxes: mut slots, active, graves } = part;
        let mut timers = BTreeSet::new();
        for (id, decays_at) in graves {
            if let Some(slot) = slots.get_mut(&id)
                && let Slot::Asleep(stored) = slot
            {
                let stored = std::mem::take(stored);
                *slot = Slot::Buried(Box::new(Buried { stored, decays_at }));
                timers.insert((decays_at, id));
            }
        }
        (Self { assignment, slots, timers, dirty: Vec::new() }, active.into_iter().collect())
    }

    /// A mailbox, woken; one that was never seen is new, under this tenant. It may turn out to be broken, just now
    /// or long ago.
    pub(crate) fn wake(&mut self, id: ConnectionId, organisation: OrganisationId) -> (Found<'_>, Option<WakeError>) {
        let slot = self.slots.entry(id).or_insert_with(|| {
            Slot::Awake(Box::new(Awake::new(Mailbox::new(id, organisation), 0, Default::default())))
        });
        let mut broke = None;
        let resting: Option<(Stored, _)> = match slot {
            Slot::Asleep(stored) => Some((std::mem::take(stored), None)),
            Slot::Buried(buried) => {
                // Gone if it is what wakes it.
                let timer = Some(buried.decays_at).filter(|at| self.timers.contains(&(*at, id)));
                Some((std::mem::take(&mut buried.stored), timer))
            }
            Slot::Awake(_) | Slot::Quarantined(_) => None,
        };
        if let Some((stored, wake_at)) = resting {
            *slot = match stored.wake() {
                Ok(Some((mailbox, absorbed))) => {
                    Slot::Awake(Box::new(Awake { wake_at, ..Awake::new(mailbox, absorbed, stored) }))
                }
                Ok(None) => Slot::Awake(Box::new(Awake::new(Mailbox::new(id, organisation), 0, stored))),
                Err(error) => {
                    wake_at.map(|at| self.timers.remove(&(at, id)));
                    let reason = error.to_string().into();
                    // One that was set aside before is known, and no news.
                    broke = (!matches!(error, WakeError::Quarantined(_))).then_some(error);
                    Slot::Quarantined(Box::new(Broken { stored, reason }))
                }
            };
        }
        let found = match slot {
            Slot::Awake(awake) => Found::Awake(awake),
            Slot::Quarantined(broken) => Found::Broken(broken),
            Slot::Asleep(_) | Slot::Buried(_) => unreachable!("it was woken just now"),
        };
        (found, broke)
    }

    /// Whether anything is known of a mailbox.
    pub(crate) fn knows(&self, id: ConnectionId) -> bool {
        self.slots.contains_key(&id)
    }

    /// A mailbox that is awake.
    pub(crate) fn awake(&mut self, id: ConnectionId) -> Option<&mut Awake> {
        match self.slots.get_mut(&id) {
            Some(Slot::Awake(awake)) => Some(awake),
            Some(Slot::Asleep(_) | Slot::Buried(_) | Slot::Quarantined(_)) | None => None,
        }
    }

    /// Notes that a mailbox changed, and sets its timer anew.
    pub(crate) fn changed(&mut self, id: ConnectionId) {
        let Some(Slot::Awake(awake)) = self.slots.get_mut(&id) else { return };
        if !awake.is_dirty {
            awake.is_dirty = true;
            self.dirty.push(id);
        }
        let wake_at = awake.mailbox.wake_at();
        if wake_at != awake.wake_at {
            if let Some(at) = std::mem::replace(&mut awake.wake_at, wake_at) {
                self.timers.remove(&(at, id));
            }
            self.timers.extend(wake_at.map(|at| (at, id)));
        }
    }

    /// Takes a mailbox out, its timer with it.
    pub(crate) fn remove(&mut self, id: ConnectionId) -> Option<Slot> {
        let slot = self.slots.remove(&id)?;
        let timer = match &slot {
            Slot::Awake(awake) => awake.wake_at,
            Slot::Buried(buried) => Some(buried.decays_at),
            Slot::Asleep(_) | Slot::Quarantined(_) => None,
        };
        timer.map(|at| self.timers.remove(&(at, id)));
        Some(slot)
    }

    /// Puts a mailbox with nothing under way to sleep. Its state must have been written.
    pub(crate) fn sleep(&mut self, id: ConnectionId) {
        let Some(Slot::Awake(awake)) = self.remove(id) else { return };
        let slot = match awake.mailbox.decays_at() {
            Some(decays_at) => {
                self.timers.insert((decays_at, id));
                Slot::Buried(Box::new(Buried { stored: awake.stored, decays_at }))
            }
            None => Slot::Asleep(awake.stored),
        };
        self.slots.insert(id, slot);
    }

    /// Sets a mailbox aside.
    pub(crate) fn quarantine(&mut self, id: ConnectionId, broken: Broken) {
        self.remove(id);
        self.slots.insert(id, Slot::Quarantined(Box::new(broken)));
    }

    /// When the first timer is due.
    pub(crate) fn wake_at(&self) -> Option<Timestamp> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Takes the mailboxes whose time has come.
    pub(crate) fn due(&mut self, now: Timestamp) -> Vec<ConnectionId> {
        let mut due = Vec::new();
        while let Some((at, id)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, id));
            if let Some(awake) = self.awake(id) {
                awake.wake_at = None;
            }
            due.push(id);
        }
        due
    }
}
