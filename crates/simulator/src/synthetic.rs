//! Mail that nobody wrote: made from a message's id when it is asked for, so that a mailbox of a million messages
//! holds no bodies.

use std::sync::Arc;

use crate::mime::Mail;
use crate::seed::Seed;

const SENDERS: [&str; 8] = [
    "Ada Byron <ada@analytical.example>",
    "Grace Hopper <grace@cobol.example>",
    "Lieferung GmbH <versand@lieferung.example>",
    "Billing <no-reply@billing.example>",
    "=?UTF-8?Q?J=C3=B6rg_M=C3=BCller?= <joerg@mueller.example>",
    "Accounts Payable <ap@supplier.example>",
    "List <list@lists.example>",
    "Katherine <kj@orbit.example>",
];

const SUBJECTS: [&str; 8] = [
    "Invoice",
    "Your order has shipped",
    "Reminder: payment due",
    "Minutes of the meeting",
    "=?UTF-8?B?UmVjaG51bmc=?=",
    "Statement of account",
    "Question about the delivery",
    "Re: contract",
];

/// One in this many has a file attached.
const ATTACHED: u64 = 8;

/// The mail of message `id` in the mailbox of `email`, dated `internal_ms`. The same each time.
pub(crate) fn mail(id: u64, email: &str, internal_ms: i64) -> Arc<Mail> {
    let mut seed = Seed::of(id, "mail");
    let mut pick = |from: &'static [&'static str; 8]| {
        let at = usize::try_from(seed.below(8)).expect("a number below 8 fits in a usize");
        from[at]
    };
    let (from, subject) = (pick(&SENDERS), pick(&SUBJECTS));
    let number = seed.below(100_000);
    let date = rfc5322_date(internal_ms);
    let head = format!(
        "Delivered-To: {email}\r\nReceived: by 2002:a05:6214:1 with SMTP id {id:016x}; {date}\r\nDate: {date}\r\n\
         Message-ID: <{id:016x}@mail.example>\r\nFrom: {from}\r\nTo: {email}\r\nSubject: {subject} {number}\r\n\
         MIME-Version: 1.0\r\n"
    );
    let words =
        format!("Dear reader,\r\n\r\nthis is message {id:016x}, about number {number}.\r\n\r\nKind regards\r\n");
    let text = format!("Content-Type: text/plain; charset=\"UTF-8\"\r\n\r\n{words}");
    let raw = if seed.below(ATTACHED) == 0 {
        format!(
            "{head}Content-Type: multipart/mixed; boundary=\"b{id:016x}\"\r\n\r\n--b{id:016x}\r\n{text}\r\n\
             --b{id:016x}\r\nContent-Type: application/pdf; name=\"invoice-{number}.pdf\"\r\n\
             Content-Disposition: attachment; filename=\"invoice-{number}.pdf\"\r\n\
             Content-Transfer-Encoding: base64\r\n\r\nJVBERi0xLjQKJSVFT0YK\r\n--b{id:016x}--\r\n"
        )
    } else {
        format!("{head}{text}")
    };
    Arc::new(Mail::new(raw.as_bytes()))
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
            assert_eq!(mail.raw(), super::mail(id, "me@example.org", 1_700_000_000_000).raw());
            assert_eq!(mail.message_id(), Some(format!("{id:016x}@mail.example").as_str()));
            assert_eq!(mail.header("Date"), Some("Tue, 14 Nov 2023 22:13:20 +0000"));
            assert!(mail.snippet().starts_with("Dear reader, this is message"), "{}", mail.snippet());
            attached += usize::from(mail.root().walk().any(|part| part.filename.ends_with(".pdf")));
        }
        assert!((5..60).contains(&attached), "{attached}");
    }
}
