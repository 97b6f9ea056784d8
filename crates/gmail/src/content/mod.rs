//! From a message as Gmail gives it to what is announced of it: headers decoded, files listed, all of it bounded.
//!
//! No IO and no clock: the same message gives the same event. Whatever a sender wrote, this neither fails nor panics;
//! what it does not understand it keeps as it came, where the schema has a field for that.

mod addresses;
mod files;
mod key;
mod measure;
mod parameters;
mod words;

use domain::mailbox::reply::Label;
use domain::{Address, GmailMessageDiscovered, GmailMessageFetched, Timestamp};
use mail_parser::HeaderValue;
use mail_parser::parsers::MessageStream;

use crate::message::{Message, Part};
use measure::{ADDRESSES, Cuts, FILES, IDS, LABELS, LINE, NAME, RESULTS};

/// What is announced of a message that was read with [`crate::View::Full`], and of one read with another view as far as
/// that goes: no files then.
///
/// - Headers are decoded by RFC 2047 and RFC 2231, also where they break the rules; where they do not decode, the raw
///   text is beside them.
/// - Of a header that may stand once but stands more often, the first counts; addresses and ids of all are taken.
/// - Which parts are files: every part with a name or with the disposition `attachment`, a mail within the mail, and
///   whatever else is neither text nor made of parts. Files of a mail within the mail are listed after it. The root of
///   the mail's parts, when it is a file itself, has the part id `root`.
/// - `inline` is what the text refers to: it has a `Content-ID`, and its disposition is not `attachment`.
/// - `contentKey` is computed as its own module says; the sender is the first address in `From`.
/// - Texts in a list are cut to 1 KiB, others to 4 KiB, lists to 1,000 items and to 16, 32 or 64 KiB; more than ten
///   levels of parts are not read. What was cut is named in `truncatedFields`.
pub fn fetched(discovered: &GmailMessageDiscovered, message: &Message, fetched_at: Timestamp) -> GmailMessageFetched {
    let root = &message.payload;
    let mut cuts = Cuts::default();
    let from = mailboxes(root, "From", "from", &mut cuts);
    let subject = root.header("Subject").map(words::decode);
    let subject_raw = subject.as_ref().filter(|it| !it.clean).and_then(|_| root.header("Subject"));
    let date_raw = root.header("Date").map(words::printable);
    let date = date_raw.as_deref().and_then(date);
    let message_id = root.header("Message-ID").and_then(message_id);
    let sender = from.iter().find_map(|it| it.address.as_deref());
    let content_key = message_id.as_deref().zip(sender).zip(date);
    let content_key = content_key.and_then(|((id, sender), date)| key::content_key(id, sender, date));
    let line = |name: &str| root.header(name).map(words::printable);
    GmailMessageFetched {
        gone: false,
        thread_id: message.thread_id.clone(),
        history_id: message.history_id,
        label_ids: Some(labels(&message.labels, &mut cuts)),
        internal_date: message.internal_date,
        size_estimate: message.size_estimate,
        snippet: cuts.line("snippet", without_escapes(&message.snippet)),
        to: mailboxes(root, "To", "to", &mut cuts),
        cc: mailboxes(root, "Cc", "cc", &mut cuts),
        reply_to: mailboxes(root, "Reply-To", "replyTo", &mut cuts),
        from,
        subject: subject.and_then(|subject| cuts.line("subject", subject.text)),
        subject_raw: subject_raw.and_then(|raw| cuts.line("subjectRaw", words::printable(raw))),
        date,
        date_raw: date_raw.and_then(|raw| cuts.line("dateRaw", raw)),
        internet_message_id: message_id.and_then(|id| cuts.line("internetMessageId", id)),
        in_reply_to: ids(root, "In-Reply-To", "inReplyTo", &mut cuts),
        references: ids(root, "References", "references", &mut cuts),
        list_id: root.header("List-Id").and_then(|it| cuts.line("listId", words::decode(it).text)),
        list_unsubscribe: line("List-Unsubscribe").and_then(|it| cuts.line("listUnsubscribe", it)),
        precedence: line("Precedence").and_then(|it| cuts.line("precedence", it)),
        auto_submitted: line("Auto-Submitted").and_then(|it| cuts.line("autoSubmitted", it)),
        authentication_results: {
            let results = root.headers_named("Authentication-Results").map(words::printable);
            texts(results, "authenticationResults", RESULTS, LINE, &mut cuts)
        },
        attachments: files::files(root, &mut cuts.list("attachments", FILES)),
        content_key,
        truncated_fields: cuts.names(),
        ..GmailMessageFetched::gone(discovered, fetched_at)
    }
}

