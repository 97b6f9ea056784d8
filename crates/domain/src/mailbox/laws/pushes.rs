//! Pushes, and the watch that brings them.

use super::gmail::Kind;
use super::model::{Fault, RULES, World};
use crate::job::{JobState, Trigger};
use crate::mailbox::reply::Request;
use crate::mailbox::{Alarm, Rules, code};

const HOUR: i64 = 3_600_000;

fn settled(rules: Rules) -> World {
    let mut world = World::new(rules);
    world.sync(false);
    world.drain();
    world.pass(2 * HOUR);
    world.sync(false);
    world.drain();
    world.commit();
    world
}

/// A thousand pushes at once are two walks and one a little later, and every job of theirs ends.
#[test]
fn a_burst_of_pushes_is_a_few_walks_and_every_job_ends() {
    let mut world = settled(Rules { waiting: 1_000, ..RULES });
    let (answered, ended) = (world.answered, world.durable.last_words.len());
    for _ in 0..1_000 {
        world.push();
        assert!(world.mailbox.jobs().len() <= 2, "pushes do not fill the mailbox");
    }
    world.drain();
    world.commit();
    assert!(world.answered - answered <= 3, "{} walks", world.answered - answered);
    let ended = &world.durable.last_words[ended..];
    assert_eq!(ended.iter().filter(|job| job.trigger == Trigger::Push).count(), 1_000);
    let coalesced = |state, code: Option<&str>| state == JobState::Cancelled && code == Some(code::COALESCED);
    let walked = ended.iter().filter(|job| job.state == JobState::Succeeded).count();
    assert_eq!(walked, 2);
    assert!(ended.iter().all(|job| job.state == JobState::Succeeded || coalesced(job.state, job.code.as_deref())));
    world.settle();
    world.check().unwrap();
}

/// Gmail pushes before the record can be read: the mailbox looks once more of its own accord, also after a crash.
#[test]
fn a_push_is_walked_once_more_a_little_later_even_after_a_crash() {
    let mut world = settled(RULES);
    world.gmail.deliver(world.now, Kind::Mail, 8_000, 0);
    world.push();
    world.answer(0, Fault::None);
    world.commit();
    assert_eq!((world.mailbox.jobs().len(), world.durable.discovered.len()), (0, 0), "it cannot be read yet");
    world.crash();
    let at = world.mailbox.wake_at().unwrap().as_millis();
    assert!((10_000..=20_000).contains(&(at - world.now)));
    world.pass(at - world.now);
    world.commit();
    world.crash();
    assert!(matches!(world.calls[0].request, Request::History { .. }), "the walk under way is taken up again");
    world.answer(0, Fault::None);
    world.commit();
    assert_eq!(world.durable.discovered.len(), 1);
    assert!(world.mailbox.is_idle());
}

/// A watched mailbox whose pushes are lost is noticed when mail turns up without them, and polled until they are back.
#[test]
fn pushes_that_stop_coming_are_noticed_and_made_up_for() {
    let mut world = settled(RULES);
    world.loses_pushes = true;
    world.pass(30 * HOUR);
    world.gmail.deliver(world.now, Kind::Mail, 0, 0);
    world.sync(false);
    while let Some(call) = world.calls.first().cloned() {
        assert!(!matches!(call.request, Request::List { .. }));
        world.answer(0, Fault::None);
    }
    world.commit();
    assert!(world.durable.alarms.is_empty(), "a push may still be on its way");
    let mut polls = 0;
    for _ in 0..6 {
        let at = world.mailbox.wake_at().unwrap().as_millis();
        world.gmail.deliver(world.now, Kind::Mail, 0, 0);
        world.pass(at - world.now);
        while !world.calls.is_empty() {
            polls += u32::from(matches!(world.calls[0].request, Request::History { .. }));
            world.answer(0, Fault::None);
        }
        world.commit();
    }
    assert!(world.durable.alarms.iter().filter(|alarm| **alarm == Alarm::PushesMissing).count() >= 5);
    assert!(polls >= 6, "nobody asked, and it was polled");
    assert_eq!(world.durable.discovered.len(), 7 - 1 + 1);
    world.loses_pushes = false;
    world.push();
    world.drain();
    world.commit();
    assert!(world.mailbox.is_idle(), "it rests again once a push has come");
}

/// A push for each mail, and nothing is amiss.
#[test]
fn a_mailbox_whose_pushes_come_raises_no_alarm() {
    let mut world = settled(RULES);
    for hour in 0..60 {
        world.pass(HOUR);
        world.gmail.deliver(world.now, Kind::Mail, 0, 0);
        // The schedule is first now and then.
        if hour % 12 == 0 {
            world.sync(false);
            while !world.calls.is_empty() {
                world.answer(0, Fault::None);
            }
            world.pass(4_000);
        }
        world.push();
        world.drain();
    }
    world.commit();
    assert!(world.durable.alarms.is_empty(), "{:?}", world.durable.alarms);
}

/// Watched once a day, with syncs that run anyway: no timer keeps a quiet mailbox awake.
#[test]
fn a_watch_is_renewed_daily_and_no_timer_waits_for_it() {
    let mut world = settled(RULES);
    let mut watches = 0;
    for _ in 0..20 {
        assert!(world.mailbox.is_idle());
        world.pass(12 * HOUR);
        world.sync(false);
        while !world.calls.is_empty() {
            watches += u32::from(world.calls[0].request == Request::Watch);
            world.answer(0, Fault::None);
        }
        world.drain();
        world.commit();
    }
    assert!((9..=11).contains(&watches), "{watches} renewals in ten days");
}
