//! Faults found in other systems of this kind, each shown not to be ours.

use std::collections::HashSet;

use super::gmail::Kind;
use super::model::{Fault, RULES, World};
use crate::event::{ConnectionState, Origin};
use crate::job::{JobState, Trigger};
use crate::mailbox::reply::Request;
use crate::mailbox::{Alarm, Rules};

const DAY: i64 = 86_400_000;

/// Settled, with `n` messages that no walk has read yet. No watch, so that nothing but history is asked for.
fn behind_by(n: u32) -> World {
    let mut world = World::new(Rules { watch: None, ..RULES });
    world.sync(false);
    world.drain();
    world.pass(3_600_000);
    for _ in 0..n {
        world.gmail.deliver(world.now, Kind::Mail, 0, 0);
    }
    world.commit();
    world
}

#[test]
fn the_cursor_is_not_moved_past_pages_that_failed() {
    let mut world = behind_by(7);
    let before = world.mailbox.cursor();
    world.sync(false);
    world.answer(0, Fault::None);
    for _ in 0..5 {
        world.answer(0, Fault::Transient);
        world.pass(70_000);
        world.commit();
        assert_eq!(world.mailbox.cursor(), before);
    }
    world.crash();
    world.settle();
    world.check().unwrap();
}

/// A walk that is cut off after every second page ends after as many pages as there are, and two a cut.
#[test]
fn a_backlog_is_finished_and_not_rescanned_for_ever() {
    const PAGES: u32 = 40;
    let mut world = behind_by(PAGES * 3);
    world.sync(false);
    let begun = world.answered;
    let mut cuts = 0;
    while !world.mailbox.jobs().is_empty() {
        world.answer(0, Fault::None);
        world.commit();
        if world.mailbox.jobs().is_empty() {
            break;
        }
        world.answer(0, Fault::None);
        world.crash();
        cuts += 1;
        assert!(world.answered - begun <= PAGES + 2 * cuts + 2, "the same pages are read again and again");
    }
    assert!(cuts > 20);
    world.settle();
    world.check().unwrap();
}

/// However often Gmail pushes back or is away: the page is no poison.
#[test]
fn a_throttle_or_an_outage_is_never_counted_as_poison() {
    let mut world = behind_by(5);
    world.sync(false);
    for round in 0..60 {
        world.answer(0, if round % 2 == 0 { Fault::Throttled } else { Fault::Transient });
        world.commit();
        let live = world.durable.state.as_ref().unwrap().live.unwrap();
        assert_eq!((live.page_size, live.attempts), (i32::from(RULES.page_size), 0), "round {round}");
        // A crash while a call is out is not its page's fault either.
        world.pass(if round % 7 == 0 { 1_900_000 } else { 70_000 });
        world.sync(false);
    }
    assert!(world.durable.dead.is_empty());
    world.settle();
    world.check().unwrap();
    assert!(world.durable.dead.is_empty());
}

/// Two weeks away: history answers 404 once, the window since is listed, and the next walk is an ordinary one.
#[test]
fn two_weeks_offline_end_in_one_404_and_no_broken_account() {
    let mut world = behind_by(3);
    let visible = |world: &World| world.durable.discovered.len();
    for day in 0..14 {
        world.now += DAY;
        for _ in 0..day % 3 {
            world.gmail.deliver(world.now, Kind::Mail, 0, 0);
        }
    }
    world.gmail.floor = world.gmail.head;
    world.pass(60_000);
    world.sync(false);
    world.drain();
    world.commit();
    let state = world.durable.connection.clone().unwrap();
    assert_eq!((state.status, state.code), (ConnectionState::Active, None));
    assert!(world.durable.last_words.iter().all(|job| job.state == JobState::Succeeded));
    assert_eq!(visible(&world), world.gmail.messages.len(), "what arrived in two weeks, and not in the last day alone");
    let gap = world.durable.discovered.iter().filter(|(_, origin)| *origin == Origin::Gap).count();
    assert!(gap > 0, "the older part came as a gap");
    world.gmail.deliver(world.now, Kind::Mail, 0, 0);
    world.sync(false);
    assert!(matches!(world.calls[0].request, Request::History { .. }));
    world.drain();
    world.commit();
    assert_eq!(world.durable.discovered.last().unwrap().1, Origin::Live);
    world.settle();
    world.check().unwrap();
}

/// A window of the last 24 hours alone would lose what came in a longer outage.
#[test]
fn an_outage_of_days_owes_more_than_24_hours() {
    let mut world = behind_by(1);
    for _ in 0..5 {
        world.gmail.deliver(world.now, Kind::Mail, 0, 0);
        world.now += DAY;
    }
    world.gmail.floor = world.gmail.head;
    world.settle();
    world.check().unwrap();
}

/// The answer of a walk that is no more changes nothing, however late it comes.
#[test]
fn two_walks_of_one_mailbox_do_not_interleave() {
    let mut world = behind_by(4);
    world.sync(false);
    let late = world.calls[0].clone();
    world.cancel(Trigger::Api);
    world.calls.clear();
    world.sync(false);
    world.drain();
    world.commit();
    let cursor = world.mailbox.cursor();
    world.calls.push(late);
    world.answer(0, Fault::None);
    world.commit();
    assert_eq!(world.mailbox.cursor(), cursor);
    assert!(world.calls.is_empty());
    world.settle();
    world.check().unwrap();
}

