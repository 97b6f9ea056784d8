//! What is announced of real mail and of odd mail, read as the fetcher reads it.

use std::collections::BTreeMap;

use domain::GmailMessageFetched;
use mail_parser::MessageParser;
use simulator::{Delivery, Mails};

use crate::attachments::announced;
use crate::house::{House, Mailbox, gmail};
use crate::pipeline::{ODD, lists};

fn deliver(mailbox: &Mailbox, mails: &[Vec<u8>]) -> Vec<String> {
    let deliver = |mail: &Vec<u8>| {
        gmail().deliver(&mailbox.email, Mails::Raw(mail.clone()), &Delivery::default()).unwrap().remove(0).id
    };
    mails.iter().map(deliver).collect()
}

/// In the order of the ids.
async fn read(house: &House, mailbox: &Mailbox, mails: &[Vec<u8>]) -> Vec<GmailMessageFetched> {
    let ids = deliver(mailbox, mails);
    let events = announced(house, mailbox, &ids).await;
    let mut by_id: BTreeMap<String, _> =
        events.into_iter().map(|event| (event.message_id.to_string(), event)).collect();
    ids.iter().map(|id| by_id.remove(id).unwrap()).collect()
}

/// What makes a mail one mail: its id, sender and date, by a whole parse of its bytes.
fn told_apart_by(mail: &[u8]) -> Option<(String, String, i64)> {
    let parsed = MessageParser::default().parse(mail)?;
    let sender = parsed.from()?.iter().find_map(|it| it.address().filter(|address| address.contains('@')))?;
    let date = parsed.date().filter(|date| date.is_valid())?;
    Some((parsed.message_id()?.to_owned(), sender.to_ascii_lowercase(), date.to_timestamp()))
}

#[tokio::test(flavor = "multi_thread")]
async fn real_mail_and_odd_mail_are_told_as_they_are_and_copies_have_one_key() {
    let house = House::new("content").await;
    let mut mails = simulator::mbox(ODD);
    mails.extend(lists());
    let (mut events, mut copies) = (Vec::new(), Vec::new());
    // Mailboxes of so many can be read within a minute's quota.
    for (number, some) in mails.chunks(160).enumerate() {
        let one = house.mailbox(&format!("one{number}")).await;
        events.extend(read(&house, &one, some).await);
        // The same in another order, so that nothing but the mail decides.
        let other = house.mailbox(&format!("other{number}")).await;
        let turned: Vec<Vec<u8>> = some.iter().rev().cloned().collect();
        copies.extend(read(&house, &other, &turned).await.into_iter().rev());
    }
    let mut keys: BTreeMap<(String, String, i64), &str> = BTreeMap::new();
    let mut files = 0;
    for ((mail, event), copy) in mails.iter().zip(&events).zip(&copies) {
        let raw = String::from_utf8_lossy(&mail[..mail.len().min(600)]);
        assert_eq!(event.content_key, copy.content_key, "{raw}");
        assert_eq!((&event.subject, &event.truncated_fields), (&copy.subject, &Vec::new()), "{raw}");
        let frame = events::encode(event);
        assert!(events::decode::<GmailMessageFetched>(&frame).unwrap() == *event && frame.len() < 64 << 10, "{raw}");
        let known = told_apart_by(mail);
        assert_eq!(event.content_key.is_some(), known.is_some(), "{raw}");
        if let (Some(key), Some(known)) = (event.content_key.as_deref(), known) {
            let sender = event.from.iter().find_map(|it| it.address.as_deref()).unwrap();
            assert_eq!(sender.to_ascii_lowercase(), known.1, "{raw}");
            assert_eq!(event.internet_message_id.as_deref(), Some(known.0.as_str()), "{raw}");
            assert_eq!(event.date.map(|date| date.as_millis() / 1_000), Some(known.2), "{raw}");
            // One key for one mail, however often the mail is there.
            assert_eq!(*keys.entry(known).or_insert(key), key, "{raw}");
        }
        assert!(
            event
                .from
                .iter()
                .chain(&event.to)
                .chain(&event.cc)
                .all(|it| it.address.is_some() || it.raw.is_some() || it.name.is_some())
        );
        files += usize::from(!event.attachments.is_empty());
    }
    let mut all: Vec<&str> = keys.values().copied().collect();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), keys.len(), "two mails have one key");
    assert!(files > 0 && all.len() > 5, "{files} mails with files, {} keys", all.len());
}
