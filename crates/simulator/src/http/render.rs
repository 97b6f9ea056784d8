//! Messages as JSON.

use std::sync::Arc;

use crate::json::Writer;
use crate::mailbox::{Content, Mailbox, Message};
use crate::mime::{Mail, Part};
use crate::seed::mix;
use crate::synthetic;

/// How much of a message `messages.get` returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// Ids, labels, snippet, dates, size.
    Minimal,
    /// That, and the headers of the root part.
    Metadata,
    /// That, and the whole tree.
    Full,
    /// Minimal, and the mail's bytes.
    Raw,
}

/// A message taken out of its mailbox, so that it is written without holding the mailbox.
#[derive(Debug)]
pub(crate) struct Taken {
    id: u64,
    thread: u64,
    labels: Vec<String>,
    history: u64,
    internal_ms: i64,
    mail: Arc<Mail>,
}

/// The content of a message, made if nobody wrote it.
pub(crate) fn mail_of(mailbox: &Mailbox, message: &Message, email: &str) -> Arc<Mail> {
    match mailbox.content(message) {
        Content::Mail(mail) => mail,
        Content::Synthetic => synthetic::mail(message.id, email, message.internal_ms),
    }
}

impl Taken {
    /// Takes what is needed of `message`.
    pub(crate) fn new(mailbox: &Mailbox, message: &Message, email: &str) -> Self {
        Self {
            id: message.id,
            thread: mailbox.thread_id(message),
            labels: mailbox.labels.ids(message.labels),
            history: message.history,
            internal_ms: message.internal_ms,
            mail: mail_of(mailbox, message, email),
        }
    }

    /// Writes a `Message`. `nonce` makes the attachment ids of this reply its own.
    pub(crate) fn write(&self, writer: &mut Writer<'_>, format: Format, headers: &[&str], nonce: u64) {
        writer.object(|o| {
            o.hex_field("id", self.id);
            o.hex_field("threadId", self.thread);
            if !self.labels.is_empty() {
                o.field("labelIds", |w| w.array(&self.labels, |w, id| w.string(id)));
            }
            o.text_field("snippet", self.mail.snippet());
            match format {
                Format::Minimal | Format::Raw => {}
                Format::Metadata => o.field("payload", |w| write_headers_only(w, self.mail.root(), headers)),
                Format::Full => o.field("payload", |w| {
                    write_part(w, self.mail.root(), &mut String::new(), &Attachments { message: self.id, nonce });
                }),
            }
            o.int_field("sizeEstimate", i32::try_from(self.mail.raw().len()).unwrap_or(i32::MAX));
            o.long_field("historyId", self.history);
            o.long_field("internalDate", self.internal_ms);
            if format == Format::Raw {
                o.bytes_field("raw", self.mail.raw());
            }
        });
    }
}

fn write_headers(writer: &mut Writer<'_>, headers: &[&(String, String)]) {
    if headers.is_empty() {
        return;
    }
    writer.field("headers", |w| {
        w.array(headers, |w, (name, value)| {
            w.object(|o| {
                o.text_field("name", name);
                o.text_field("value", value);
            });
        });
    });
}

fn write_headers_only(writer: &mut Writer<'_>, root: &Part, wanted: &[&str]) {
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted.eq_ignore_ascii_case(name));
    let headers: Vec<&(String, String)> = root.headers.iter().filter(|(name, _)| is_wanted(name)).collect();
    writer.object(|o| {
        o.text_field("mimeType", &root.mime_type);
        write_headers(o, &headers);
    });
}

fn write_part(writer: &mut Writer<'_>, part: &Part, id: &mut String, attachments: &Attachments) {
    writer.object(|o| {
        o.text_field("partId", id);
        o.text_field("mimeType", &part.mime_type);
        o.text_field("filename", &part.filename);
        write_headers(o, &part.headers.iter().collect::<Vec<_>>());
        o.field("body", |w| {
            w.object(|o| {
                if part.attached {
                    o.text_field("attachmentId", &attachments.id(id));
                }
                o.int_field("size", i32::try_from(part.body.len()).unwrap_or(i32::MAX));
                if !part.attached && !part.body.is_empty() {
                    o.bytes_field("data", &part.body);
                }
            });
        });
        if !part.parts.is_empty() {
            o.field("parts", |w| {
                w.array(part.parts.iter().enumerate(), |w, (index, inner)| {
                    let outer = id.len();
                    if outer > 0 {
                        id.push('.');
                    }
                    id.push_str(&index.to_string());
                    write_part(w, inner, id, attachments);
                    id.truncate(outer);
                });
            });
        }
    });
}

/// Makes attachment ids: they name message and part, differ from reply to reply, and can be told from made-up ones.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attachments {
    /// The message.
    pub(crate) message: u64,
    /// What makes this reply's ids differ.
    pub(crate) nonce: u64,
}

impl Attachments {
    fn id(self, part_id: &str) -> String {
        use base64::Engine as _;
        let check = self.check(part_id);
        let text = format!("{:x}:{part_id}:{:x}:{check:016x}", self.message, self.nonce);
        format!("ANGjdJ{}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text))
    }

    fn check(self, part_id: &str) -> u64 {
        part_id.bytes().fold(mix(self.message ^ mix(self.nonce)), |state, byte| mix(state ^ u64::from(byte)))
    }

    /// Message and part that an attachment id names; `None` for what was never given out.
    pub(crate) fn parse(id: &str) -> Option<(u64, String)> {
        use base64::Engine as _;
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(id.strip_prefix("ANGjdJ")?).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        let mut parts = text.split(':');
        let message = u64::from_str_radix(parts.next()?, 16).ok()?;
        let part_id = parts.next()?;
        let attachments = Self { message, nonce: u64::from_str_radix(parts.next()?, 16).ok()? };
        let check = u64::from_str_radix(parts.next()?, 16).ok()?;
        (check == attachments.check(part_id)).then(|| (message, part_id.to_owned()))
    }
}

/// Writes a message as lists name it.
pub(crate) fn write_reference(writer: &mut Writer<'_>, mailbox: &Mailbox, message: &Message) {
    writer.object(|o| {
        o.hex_field("id", message.id);
        o.hex_field("threadId", mailbox.thread_id(message));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attachment_ids_name_their_part_and_cannot_be_made_up() {
        let attachments = Attachments { message: 0x18d1, nonce: 5 };
        let id = attachments.id("1.0");
        assert_eq!(Attachments::parse(&id), Some((0x18d1, "1.0".to_owned())));
        assert_ne!(id, Attachments { nonce: 6, ..attachments }.id("1.0"));
        let mut forged = id;
        forged.replace_range(6..7, if forged.as_bytes()[6] == b'A' { "B" } else { "A" });
        assert_eq!(Attachments::parse(&forged), None);
        assert_eq!(Attachments::parse(""), None);
    }
}
