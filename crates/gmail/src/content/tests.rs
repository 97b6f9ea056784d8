use domain::{ConnectionId, EventId, MessageId, OrganisationId, Origin};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::message::{DEPTH, Header};

fn discovered() -> GmailMessageDiscovered {
    let connection = ConnectionId::from_uuid(Uuid::from_u128(2));
    let message = MessageId::from_u64(0x18d1);
    GmailMessageDiscovered {
        event_id: EventId::of(connection, &message),
        organisation_id: OrganisationId::from_uuid(Uuid::from_u128(1)),
        connection_id: connection,
        thread_id: message.clone(),
        message_id: message,
        label_ids: None,
        history_id: None,
        origin: Origin::Live,
        job_id: None,
        discovered_at: Timestamp::from_millis(1),
    }
}

fn headers(lines: &[(&str, &str)]) -> Vec<Header> {
    lines.iter().map(|(name, value)| Header { name: (*name).to_owned(), value: (*value).to_owned() }).collect()
}

fn part(part_id: &str, mime_type: &str, filename: &str, lines: &[(&str, &str)]) -> Part {
    Part {
        part_id: part_id.to_owned(),
        mime_type: mime_type.to_owned(),
        filename: filename.to_owned(),
        headers: headers(lines),
        size: 7,
        ..Part::default()
    }
}

fn message(payload: Part) -> Message {
    Message {
        id: MessageId::from_u64(0x18d1),
        thread_id: MessageId::from_u64(0x18d0),
        labels: vec![Label::new("INBOX")],
        history_id: None,
        internal_date: None,
        size_estimate: None,
        snippet: String::new(),
        payload,
    }
}

fn read(message: &Message) -> GmailMessageFetched {
    fetched(&discovered(), message, Timestamp::from_millis(2))
}

fn with_headers(lines: &[(&str, &str)]) -> GmailMessageFetched {
    read(&message(part("", "text/plain", "", lines)))
}

#[test]
fn the_headers_are_taken_and_decoded() {
    let event = with_headers(&[
        ("Authentication-Results", "mx.google.com; dkim=pass"),
        ("authentication-results", "elsewhere; spf=none"),
        ("From", "=?utf-8?Q?J=C3=BCrgen?= <jm@supplier.example>"),
        ("SUBJECT", "=?iso-8859-1?Q?Rechnung_f=FCr?= Februar"),
        ("Subject", "a second one"),
        ("Date", "Tue, 3 Feb 2026 05:05:01 +0100 (CET)"),
        ("Message-Id", "<4711@supplier.example>"),
        ("References", "<a@x> <b@\t y>"),
        ("In-Reply-To", "your mail of Monday <b@y>"),
        ("List-Id", "=?utf-8?Q?B=C3=BCcher?= <books.example.org>"),
        ("Precedence", "list"),
    ]);
    assert_eq!(event.subject.as_deref(), Some("Rechnung für Februar"));
    assert_eq!((event.subject_raw, event.date), (None, Some(Timestamp::from_millis(1_770_091_501_000))));
    assert_eq!(event.internet_message_id.as_deref(), Some("4711@supplier.example"));
    assert_eq!(
        (event.references, event.in_reply_to),
        (vec!["a@x".to_owned(), "b@y".to_owned()], vec!["b@y".to_owned()])
    );
    assert_eq!(event.list_id.as_deref(), Some("Bücher <books.example.org>"));
    assert_eq!(event.authentication_results, ["mx.google.com; dkim=pass", "elsewhere; spf=none"]);
    assert_eq!((event.precedence.as_deref(), event.auto_submitted), (Some("list"), None));
    assert_eq!(event.thread_id, MessageId::from_u64(0x18d0));
    assert!(event.content_key.is_some() && !event.gone && event.truncated_fields.is_empty());
}

#[test]
fn what_does_not_decode_has_its_raw_form_beside_it() {
    let event =
        with_headers(&[("Subject", "=?x-no-such?Q?=FF?= tail"), ("Date", "Thu, 99 Foo 20x6"), ("Message-ID", "no id")]);
    assert_eq!(event.subject_raw.as_deref(), Some("=?x-no-such?Q?=FF?= tail"));
    assert_eq!((event.date, event.date_raw.as_deref()), (None, Some("Thu, 99 Foo 20x6")));
    assert_eq!((event.internet_message_id, event.content_key), (None, None));
}

