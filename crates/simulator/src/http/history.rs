//! A page of history as JSON.
//!
//! Most records say the same of another message, so a page's first record of each shape becomes a form, and the
//! others fill its gaps: a page is written as fast as it is copied.

use std::ops::Range;

use crate::json::{self, Writer};
use crate::label::LabelSet;
use crate::mailbox::Mailbox;
use crate::mailbox::history::{Change, Kind, Page, Walk};

/// Pages with fewer records are written without forms.
const WORTH_FORMS: usize = 8;

/// Forms kept for a page; records of further shapes are written one by one.
const FORMS: usize = 16;

/// What a form holds where a message's id and a thread's go. Real ones are below 2⁶³. Where the record's id goes it holds
/// the least number that is as long: nothing else in a record is a number in quotes.
const ANY_ID: u64 = 0xfeed_face_cafe_0001;
const ANY_THREAD: u64 = 0xfeed_face_cafe_0002;

/// The ids that a record of one change names.
#[derive(Debug, Clone, Copy)]
struct Named {
    record: u64,
    id: u64,
    thread: u64,
}

/// What a record of one change says, whomever of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    kind: Kind,
    labels: LabelSet,
    after: LabelSet,
    /// Whether the change itself is wanted, or only the message that it touched.
    wanted: bool,
    /// How many digits the record's id has.
    digits: u32,
}

/// JSON with gaps, each as long as what goes there and filled with something else.
#[derive(Debug)]
struct Form {
    bytes: Vec<u8>,
    gaps: Vec<(usize, Gap)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gap {
    Record,
    Id,
    Thread,
}

/// Writes one page of `history.list`.
pub(crate) fn write(writer: &mut Writer<'_>, mailbox: &Mailbox, walk: &Walk, page: &Page, with_labels: bool) {
    let pen = Pen { mailbox, walk, with_labels };
    let mut forms: Vec<(Shape, Form)> = Vec::new();
    let worth_forms = page.records.len() >= WORTH_FORMS;
    writer.object(|o| {
        if !page.records.is_empty() {
            o.field("history", |w| {
                w.array(&page.records, |w, record| match pen.single(record) {
                    Some((named, shape)) if worth_forms => pen.write_by_form(w, named, shape, &mut forms),
                    Some((named, shape)) => pen.write_single(w, named, shape),
                    None => pen.write_record(w, record.clone()),
                });
            });
        }
        if let Some(next) = page.next {
            o.long_field("nextPageToken", next);
        }
        o.long_field("historyId", page.head);
    });
}

/// What all records of a page are written with.
#[derive(Clone, Copy)]
struct Pen<'a> {
    mailbox: &'a Mailbox,
    walk: &'a Walk,
    with_labels: bool,
}

impl Pen<'_> {
    /// A record that is one change.
    fn single(&self, record: &Range<usize>) -> Option<(Named, Shape)> {
        if record.len() != 1 {
            return None;
        }
        // It is in the page because it is touched.
        let change = self.mailbox.change(record.start);
        let wanted = self.walk.kinds & change.kind.bit() != 0;
        let digits = change.record.checked_ilog10().unwrap_or(0) + 1;
        let shape = Shape { kind: change.kind, labels: change.labels, after: change.after, wanted, digits };
        Some((self.named(change), shape))
    }

    fn named(&self, change: &Change) -> Named {
        let message = self.mailbox.message(change.message);
        Named { record: change.record, id: message.id, thread: self.mailbox.thread_id(message) }
    }

    fn write_by_form(&self, writer: &mut Writer<'_>, named: Named, shape: Shape, forms: &mut Vec<(Shape, Form)>) {
        let at = forms.iter().position(|(known, _)| *known == shape).or_else(|| {
            (forms.len() < FORMS).then(|| {
                let start = writer.len();
                let any = Named { record: 10_u64.pow(shape.digits - 1), id: ANY_ID, thread: ANY_THREAD };
                self.write_single(writer, any, shape);
                forms.push((shape, Form::new(writer.take_back(start), any)));
                forms.len() - 1
            })
        });
        match at {
            Some(at) => forms[at].1.fill(writer, named, shape.digits),
            None => self.write_single(writer, named, shape),
        }
    }

    fn write_single(&self, writer: &mut Writer<'_>, named: Named, shape: Shape) {
        writer.object(|o| {
            o.long_field("id", named.record);
            o.field("messages", |w| w.array([named], |w, named| self.write_message(w, named, None)));
            if shape.wanted {
                o.field(list_of(shape.kind), |w| {
                    w.array([named], |w, named| self.write_change(w, named, shape.labels, shape.after));
                });
            }
        });
    }

    fn write_record(&self, writer: &mut Writer<'_>, record: Range<usize>) {
        let (mailbox, walk) = (self.mailbox, self.walk);
        let Some(first) = mailbox.touched_changes(walk, record.clone()).next() else { return };
        writer.object(|o| {
            o.long_field("id", first.record);
            o.field("messages", |w| {
                let mut last = None;
                let touched = mailbox
                    .touched_changes(walk, record.clone())
                    .filter(|change| last.replace(change.message) != Some(change.message));
                w.array(touched, |w, change| self.write_message(w, self.named(change), None));
            });
            for kind in Kind::ALL {
                let changes = mailbox.wanted_changes(walk, record.clone()).filter(|change| change.kind == kind);
                let mut changes = changes.peekable();
                if changes.peek().is_none() {
                    continue;
                }
                o.field(list_of(kind), |w| {
                    w.array(changes, |w, change| {
                        self.write_change(w, self.named(change), change.labels, change.after);
                    });
                });
            }
        });
    }

    fn write_change(&self, writer: &mut Writer<'_>, named: Named, labels: LabelSet, after: LabelSet) {
        writer.object(|o| {
            o.field("message", |w| self.write_message(w, named, self.with_labels.then_some(after)));
            if !labels.is_empty() {
                o.field("labelIds", |w| w.strings(|visit| self.mailbox.labels.each(labels, visit)));
            }
        });
    }

    fn write_message(&self, writer: &mut Writer<'_>, named: Named, labels: Option<LabelSet>) {
        writer.object(|o| {
            o.hex_field("id", named.id);
            o.hex_field("threadId", named.thread);
            if let Some(labels) = labels.filter(|labels| !labels.is_empty()) {
                o.field("labelIds", |w| w.strings(|visit| self.mailbox.labels.each(labels, visit)));
            }
        });
    }
}

