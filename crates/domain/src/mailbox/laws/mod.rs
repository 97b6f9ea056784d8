//! The laws of the mailbox, tried against a model of Gmail and of crashes.

mod faults;
mod gmail;
mod graves;
mod huge;
mod model;
mod pushes;
mod unread;

use proptest::prelude::*;

use super::{Duration, Rules};
use gmail::Kind;
use model::{Fault, RULES, World, step};

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    /// Any split into pages, any crash, any order of answers, any fault: each message once, none lost, every job ends
    /// once, the cursor never goes back.
    #[test]
    fn each_once_none_lost_jobs_end_and_the_cursor_never_goes_back(steps in prop::collection::vec(step(), 1..160)) {
        let mut world = World::new(RULES);
        for step in &steps {
            world.step(step);
        }
        world.settle();
        world.check()?;
    }
}

/// A message that becomes visible below a head that was seen already.
fn late_record(rules: Rules) -> World {
    let mut world = World::new(Rules { watch: None, ..rules });
    world.sync(false);
    world.drain();
    world.pass(3_600_000);
    world.gmail.deliver(world.now, Kind::Mail, 20_000, 20_000);
    world.gmail.deliver(world.now, Kind::Mail, 0, 0);
    // Two walks while it is still invisible: the second one would vouch for the first.
    for _ in 0..2 {
        world.sync(false);
        world.drain();
    }
    world.settle();
    world
}

#[test]
fn a_record_that_becomes_visible_late_is_announced() {
    late_record(RULES).check().unwrap();
}

/// The laws can fail: this is the machine without one of its protections.
#[test]
fn without_the_lag_it_would_be_lost() {
    let lost = late_record(Rules { lag: Duration::ZERO, ..RULES }).check();
    assert!(lost.unwrap_err().to_string().contains("is lost"));
}

/// The lag makes walks read records again; only the memory of ids keeps them from being announced again.
#[test]
fn without_memory_a_message_would_come_twice() {
    let run = |rules| {
        let mut world = World::new(rules);
        world.sync(false);
        world.drain();
        world.gmail.deliver(world.now, Kind::Mail, 0, 0);
        for _ in 0..3 {
            world.pass(60_000);
            world.sync(false);
            world.drain();
            world.commit();
            if rules.page_size == 1 {
                world.mailbox.forget_what_was_seen();
            }
        }
        world.check()
    };
    run(RULES).unwrap();
    assert!(run(Rules { page_size: 1, ..RULES }).unwrap_err().to_string().contains("came twice"));
}

#[test]
fn a_thousand_waiting_jobs_are_the_most() {
    let mut world = World::new(Rules { waiting: 3, ..RULES });
    for _ in 0..5 {
        world.sync(false);
    }
    world.commit();
    let refused = world.durable.ended.len();
    assert_eq!((world.mailbox.jobs().len(), refused), (3, 2));
}

/// One answer serves all jobs that were taken in before its first page was asked for, and none that came later.
#[test]
fn a_job_is_answered_only_by_pages_asked_for_after_it() {
    let mut world = World::new(RULES);
    world.sync(false);
    world.drain();
    world.pass(60_000);
    world.sync(false);
    assert_eq!(world.calls.len(), 1, "the walk has begun");
    world.sync(false);
    world.sync(false);
    assert_eq!(world.calls.len(), 1, "the others wait for the next walk");
    world.answer(0, Fault::None);
    world.commit();
    assert_eq!(world.mailbox.jobs().len(), 2);
    assert_eq!(world.calls.len(), 1, "one walk for both");
    world.answer(0, Fault::None);
    world.commit();
    assert!(world.mailbox.jobs().is_empty());
    world.check().unwrap();
}

/// The memory of ids is kept in chunks of at most 64 KB, written once, and tombstoned when its time is past.
#[test]
fn memory_is_kept_in_bounded_chunks_and_let_go() {
    let mut world = World::new(Rules { page_size: 500, ..RULES });
    world.sync(false);
    world.drain();
    for _ in 0..5_000 {
        world.gmail.deliver(world.now, Kind::Mail, 0, 0);
    }
    world.sync(false);
    world.drain();
    world.commit();
    assert!(world.durable.chunks.len() >= 2, "the tail was sealed");
    let state = world.durable.state.clone().unwrap();
    assert!(state.seen.ids.len() < 64_000, "what is left in the state is short");
    world.crash();
    for _ in 0..4 {
        world.pass(13 * 3_600_000);
        world.sync(false);
        world.drain();
        world.commit();
    }
    assert!(world.durable.chunks.is_empty(), "nothing is remembered for ever");
    world.check().unwrap();
}