#[test]
fn dates_are_read_as_people_write_them() {
    let at = |text: &str| date(text).map(|at| at.as_millis() / 1_000);
    for text in [
        "Tue, 3 Feb 2026 05:05:01 +0100",
        "3 Feb 26 04:05:01 GMT",
        "Tue,  3 Feb 2026 04:05:01 -0000",
        "Mon, 02 Feb 2026 23:05:01 EST",
        "Tue, 3 Feb 2026 05:05:01 +0100 (MEZ)",
    ] {
        assert_eq!(at(text), Some(1_770_091_501), "{text}");
    }
    for text in ["", "yesterday", "Tue, 30 Foo 2026 00:00:00 +0000", "Tue, 3 Feb 99999 00:00:00 +0000x"] {
        assert!(at(text).is_none_or(|seconds| seconds > 0), "{text}");
    }
}

#[test]
fn a_snippet_is_plain_text() {
    let plain = |snippet: &str| without_escapes(snippet);
    assert_eq!(plain("a &lt;b&gt; &amp;amp; &#39;c&#x27; &quot;d&quot;"), "a <b> &amp; 'c' \"d\"");
    assert_eq!(plain("R&D & co; &unknown; &#xffffffff; &"), "R&D & co; &unknown; &#xffffffff; &");
}

/// A mail with a file of every kind.
fn with_files() -> Message {
    let inner = Part {
        parts: vec![
            part("2.0.0", "text/plain", "", &[]),
            part("2.0.1", "application/pdf", "forwarded.pdf", &[("Content-Disposition", "attachment")]),
        ],
        ..part("2.0", "multipart/mixed", "", &[("Subject", "inner")])
    };
    let related = Part {
        parts: vec![
            part("0.0", "text/html", "", &[("Content-ID", "<body@x>")]),
            part(
                "0.1",
                "image/PNG; name=x",
                "logo.png",
                &[("Content-ID", " <logo@x> "), ("Content-Disposition", "inline")],
            ),
            part("0.2", "image/gif", "", &[("Content-Id", "<dot@x>")]),
        ],
        ..part("0", "multipart/related", "", &[])
    };
    let attached = |id: &str, kind: &str, name: &str, disposition: &str| {
        part(id, kind, name, &[("Content-Disposition", disposition)])
    };
    message(Part {
        parts: vec![
            related,
            attached("1", "application/pdf", "invoice.pdf", "inline; filename=invoice.pdf"),
            Part { parts: vec![inner], ..part("2", "message/rfc822", "", &[]) },
            attached("3", "text/plain", "", "attachment"),
            attached("4", "text/calendar", "", "inline"),
            attached("5", "bad type", "=?utf-8?Q?=FF?=", "attachment; filename*=utf-8''%C3%BC.zip"),
            part(
                "6",
                "application/octet-stream",
                "\u{fffd}.pdf",
                &[
                    ("Content-Type", "x/y; name=\"=?x-no?Q?=EF?=.pdf\""),
                    ("Content-ID", "<6@x>"),
                    ("Content-Disposition", "ATTACHMENT"),
                ],
            ),
        ],
        ..part("", "multipart/mixed", "", &[])
    })
}

#[test]
fn every_file_is_listed_and_no_text_is() {
    let event = read(&with_files());
    let seen: Vec<_> = event
        .attachments
        .iter()
        .map(|it| {
            (it.part_id.as_str(), it.filename.as_deref(), it.mime_type.as_str(), it.inline, it.content_id.as_deref())
        })
        .collect();
    let expected = [
        ("0.1", Some("logo.png"), "image/png", true, Some("logo@x")),
        ("0.2", None, "image/gif", true, Some("dot@x")),
        ("1", Some("invoice.pdf"), "application/pdf", false, None),
        ("2", None, "message/rfc822", false, None),
        ("2.0.1", Some("forwarded.pdf"), "application/pdf", false, None),
        ("3", None, "text/plain", false, None),
        ("5", Some("ü.zip"), "application/octet-stream", false, None),
        ("6", Some("=?x-no?Q?=EF?=.pdf"), "application/octet-stream", false, Some("6@x")),
    ];
    assert_eq!(seen, expected);
    let raws: Vec<_> = event.attachments.iter().filter_map(|it| it.filename_raw.as_deref()).collect();
    assert_eq!(raws, ["=?x-no?Q?=EF?=.pdf"]);
}