const fn list_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Added => "messagesAdded",
        Kind::Deleted => "messagesDeleted",
        Kind::LabelsAdded => "labelsAdded",
        Kind::LabelsRemoved => "labelsRemoved",
    }
}

impl Form {
    /// The form of a record that was written with `any`.
    fn new(bytes: Vec<u8>, any: Named) -> Self {
        let gaps = [
            (format!("\"{}\"", any.record), Gap::Record),
            (format!("\"{:016x}\"", any.id), Gap::Id),
            (format!("\"{:016x}\"", any.thread), Gap::Thread),
        ];
        let found = |at: usize| gaps.iter().find(|(text, _)| bytes[at..].starts_with(text.as_bytes()));
        // Behind the quote.
        let gaps = (0..bytes.len()).filter_map(|at| found(at).map(|(_, gap)| (at + 1, *gap))).collect();
        Self { bytes, gaps }
    }

    fn fill(&self, writer: &mut Writer<'_>, named: Named, digits: u32) {
        let written = writer.raw(&self.bytes);
        for (at, gap) in &self.gaps {
            match gap {
                Gap::Record => json::put_decimal(named.record, &mut written[*at..*at + digits as usize]),
                Gap::Id => json::put_hex(named.id, &mut written[*at..]),
                Gap::Thread => json::put_hex(named.thread, &mut written[*at..]),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields;
    use crate::label;
    use crate::mailbox::history::{Ahead, View};
    use crate::mailbox::{Birth, Content, NewMessage};

    /// A mailbox with records of every kind, most of one change, some of several.
    fn mailbox() -> Mailbox {
        let mut mailbox = Mailbox::new(&Birth { seed: 5, first_history_id: 1 << 53, max_history_gap: 50 });
        let user = mailbox.labels.set_of(["Work", "INBOX"]).unwrap();
        for n in 0..30 {
            let labels = if n % 3 == 0 { user } else { LabelSet::system(label::INBOX | label::UNREAD) };
            let new =
                NewMessage { labels, internal_ms: n, content: Content::Synthetic, thread: (n % 2 == 1).then_some(0) };
            let at = mailbox.deliver(new, n);
            let starred = LabelSet::system(label::STARRED);
            mailbox.relabel(&[at, 0], starred, LabelSet::system(label::INBOX), n).unwrap();
            mailbox.relabel(&[at], LabelSet::default(), starred, n).unwrap();
            if n > 0 && n % 4 == 0 {
                mailbox.delete(at, n);
            }
        }
        mailbox
    }

    #[test]
    fn a_filled_form_is_what_writing_field_by_field_gives() {
        let mailbox = mailbox();
        let view = View { now_ms: i64::MAX, lag_ms: 0, retention_ms: None, ahead: Ahead::Empty };
        for (kinds, bare) in [(15, false), (1, false), (4 | 8, false), (2, true)] {
            let walk = Walk { start: 1 << 53, kinds, label: None, bare, max: 500, after: None, view };
            let page = mailbox.history(&walk).unwrap();
            assert!(page.records.len() >= WORTH_FORMS || kinds == 2 && !bare, "{kinds}");
            for mask in ["", "history(id,messagesAdded/message/id)", "history/messages", "historyId"] {
                let mask = fields::parse(mask).unwrap();
                for (pretty, with_labels) in [(true, true), (true, false), (false, true)] {
                    let mut quick = Writer::new(0, pretty, &mask);
                    write(&mut quick, &mailbox, &walk, &page, with_labels);
                    let mut slow = Writer::new(0, pretty, &mask);
                    let pen = Pen { mailbox: &mailbox, walk: &walk, with_labels };
                    slow.object(|o| {
                        o.field("history", |w| w.array(&page.records, |w, record| pen.write_record(w, record.clone())));
                        o.long_field("historyId", page.head);
                    });
                    let text = |writer: Writer<'_>| String::from_utf8(writer.finish()).unwrap();
                    assert_eq!(text(quick), text(slow));
                }
            }
        }
    }
}
