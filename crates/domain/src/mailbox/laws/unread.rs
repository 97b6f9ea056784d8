//! What cannot be read: told from a Gmail that is away, named, owed, and passed.

use super::gmail::Kind;
use super::model::{Fault, RULES, World};
use crate::event::Origin;
use crate::job::JobState;
use crate::mailbox::record::Purpose;
use crate::mailbox::{Place, Rules, code};

const WIDE: Rules = Rules { page_size: 64, watch: None, ..RULES };

fn behind_by(n: u32) -> World {
    let mut world = World::new(WIDE);
    world.sync(false);
    world.drain();
    world.pass(3_600_000);
    for _ in 0..n {
        world.gmail.deliver(world.now, Kind::Mail, 0, 0);
        world.now += 1_000;
    }
    world.commit();
    world
}

/// One record of 200 cannot be read: the pages are halved down to it, it is named, its time is listed, the job says so
/// and succeeds, and the next walk is an ordinary one.
#[test]
fn a_record_that_cannot_be_read_is_named_and_passed() {
    let mut world = behind_by(200);
    world.gmail.messages[150].poison.0 = true;
    world.sync(false);
    world.drain();
    world.commit();
    let before = world.gmail.records[149].id;
    match world.durable.dead.as_slice() {
        [Place::History { after, owed }] => {
            assert_eq!(after.get(), before);
            assert!(owed.until.as_millis() >= world.gmail.messages[199].arrived);
        }
        other => panic!("{other:?}"),
    }
    let job = world.durable.last_words.last().unwrap();
    assert_eq!((job.state, job.code.as_deref()), (JobState::Succeeded, Some(code::DEAD_LETTERED)));
    assert_eq!(job.progress.dead_lettered, 1);
    assert_eq!(world.durable.discovered.len(), 200);
    let live = world.durable.discovered.iter().filter(|(_, origin)| *origin == Origin::Live).count();
    assert_eq!(live, 150, "what could be read was announced by history");
    world.settle();
    world.check().unwrap();
}

/// Three attempts, halves with one each, three for the last record: it does not take a hundred calls.
#[test]
fn finding_what_cannot_be_read_costs_few_calls() {
    let mut world = behind_by(64);
    world.gmail.messages[40].poison.0 = true;
    let before = world.answered;
    world.sync(false);
    while world.durable.dead.is_empty() {
        if world.calls.is_empty() {
            let at = world.mailbox.wake_at().unwrap().as_millis();
            world.pass(at - world.now);
        }
        world.answer(0, Fault::None);
        world.commit();
    }
    assert!(world.answered - before < 70, "{} calls", world.answered - before);
}

/// A page that got smaller grows back once what failed is behind it.
#[test]
fn pages_grow_back_after_a_page_that_failed_for_itself() {
    let mut world = behind_by(300);
    world.sync(false);
    for _ in 0..3 {
        world.answer(0, Fault::Broken);
        if world.calls.is_empty() {
            let at = world.mailbox.wake_at().unwrap().as_millis();
            world.pass((at - world.now).max(0));
        }
    }
    world.commit();
    let size = |world: &World| world.durable.state.as_ref().unwrap().live.map(|live| live.page_size);
    assert_eq!(size(&world), Some(32));
    for _ in 0..4 {
        world.answer(0, Fault::None);
    }
    world.commit();
    assert_eq!(size(&world), Some(64));
    world.drain();
    world.commit();
    assert!(world.durable.dead.is_empty());
    assert_eq!(world.durable.discovered.len(), 300);
    world.settle();
    world.check().unwrap();
}

/// A page that ends the process whenever it is read is counted before it is tried, and got past at last.
#[test]
fn a_page_that_ends_the_process_is_got_past() {
    let mut world = behind_by(10);
    world.gmail.messages[5].poison.0 = true;
    world.sync(false);
    for _ in 0..300 {
        world.commit();
        match world.calls.first() {
            None => {
                let Some(at) = world.mailbox.wake_at() else { break };
                world.pass((at.as_millis() - world.now).max(0));
            }
            Some(call) if world.gmail.would_fail(world.now, &call.request) => world.crash(),
            Some(_) => world.answer(0, Fault::None),
        }
    }
    world.commit();
    assert_eq!(world.durable.dead.len(), 1);
    assert_eq!(world.durable.discovered.len(), 10);
    world.settle();
    world.check().unwrap();
}