#[test]
fn each_file_that_is_listed_is_found_by_its_part_id_and_nothing_else_is() {
    let message = with_files();
    for listed in read(&message).attachments {
        let (found, part) = message.file(&listed.part_id).unwrap();
        assert!(found == listed && part.part_id == listed.part_id);
    }
    for none in ["", "root", "0", "0.0", "4", "9", "2.0", "1 "] {
        assert!(message.file(none).is_none(), "{none}");
    }
    let alone = self::message(part("", "application/pdf", "scan.pdf", &[]));
    assert_eq!(read(&alone).attachments[0].part_id, "root");
    assert!(alone.file("root").is_some() && alone.file("").is_none());
}

#[test]
fn mail_that_nests_deeper_than_is_read_says_so() {
    let nested = (0..DEPTH).fold(part("x", "multipart/mixed", "", &[]), |inner, _| Part {
        parts: vec![inner],
        ..part("y", "multipart/mixed", "", &[])
    });
    assert_eq!(read(&message(nested.clone())).truncated_fields, ["attachments"]);
    assert!(read(&message(nested.parts[0].clone())).truncated_fields.is_empty());
}

/// A mail that is as large as it can be wherever it can be.
fn hostile() -> Message {
    let long = "=?utf-8?Q?".to_owned() + &"=E2=82=AC".repeat(300) + "?= ";
    let recipients: String = (0..50_000).map(|n| format!("\"{n}\u{20ac}\" <{n}@example.com>, ")).collect();
    let wordy: String = (0..4_000).map(|n| format!("g{n}: {long} <{n}@x>;, ")).collect();
    let ids: String = (0..50_000).map(|n| format!("<{n}@example.com> ")).collect();
    let mega = "\u{20ac}".repeat(400_000);
    let mut lines: Vec<(&str, &str)> =
        vec![("From", &wordy), ("To", &recipients), ("Cc", &mega), ("Reply-To", &wordy), ("Subject", &mega)];
    lines.extend([("In-Reply-To", ids.as_str()), ("References", &ids), ("Message-ID", &mega), ("Date", &mega)]);
    lines.extend([
        ("List-Id", mega.as_str()),
        ("List-Unsubscribe", &mega),
        ("Precedence", &mega),
        ("Auto-Submitted", &mega),
    ]);
    lines.extend([("Authentication-Results", mega.as_str()); 50]);
    let name = "\u{20ac}".repeat(2_000);
    let disposition = format!("attachment; filename*=x-no-such''{}", "%E2".repeat(5_000));
    let files = (0..5_000).map(|n| {
        let lines = [("Content-Disposition", disposition.as_str()), ("Content-ID", &name)];
        part(&n.to_string(), "application/pdf", if n % 2 == 0 { &name } else { "" }, &lines)
    });
    let payload = Part { parts: files.collect(), ..part("", "multipart/mixed", "", &lines) };
    let labels = (0..5_000).map(|n| Label::new(&format!("Label_{n}"))).collect();
    Message { labels, snippet: "&amp;".repeat(100_000), ..message(payload) }
}

#[test]
fn a_hostile_mail_gives_a_record_of_bounded_size_and_says_what_was_cut() {
    let event = read(&hostile());
    let frame = events::encode(&event);
    assert!(frame.len() < domain::fetched::MAX_TEXT + (64 << 10), "{} bytes", frame.len());
    let mut cut = event.truncated_fields.clone();
    cut.sort_unstable();
    let expected = [
        "attachments",
        "authenticationResults",
        "autoSubmitted",
        "cc",
        "dateRaw",
        "from",
        "inReplyTo",
        "internetMessageId",
        "labelIds",
        "listId",
        "listUnsubscribe",
        "precedence",
        "references",
        "replyTo",
        "snippet",
        "subject",
        "to",
    ];
    assert_eq!(cut, expected);
    assert!(event.to.len() > 300 && event.attachments.len() > 20);
    let published = events::Registry::built_in().latest("mailtide.gmail.GmailMessageFetched").unwrap();
    for name in event.truncated_fields {
        assert!(published.text.contains(&format!("\"name\": \"{name}\"")), "{name} is no field");
    }
}