fn mailboxes(root: &Part, header: &'static str, field: &'static str, cuts: &mut Cuts) -> Vec<Address> {
    addresses::addresses(root.headers_named(header), &mut cuts.list(field, ADDRESSES))
}

fn labels(labels: &[Label], cuts: &mut Cuts) -> Vec<Label> {
    let mut room = cuts.list("labelIds", LABELS);
    labels.iter().take_while(|label| room.takes(&mut [], NAME, label.as_str().len())).cloned().collect()
}

fn ids(root: &Part, header: &'static str, field: &'static str, cuts: &mut Cuts) -> Vec<String> {
    texts(root.headers_named(header).flat_map(bracketed), field, IDS, NAME, cuts)
}

fn texts(
    found: impl Iterator<Item = String>,
    field: &'static str,
    bytes: usize,
    most: usize,
    cuts: &mut Cuts,
) -> Vec<String> {
    let mut room = cuts.list(field, bytes);
    let mut kept = Vec::new();
    for mut text in found.filter(|text| !text.is_empty()) {
        if !room.takes(&mut [&mut text], most, 0) {
            break;
        }
        kept.push(text);
    }
    kept
}

/// The id of a mail: what stands in brackets, or, where a sender left them out, the whole.
fn message_id(header: &str) -> Option<String> {
    bracketed(header).next().or_else(|| {
        let bare = words::printable(header);
        (!bare.is_empty() && !bare.contains(char::is_whitespace)).then_some(bare)
    })
}

/// The ids in a header: what stands in brackets, without them (RFC 5322 §3.6.4) and without the spaces of folding.
fn bracketed(header: &str) -> impl Iterator<Item = String> {
    header.split('<').skip(1).filter_map(|rest| {
        let (id, _) = rest.split_once('>')?;
        let id: String = id.chars().filter(|c| !c.is_whitespace() && !c.is_control()).collect();
        (!id.is_empty()).then_some(id)
    })
}

/// The instant that a `Date` header names, in the forms of RFC 5322 and in many others.
fn date(header: &str) -> Option<Timestamp> {
    let mut line = header.to_owned();
    measure::shorten(&mut line, NAME);
    line.push('\n');
    match MessageStream::new(line.as_bytes()).parse_date() {
        HeaderValue::DateTime(date) if date.is_valid() => {
            Some(Timestamp::from_millis(date.to_timestamp().saturating_mul(1_000)))
        }
        _ => None,
    }
}

/// A snippet as plain text: Gmail gives it with the escapes of HTML.
fn without_escapes(snippet: &str) -> String {
    let mut text = String::with_capacity(snippet.len());
    let mut rest = snippet;
    while let Some(at) = rest.find('&') {
        text.push_str(&rest[..at]);
        rest = &rest[at..];
        let escape = rest.bytes().take(10).position(|byte| byte == b';').map(|end| &rest[1..end]);
        match escape.and_then(escaped) {
            Some(c) => {
                text.push(c);
                rest = &rest[escape.map_or(1, str::len) + 2..];
            }
            None => {
                text.push('&');
                rest = &rest[1..];
            }
        }
    }
    text.push_str(rest);
    words::printable(&text)
}

fn escaped(name: &str) -> Option<char> {
    match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        "nbsp" => Some(' '),
        _ => {
            let digits = name.strip_prefix('#')?;
            let number = match digits.strip_prefix(['x', 'X']) {
                Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                None => digits.parse().ok()?,
            };
            char::from_u32(number)
        }
    }
}

#[cfg(test)]
mod tests;