#[test]
fn a_watch_does_not_lapse_unnoticed() {
    let mut world = World::new(RULES);
    world.sync(false);
    world.drain();
    world.watch_refused = Some("Gmail.Forbidden");
    for _ in 0..16 {
        world.pass(DAY / 2);
        world.sync(false);
        world.drain();
        world.commit();
    }
    let refused = |alarm: &Alarm| matches!(alarm, Alarm::WatchRefused { code, .. } if code == "Gmail.Forbidden");
    assert!(world.durable.alarms.iter().any(refused));
    assert!(world.durable.alarms.contains(&Alarm::WatchLapsed));
    let told = world.durable.connection.clone().unwrap();
    assert_eq!((told.status, told.code.as_deref()), (ConnectionState::Active, Some("Gmail.Forbidden")));
    assert!(told.watch_expires_at.unwrap().as_millis() < world.now);
    assert!(world.durable.last_words.iter().all(|job| job.state == JobState::Succeeded), "no sync fails for it");
    world.watch_refused = None;
    world.pass(DAY);
    world.sync(false);
    world.drain();
    world.commit();
    let told = world.durable.connection.clone().unwrap();
    assert!(told.code.is_none() && told.watch_expires_at.unwrap().as_millis() > world.now + 6 * DAY);
}

/// When Gmail says how long to wait, a restart does not shorten it.
#[test]
fn a_wait_survives_a_crash() {
    let mut world = behind_by(2);
    world.sync(false);
    world.answer(0, Fault::Throttled);
    world.commit();
    let until = world.mailbox.wake_at();
    world.crash();
    assert_eq!(world.mailbox.wake_at(), until);
    assert!(world.calls.is_empty(), "it is not asked sooner");
    world.pass(until.unwrap().as_millis() - world.now);
    assert_eq!(world.calls.len(), 1);
}

/// Pages without records lead on to those with some; tokens that go round in a circle do not hold a walk for ever.
#[test]
fn empty_pages_lead_on_and_circles_of_tokens_end() {
    let mut world = behind_by(4);
    world.gmail.empty_pages = 5;
    world.sync(false);
    world.drain();
    world.commit();
    assert_eq!(world.durable.discovered.len(), 4);
    let before = world.answered;
    world.gmail.empty_pages = 0;
    world.gmail.deliver(world.now, Kind::Mail, 0, 0);
    world.gmail.is_circling = true;
    world.sync(false);
    world.drain();
    world.commit();
    assert!(world.answered - before < 200, "{} calls", world.answered - before);
    assert_eq!(world.durable.discovered.len(), 5, "it was listed instead");
    world.gmail.is_circling = false;
    world.settle();
    world.check().unwrap();
}

/// A backfill has its own calls and its own progress: it resumes at any page, ends at any, and nothing waits for it.
#[test]
fn a_backfill_resumes_at_any_page_and_delays_nothing() {
    let mut world = behind_by(0);
    for _ in 0..40 {
        world.gmail.deliver(world.now, Kind::Mail, 0, 0);
        world.now += 300_000;
    }
    let cursor = world.mailbox.cursor();
    world.backfill(4);
    world.commit();
    for number in 0..500 {
        if world.mailbox.jobs().is_empty() {
            break;
        }
        world.answer(0, Fault::None);
        world.commit();
        // A slice takes two pages; a cut after every third meets both.
        if number % 3 == 0 {
            world.crash();
        }
    }
    assert!(world.mailbox.jobs().is_empty(), "it never ends");
    // The edge of a slice may be named twice after a cut, under the same event id.
    let backfilled = world.durable.discovered.iter().filter(|(_, origin)| *origin == Origin::Backfill);
    assert_eq!(backfilled.map(|(id, _)| id).collect::<HashSet<_>>().len(), 40);
    assert_eq!(world.mailbox.cursor(), cursor, "a backfill never moves the cursor");
    // A sync beside it asks at once, in a lane of its own.
    world.backfill(4);
    world.sync(false);
    let lanes: Vec<_> = world.calls.iter().map(|call| call.lane).collect();
    assert_eq!(lanes, [crate::Lane::Backfill, crate::Lane::Live]);
    world.answer(1, Fault::None);
    for _ in 0..20 {
        if let Some(index) = world.calls.iter().position(|call| call.lane == crate::Lane::Live) {
            world.answer(index, Fault::None);
        }
    }
    world.commit();
    let synced = world.durable.last_words.last().unwrap();
    assert_eq!(
        (synced.trigger, synced.state),
        (Trigger::Api, JobState::Succeeded),
        "though the backfill is at its start"
    );
    world.cancel(Trigger::Backfill);
    world.commit();
    assert_eq!(world.durable.last_words.last().unwrap().state, JobState::Cancelled);
    world.calls.clear();
    assert!(world.mailbox.jobs().is_empty());
    world.settle();
    world.check().unwrap();
}

/// A slice of time that cannot be made shorter may hold any number of messages: what is kept of them is ids.
#[test]
fn a_second_with_thousands_of_messages_is_listed_in_bounded_memory() {
    const N: u32 = 3_000;
    let mut world = World::new(Rules { page_size: 100, watch: None, ..RULES });
    for _ in 0..N {
        world.gmail.deliver(world.now, Kind::Mail, 0, 0);
    }
    world.pass(60_000);
    world.sync(false);
    for _ in 0..10_000 {
        if world.calls.is_empty() {
            break;
        }
        world.answer(0, Fault::None);
        for listing in &world.mailbox.windows {
            let kept = listing.slice.as_ref().map_or(0, |slice| slice.messages.len());
            assert!(kept <= 100, "{kept} messages are kept at a time");
        }
    }
    world.commit();
    assert_eq!(world.durable.discovered.len(), N as usize);
    world.settle();
    world.check().unwrap();
}
