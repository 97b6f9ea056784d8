//! Messages read in batches from the simulator.

use std::time::Duration;

use domain::mailbox::reply::CallError;
use domain::{Lane, MessageId, TokenVersion};
use gmail::{Read, Reading, View};
use simulator::{Delivery, Fault, Limits, Mails, Refusal, Tariff};
use tokio::time::Instant;

use crate::gmail::{EMAIL, World};

const MAIL: &[u8] = b"From: Supplier <ap@supplier.example>\r\nTo: payable@example.com\r\nSubject: Invoice 7\r\n\
    Message-ID: <7@supplier.example>\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n\
    --b\r\nContent-Type: multipart/alternative; boundary=c\r\n\r\n\
    --c\r\nContent-Type: text/plain\r\n\r\nHello\r\n--c\r\nContent-Type: text/html\r\n\r\n<p>Hello</p>\r\n--c--\r\n\
    --b\r\nContent-Type: application/pdf; name=\"invoice.pdf\"\r\nContent-Disposition: attachment; \
    filename=\"invoice.pdf\"\r\nContent-Transfer-Encoding: base64\r\n\r\nJVBERi0xLjQK\r\n--b--\r\n";

impl World {
    fn delivered(&self, mails: Mails) -> Vec<MessageId> {
        let delivered = self.simulator.control().deliver(EMAIL, mails, &Delivery::default()).unwrap();
        delivered.iter().map(|truth| MessageId::new(&truth.id)).collect()
    }

    async fn read(&self, ids: &[MessageId], view: View) -> Read {
        let deadline = Instant::now() + Duration::from_secs(60);
        let reading = Reading { lane: Lane::Fetch, view, deadline, token_version: TokenVersion(1) };
        self.client.get_messages(self.mailbox, ids, &reading).await
    }

    fn spent(&self) -> u64 {
        self.simulator.control().usage().total.units
    }
}

fn ids(read: &Read) -> Vec<MessageId> {
    read.messages.iter().map(|message| message.as_ref().unwrap().id.clone()).collect()
}

#[tokio::test]
async fn messages_come_whole_in_their_order_and_cost_what_they_say() {
    let world = World::new().await;
    let mut asked = world.delivered(Mails::Synthetic(59));
    asked.extend(world.delivered(Mails::Raw(MAIL.to_vec())));
    let read = world.read(&asked, View::Full).await;
    assert_eq!(ids(&read), asked);
    assert_eq!((u64::from(read.units), read.units), (world.spent(), 1_200));
    assert!(read.date.is_some());
    let invoice = read.messages[59].as_ref().unwrap();
    assert_eq!(invoice.payload.header("subject"), Some("Invoice 7"));
    let parts: Vec<_> =
        invoice.payload.walk().map(|part| (part.part_id.as_str(), part.mime_type.as_str(), part.size)).collect();
    let expected = [
        ("", "multipart/mixed", 0),
        ("0", "multipart/alternative", 0),
        ("0.0", "text/plain", 5),
        ("0.1", "text/html", 12),
        ("1", "application/pdf", 9),
    ];
    assert_eq!(parts, expected);
    let attachment = &invoice.payload.parts[1];
    assert_eq!(attachment.filename, "invoice.pdf");
    assert!(attachment.attachment_id.is_some() && attachment.header("Content-Disposition").is_some());
    let headers = world.read(&asked[59..], View::Headers).await;
    let headers = headers.messages[0].as_ref().unwrap();
    assert_eq!((headers.payload.header("Subject"), headers.payload.parts.len()), (Some("Invoice 7"), 0));
}

#[tokio::test]
async fn what_is_gone_is_told_and_the_others_are_read() {
    let world = World::new().await;
    let mut asked = world.delivered(Mails::Synthetic(3));
    let gone = asked[1].to_string();
    world.simulator.control().delete(EMAIL, &[&gone]).unwrap();
    asked.push(MessageId::new("not hex"));
    let read = world.read(&asked, View::Full).await;
    assert!(read.messages[0].is_ok() && read.messages[2].is_ok());
    assert_eq!(read.messages[1].as_ref().unwrap_err(), &CallError::NotFound);
    assert!(matches!(&read.messages[3], Err(CallError::Permanent { code, .. }) if code == "Gmail.InvalidRequest"));
}

#[tokio::test]
async fn a_missing_part_and_a_stale_token_are_made_good_within_the_call() {
    let world = World::new().await;
    let asked = world.delivered(Mails::Synthetic(30));
    // However few a batch is of: a message that three answers leave out is given up.
    world.go_wrong(&["getMessage"], 2, Fault::Lost);
    assert_eq!(ids(&world.read(&asked, View::Full).await), asked);
    world.simulator.control().expire_access_tokens(EMAIL).unwrap();
    assert_eq!(ids(&world.read(&asked, View::Full).await), asked);
    assert_eq!(world.simulator.control().usage().token_requests, 2);
    // In the middle of a batch, too: one part is refused, its neighbours are not.
    world.go_wrong(&["getMessage"], 1, Fault::Error(Refusal::Unauthorized));
    assert_eq!(ids(&world.read(&asked, View::Full).await), asked);
    assert_eq!(world.simulator.control().usage().token_requests, 3);
}

#[tokio::test]
async fn accidents_of_a_batch_pass_and_the_next_one_is_well() {
    let world = World::new().await;
    let asked = world.delivered(Mails::Synthetic(5));
    for fault in [Fault::Html(502), Fault::Html(200), Fault::Reset, Fault::Truncate(0.5)] {
        world.go_wrong(&["batch"], 1, fault.clone());
        let read = world.read(&asked, View::Full).await;
        for message in &read.messages {
            assert!(matches!(message, Err(CallError::Transient { .. })), "{fault:?} gave {message:?}");
        }
        assert_eq!(ids(&world.read(&asked, View::Full).await), asked);
    }
    for fault in [Fault::Truncate(0.5), Fault::Malformed, Fault::Html(502), Fault::Error(Refusal::Backend(500))] {
        world.go_wrong(&["getMessage"], 1, fault.clone());
        let read = world.read(&asked, View::Full).await;
        let failed = read.messages.iter().filter(|message| matches!(message, Err(CallError::Transient { .. })));
        let well = read.messages.iter().filter(|message| message.is_ok()).count();
        // A part that breaks off is left out of the answer, and asked for again.
        let expected = usize::from(!matches!(fault, Fault::Truncate(_)));
        assert_eq!((failed.count(), well), (expected, 5 - expected), "{fault:?}");
    }
}

#[tokio::test]
async fn a_mailbox_that_takes_few_at_a_time_is_read_all_the_same() {
    let world = World::new().await;
    let asked = world.delivered(Mails::Synthetic(40));
    let limits = Limits { concurrent_per_user: 6, ..Tariff::default().limits() };
    world.simulator.control().set_tariff(Tariff::default(), limits);
    let mut left = asked.clone();
    let mut rounds = 0;
    while !left.is_empty() {
        let read = world.read(&left, View::Full).await;
        let mut still = Vec::new();
        for (id, message) in left.iter().zip(&read.messages) {
            match message {
                Ok(message) => assert_eq!(&message.id, id),
                Err(CallError::Throttled { .. }) => still.push(id.clone()),
                Err(other) => panic!("{other:?}"),
            }
        }
        left = still;
        rounds += 1;
        assert!(rounds < 40, "the batches never became small enough");
    }
}
