//! Mail that nobody wrote: made from a message's id when it is asked for, so that a mailbox of a million messages
//! holds no bodies.

use std::sync::Arc;

use bytes::Bytes;

use crate::mime::{Mail, Part};
use crate::seed::Seed;

/// Senders, as written in the mail and as read.
const SENDERS: [(&str, &str); 8] = [
    ("Ada Byron <ada@analytical.example>", "Ada Byron <ada@analytical.example>"),
    ("Grace Hopper <grace@cobol.example>", "Grace Hopper <grace@cobol.example>"),
    ("Lieferung GmbH <versand@lieferung.example>", "Lieferung GmbH <versand@lieferung.example>"),
    ("Billing <no-reply@billing.example>", "Billing <no-reply@billing.example>"),
    ("=?UTF-8?Q?J=C3=B6rg_M=C3=BCller?= <joerg@mueller.example>", "Jörg Müller <joerg@mueller.example>"),
    ("Accounts Payable <ap@supplier.example>", "Accounts Payable <ap@supplier.example>"),
    ("List <list@lists.example>", "List <list@lists.example>"),
    ("Katherine <kj@orbit.example>", "Katherine <kj@orbit.example>"),
];

/// Subjects, as written in the mail and as read; a number follows.
const SUBJECTS: [(&str, &str); 8] = [
    ("Invoice", "Invoice"),
    ("Your order has shipped", "Your order has shipped"),
    ("Reminder: payment due", "Reminder: payment due"),
    ("Minutes of the meeting", "Minutes of the meeting"),
    ("=?UTF-8?B?UmVjaG51bmc=?=", "Rechnung"),
    ("Statement of account", "Statement of account"),
    ("Question about the delivery", "Question about the delivery"),
    ("Re: contract", "Re: contract"),
];

/// One in this many has a file attached.
const ATTACHED: u64 = 8;

/// What every file attached holds.
const FILE: &str = "%PDF-1.4\n%%EOF\n";
const FILE_IN_BASE64: &str = "JVBERi0xLjQKJSVFT0YK";

/// The mail of message `id` in the mailbox of `email`, dated `internal_ms`. The same each time. Its parts are put
/// together as they are written, because parsing them would cost more than all else in reading a message.
pub(crate) fn mail(id: u64, email: &str, internal_ms: i64) -> Arc<Mail> {
    let mut seed = Seed::of(id, "mail");
    let mut pick = || usize::try_from(seed.below(8)).expect("a number below 8 fits in a usize");
    let (from, subject) = (SENDERS[pick()], SUBJECTS[pick()]);
    let number = seed.below(100_000);
    let attached = seed.below(ATTACHED) == 0;
    let date = rfc5322_date(internal_ms);
    let message_id = format!("{id:016x}@mail.example");
    let (boundary, file) = (format!("b{id:016x}"), format!("invoice-{number}.pdf"));
    let kind = if attached {
        ("multipart/mixed", format!("multipart/mixed; boundary=\"{boundary}\""))
    } else {
        ("text/plain", TEXT.to_owned())
    };
    // Name, as written, as read.
    let headers = [
        ("Delivered-To", email.to_owned(), None),
        ("Received", format!("by 2002:a05:6214:1 with SMTP id {id:016x}; {date}"), None),
        ("Date", date, None),
        ("Message-ID", format!("<{message_id}>"), None),
        ("From", from.0.to_owned(), Some(from.1.to_owned())),
        ("To", email.to_owned(), None),
        ("Subject", format!("{} {number}", subject.0), Some(format!("{} {number}", subject.1))),
        ("MIME-Version", "1.0".to_owned(), None),
        ("Content-Type", kind.1, None),
    ];
    let words =
        format!("Dear reader,\r\n\r\nthis is message {id:016x}, about number {number}.\r\n\r\nKind regards\r\n");
    let mut raw = String::with_capacity(1_024);
    for (name, written, _) in &headers {
        line(&mut raw, name, written);
    }
    raw.push_str("\r\n");
    let read = |(name, written, read): (&str, String, Option<String>)| (name.to_owned(), read.unwrap_or(written));
    let mut root = Part { mime_type: kind.0.to_owned(), headers: headers.map(read).into(), ..Part::default() };
    if attached {
        let of_file = [
            ("Content-Type", format!("application/pdf; name=\"{file}\"")),
            ("Content-Disposition", format!("attachment; filename=\"{file}\"")),
            ("Content-Transfer-Encoding", "base64".to_owned()),
        ];
        raw.push_str(&format!("--{boundary}\r\n"));
        line(&mut raw, "Content-Type", TEXT);
        raw.push_str(&format!("\r\n{words}\r\n--{boundary}\r\n"));
        for (name, value) in &of_file {
            line(&mut raw, name, value);
        }
        raw.push_str(&format!("\r\n{FILE_IN_BASE64}\r\n--{boundary}--\r\n"));
        root.parts = vec![
            Part {
                mime_type: "text/plain".to_owned(),
                headers: vec![("Content-Type".to_owned(), TEXT.to_owned())],
                body: Bytes::from(words),
                ..Part::default()
            },
            Part {
                mime_type: "application/pdf".to_owned(),
                filename: file,
                headers: of_file.map(|(name, value)| (name.to_owned(), value)).into(),
                body: Bytes::from_static(FILE.as_bytes()),
                attached: true,
                parts: Vec::new(),
            },
        ];
    } else {
        raw.push_str(&words);
        root.body = Bytes::from(words);
    }
    Arc::new(Mail::known(Bytes::from(raw), root, message_id))
}

const TEXT: &str = "text/plain; charset=\"UTF-8\"";

fn line(raw: &mut String, name: &str, value: &str) {
    raw.push_str(name);
    raw.push_str(": ");
    raw.push_str(value);
    raw.push_str("\r\n");
}

fn rfc5322_date(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms)
        .map(|at| at.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string())
        .unwrap_or_else(|_| "Thu, 01 Jan 1970 00:00:00 +0000".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_same_each_time_and_well_formed() {
        let mut attached = 0;
        for id in 0..200_u64 {
            let mail = mail(id, "me@example.org", 1_700_000_000_000);
            assert_eq!(mail, super::mail(id, "me@example.org", 1_700_000_000_000));
            assert_eq!(*mail, Mail::new(mail.raw()), "what parsing it gives");
            assert_eq!(mail.message_id(), Some(format!("{id:016x}@mail.example").as_str()));
            assert_eq!(mail.header("Date"), Some("Tue, 14 Nov 2023 22:13:20 +0000"));
            assert!(mail.snippet().starts_with("Dear reader, this is message"), "{}", mail.snippet());
            attached += usize::from(mail.root().walk().any(|part| part.filename.ends_with(".pdf")));
        }
        assert!((5..60).contains(&attached), "{attached}");
    }
}
