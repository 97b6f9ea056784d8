//! A process that has taken up a registry's ids. In a test binary of its own: ids are taken up once for all of a process.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use domain::GmailMessageDiscovered;
use domain::mailbox::record::MailboxState;
use events::{AdoptError, Error, Record, Registry, adopt, decode, encode, examples, frame_id, published, written_id};

#[test]
fn frames_go_under_the_registrys_ids_and_are_read_under_both() {
    let registry = Registry::built_in();
    let (event, state) = (examples::from_history(), examples::busy_mailbox());
    let before = encode(&event);
    let of = |record| registry.written(record);
    let (events_id, state_id) = (of(Record::GmailMessageDiscovered).id, of(Record::MailboxState).id);
    assert_eq!(frame_id(&before), Some(events_id));

    // As a registry gives them that has other subjects, too.
    let theirs: BTreeMap<u32, u32> = registry.all().zip((40..).step_by(3)).map(|(it, id)| (it.id, id)).collect();
    adopt(&theirs).unwrap();
    let after = encode(&event);
    assert_eq!(frame_id(&after), Some(theirs[&events_id]));
    assert_eq!(written_id(of(Record::GmailMessageDiscovered)), theirs[&events_id]);
    assert_eq!(after[5..], before[5..], "the datum is the same");
    for frame in [&before, &after] {
        assert_eq!(decode::<GmailMessageDiscovered>(frame).unwrap(), event);
    }

    // The pipeline's memory is written as ever, and read under the registry's id all the same.
    let ours = encode(&state);
    assert_eq!(frame_id(&ours), Some(state_id));
    let by_the_registry = [&[0], &theirs[&state_id].to_be_bytes()[..], &ours[5..]].concat();
    assert_eq!(decode::<MailboxState>(&by_the_registry).unwrap(), state);

    for (own, id) in &theirs {
        for id in [own, id] {
            assert_eq!(published(*id).unwrap().id, *own);
        }
    }
    assert!(matches!(decode::<MailboxState>(&[0, 0, 0, 0, 7]), Err(Error::UnknownSchema { id: 7 })));
    adopt(&theirs).unwrap();
    assert_eq!(adopt(&BTreeMap::new()), Err(AdoptError::Twice));
}