/// A slice that cannot be listed stays owed to the audit, in the state, until an audit has listed it.
#[test]
fn a_slice_that_cannot_be_listed_is_owed_until_an_audit_has_listed_it() {
    let mut world = behind_by(20);
    world.gmail.messages[7].poison.1 = true;
    world.gmail.floor = world.gmail.head;
    world.sync(false);
    world.drain();
    world.commit();
    let owed = |world: &World| {
        let state = world.durable.state.as_ref().unwrap();
        state.windows.iter().filter(|walk| walk.purpose == Purpose::Unread).count()
    };
    assert!(matches!(world.durable.dead.as_slice(), [Place::Listing { .. }, ..]), "{:?}", world.durable.dead);
    let job = world.durable.last_words.last().unwrap();
    assert_eq!((job.state, job.code.as_deref()), (JobState::Succeeded, Some(code::DEAD_LETTERED)));
    let named = world.durable.dead.len();
    assert!(owed(&world) > 0 && world.mailbox.is_idle(), "it keeps no timer");
    // An audit that cannot read it either owes it still, and writes no second letter.
    for _ in 0..3 {
        world.pass(86_400_000);
        world.audit();
        world.drain();
        world.commit();
        assert!(owed(&world) > 0);
        assert_eq!(world.durable.dead.len(), named);
    }
    world.heal();
    world.audit();
    world.drain();
    world.commit();
    assert_eq!(owed(&world), 0);
    let audited = world.durable.discovered.iter().filter(|(_, origin)| *origin == Origin::Audit).count();
    assert!(audited > 0);
    world.settle();
    world.check().unwrap();
}

/// Spam, trash, drafts, what was freed, and what arrived a moment ago: none of it was missed.
#[test]
fn an_audit_of_a_healthy_mailbox_finds_nothing() {
    let mut world = World::new(WIDE);
    world.gmail.deliver(world.now - 30 * 3_600_000, Kind::Mail, 0, 0);
    world.sync(false);
    world.drain();
    for hour in 0..60 {
        world.pass(3_600_000);
        for kind in [Kind::Mail, Kind::Spam, Kind::Draft, Kind::Mail] {
            world.gmail.deliver(world.now, kind, 2_000, 3_000);
        }
        if hour % 7 == 0 {
            world.gmail.rescue(world.now);
        }
        if hour % 12 == 0 {
            world.sync(false);
            world.drain();
        }
        if hour % 24 == 23 {
            world.audit();
            world.drain();
        }
    }
    world.commit();
    let audits = world.durable.last_words.iter().filter(|job| job.trigger == crate::Trigger::Audit);
    let (mut n, mut seen) = (0, 0);
    for audit in audits {
        assert_eq!((audit.state, audit.progress.discovered), (JobState::Succeeded, 0));
        n += 1;
        seen += audit.progress.records_seen;
    }
    assert!(n == 2 && seen > 100, "{n} audits saw {seen}");
    world.settle();
    world.check().unwrap();
}

/// The audit can fail: what a walk forgot to announce, it finds, once.
#[test]
fn an_audit_finds_what_was_missed_and_only_once() {
    let mut world = behind_by(10);
    // A record that becomes visible an hour late, far beyond the lag that walks allow for.
    world.gmail.deliver(world.now, Kind::Mail, 3_600_000_000, 0);
    for _ in 0..4 {
        world.pass(12 * 3_600_000 / 2);
        world.sync(false);
        world.drain();
    }
    world.audit();
    world.drain();
    world.commit();
    let found = |world: &World| world.durable.discovered.iter().filter(|(_, it)| *it == Origin::Audit).count();
    assert_eq!(found(&world), 1);
    assert_eq!(world.durable.last_words.last().unwrap().progress.discovered, 1);
    world.pass(3_600_000);
    world.audit();
    world.drain();
    world.commit();
    assert_eq!(found(&world), 1, "the next audit does not miss it again");
}