/// What relays do to a header: other folding, other spaces, other case where it does not matter.
fn relayed(text: &str, folds: &[bool]) -> String {
    let mut folds = folds.iter().cycle();
    text.chars()
        .map(|c| if c == ' ' && *folds.next().unwrap_or(&false) { "\r\n\t".to_owned() } else { c.to_string() })
        .collect()
}

prop_compose! {
    fn mails()(
        local in "[A-Za-z0-9.]{1,20}", domain in "[a-z]{1,10}\\.example", sender in "[a-z.]{1,10}@[a-z]{1,10}\\.example",
        name in "[A-Za-z ]{0,12}", seconds in 0_i64..4_000_000_000,
    ) -> (String, String, String, String, i64) {
        (local, domain, sender, name, seconds)
    }
}

fn spelled(seconds: i64, hours: i64) -> String {
    let at = jiff::Timestamp::from_second(seconds).unwrap();
    let zone = jiff::tz::TimeZone::fixed(jiff::tz::Offset::constant(i8::try_from(hours).unwrap()));
    at.to_zoned(zone).strftime("%a, %-d %b %Y %H:%M:%S %z").to_string()
}

proptest! {
    #[test]
    fn what_relays_change_does_not_change_the_key(
        (local, domain, sender, name, seconds) in mails(), hours in -12_i64..=12, folds in prop::collection::vec(any::<bool>(), 1..8),
    ) {
        let sent = with_headers(&[
            ("From", &format!("{name} <{sender}>")), ("Message-ID", &format!("<{local}@{domain}>")), ("Date", &spelled(seconds, 0)),
        ]);
        let got = with_headers(&[
            ("Received", "by elsewhere"),
            ("MESSAGE-ID", &relayed(&format!(" <{local}@{}> ", domain.to_ascii_uppercase()), &folds)),
            ("FROM", &relayed(&format!("\"{name}\"  <{}>", sender.to_ascii_uppercase()), &folds)),
            ("date", &relayed(&spelled(seconds, hours), &folds)),
        ]);
        prop_assert!(sent.content_key.is_some());
        prop_assert_eq!(sent.content_key, got.content_key);
    }

    #[test]
    fn different_mails_have_different_keys(a in mails(), b in mails()) {
        let key = |(local, domain, sender, _, seconds): &(String, String, String, String, i64)| {
            with_headers(&[("From", sender), ("Message-ID", &format!("<{local}@{domain}>")), ("Date", &spelled(*seconds, 0))]).content_key
        };
        let same = (&a.0, &a.1, &a.2, a.4) == (&b.0, &b.1, &b.2, b.4);
        prop_assert_eq!(key(&a) == key(&b), same);
        prop_assert_ne!(key(&a), key(&(format!("x{}", a.0), a.1.clone(), a.2.clone(), a.3.clone(), a.4)));
        prop_assert_ne!(key(&a), key(&(a.0.clone(), a.1.clone(), format!("x{}", a.2), a.3.clone(), a.4)));
        prop_assert_ne!(key(&a), key(&(a.0.clone(), a.1.clone(), a.2.clone(), a.3.clone(), a.4 + 1)));
    }

    #[test]
    fn no_header_panics_and_none_is_beyond_its_measure(
        lines in prop::collection::vec((
            prop::sample::select(vec!["From", "To", "Subject", "Date", "Message-ID", "References", "List-Id", "Content-Disposition", "Content-Type", "Content-ID"]),
            prop_oneof!["\\PC{0,60}", "[=?utf8QB_<>@,;:\"()\\\\ *'%0-9A-F\r\n\t\u{0}]{0,80}", any::<String>()],
        ), 0..12),
        filename: String, kind in "[a-zM/;*\u{0} ]{0,20}",
    ) {
        let lines: Vec<_> = lines.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let event = read(&message(part("", &kind, &filename, &lines)));
        let texts = event.from.iter().chain(&event.to).flat_map(|it| [&it.name, &it.address, &it.group, &it.raw]);
        let texts = texts.chain([&event.subject, &event.date_raw, &event.internet_message_id, &event.list_id]);
        let texts = texts.chain(event.attachments.iter().flat_map(|it| [&it.filename, &it.filename_raw, &it.content_id]));
        for text in texts.flatten() {
            prop_assert!(!text.is_empty() && !text.contains(char::is_control), "{text:?} in {event:?}");
        }
        prop_assert!(events::decode::<GmailMessageFetched>(&events::encode(&event)).unwrap() == event);
    }
}
