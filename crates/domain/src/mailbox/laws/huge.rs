//! A mailbox so large that what is kept of it matters.

use super::gmail::page_of;
use crate::command::PollGmailConnection;
use crate::id::{HistoryId, MessageId};
use crate::mailbox::reply::*;
use crate::mailbox::*;
use uuid::Uuid;

/// 2,000,000 ids that no walk has read: walked in pages of 500, 16 bytes an id and little more are remembered of them,
/// and no state record is longer than what a page adds to a tail that is about to be sealed.
#[test]
fn a_huge_mailbox_is_walked_in_bounded_memory() {
    let n = 2_000_000;
    let connection = ConnectionId::from_uuid(Uuid::from_u128(1));
    let organisation = OrganisationId::from_uuid(Uuid::from_u128(2));
    let mut mailbox = Mailbox::new(connection, organisation);
    let mut now = Timestamp::from_millis(1_800_000_000_000);
    let poll = PollGmailConnection {
        job_id: JobId::from_uuid(Uuid::from_u128(3)),
        organisation_id: organisation,
        connection_id: connection,
        trigger: crate::Trigger::Api,
        window: None,
        token_version: TokenVersion(1),
        requested_at: now,
        deadline: now + Duration::from_days(1),
    };
    let again = PollGmailConnection { job_id: JobId::from_uuid(Uuid::from_u128(4)), ..poll.clone() };
    let (mut found, mut longest, mut calls) = (0_u64, 0, Vec::new());
    let mut inputs = vec![Input::Command(Command::Poll(poll), None)];
    let mut next = Some(Input::Command(Command::Poll(again), None));
    let mut out = Vec::new();
    while let Some(input) = inputs.pop() {
        now = now + Duration::from_millis(100);
        let cx = Context { now, jitter: 0, rules: &Rules::DEFAULT };
        mailbox.on(&cx, input, &mut out);
        for action in out.drain(..) {
            match action {
                Action::Call(call) => calls.push(call),
                Action::Discovered(..) => found += 1,
                Action::WriteChunk(chunk) => assert!(chunk.ids.len() <= 64_000, "no chunk is above 64 KB"),
                _ => {}
            }
        }
        let state = mailbox.state(1, 0);
        longest = longest.max(state.seen.ids.len() + state.seen.minutes.len());
        inputs.extend(calls.pop().map(|call: Call| {
            let reply = match call.request {
                Request::Profile => Reply::Profile(Profile { head: HistoryId::new(1) }),
                Request::History { start, token, max } => Reply::History(page_of(n, start, token, max, message)),
                Request::List { .. } => Reply::List(ListPage::default()),
                Request::Watch | Request::Stop => Reply::Stopped,
            };
            let answer = Answer { result: Ok(reply), date: None, units: 2, token_version: TokenVersion(1) };
            Input::Answer(call.id, answer)
        }));
        if inputs.is_empty() && mailbox.jobs().is_empty() {
            inputs.extend(next.take());
        }
    }
    assert_eq!(found, n);
    assert!(longest <= 2 * 1_024 * 20, "{longest} bytes of ids in one state record");
    let per_id = mailbox.seen.sealed_bytes() as f64 / n as f64;
    assert!(per_id <= 17.0, "{per_id} bytes an id");
}

fn message(number: u64) -> MessageRef {
    let id = MessageId::from_u64((number << 20) + 7);
    MessageRef { id: id.clone(), thread_id: id, labels: Some(vec![Label::new("INBOX")]) }
}
