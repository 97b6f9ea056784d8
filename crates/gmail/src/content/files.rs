//! Which parts of a mail are files, and what they are called.

use domain::Attachment;

use super::measure::{NAME, Room};
use super::parameters::{Named, Parameters};
use super::words::{self, Decoded};
use crate::message::{DEPTH, Message, Part};

/// How the root of a mail's parts is named when it is a file itself. Gmail's name for it is empty, which no path holds.
const ROOT: &str = "root";
/// Bytes of a media type; RFC 6838 §4.2 allows 127 on each side.
const LONGEST_TYPE: usize = 255;

impl Message {
    /// The file at a part id as [`Attachment::part_id`] spells it, and the part that holds it.
    pub fn file(&self, part_id: &str) -> Option<(Attachment, &Part)> {
        let spelled = match part_id {
            "" => return None,
            ROOT => "",
            other => other,
        };
        let part = self.payload.walk().find(|part| part.part_id == spelled)?;
        file(part).map(|file| (file, part))
    }
}

/// Every file of a mail, in its order; those of a mail that is attached follow it.
pub(super) fn files(root: &Part, room: &mut Room<'_>) -> Vec<Attachment> {
    let mut found = Vec::new();
    // As `Part::walk`, with the depth.
    let mut open = vec![(root, 0)];
    while let Some((part, depth)) = open.pop() {
        open.extend(part.parts.iter().rev().map(|inner| (inner, depth + 1)));
        let goes_on = part.is_container() || is_mail(&part.mime_type);
        if goes_on && depth >= DEPTH {
            // What is in it was not asked for.
            room.note();
        }
        let Some(mut file) = file(part) else { continue };
        if room.is_full() {
            room.note();
            break;
        }
        let besides = file.part_id.len() + file.mime_type.len();
        let Attachment { filename, filename_raw, content_id, .. } = &mut file;
        let mut texts: Vec<&mut String> = [filename, filename_raw, content_id].into_iter().flatten().collect();
        if !room.takes(&mut texts, NAME, besides) {
            break;
        }
        found.push(file);
    }
    found
}

/// The part as a file, if it is one. Files are: every part with a name; every part whose disposition is `attachment`; a
/// mail within the mail; and whatever else is neither text nor made of parts.
fn file(part: &Part) -> Option<Attachment> {
    if part.is_container() {
        return None;
    }
    let mime_type = mime_type(part);
    let disposition = part.header("Content-Disposition").map(Parameters::read);
    let is_attached = disposition.as_ref().is_some_and(|it| it.value == "attachment");
    let (filename, filename_raw) = name(part, disposition.as_ref());
    let is_text = mime_type.starts_with("text/");
    if is_text && !is_attached && filename.is_none() {
        return None;
    }
    let content_id = part.header("Content-ID").map(|id| {
        let id = words::printable(id);
        id.trim_start_matches('<').trim_end_matches('>').trim().to_owned()
    });
    let content_id = content_id.filter(|id| !id.is_empty());
    Some(Attachment {
        part_id: if part.part_id.is_empty() { ROOT.to_owned() } else { part.part_id.clone() },
        filename,
        filename_raw,
        mime_type,
        size: part.size,
        // Mail programs show what they like of the other files; only this the text itself refers to.
        inline: content_id.is_some() && !is_attached,
        content_id,
    })
}

fn mime_type(part: &Part) -> String {
    let essence = part.mime_type.split(';').next().unwrap_or_default().trim();
    let is_token =
        |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'(' | b')' | b',' | b'<' | b'>' | b'@');
    if essence.len() <= LONGEST_TYPE && essence.split('/').count() == 2 && essence.bytes().all(is_token) {
        essence.to_ascii_lowercase()
    } else {
        "application/octet-stream".to_owned()
    }
}

fn is_mail(mime_type: &str) -> bool {
    ["message/rfc822", "message/global"].iter().any(|kind| mime_type.eq_ignore_ascii_case(kind))
}

/// The name, and its raw form where it does not decode. Gmail's reading of it comes first, then the headers'.
fn name(part: &Part, disposition: Option<&Parameters>) -> (Option<String>, Option<String>) {
    let by_gmail = Some(part.filename.as_str()).filter(|name| !name.is_empty());
    let by_gmail = by_gmail.map(|raw| Named { decoded: words::decode(raw), raw: raw.to_owned() });
    if let Some(Named { decoded: Decoded { text, clean: true }, .. }) = by_gmail {
        return ((!text.is_empty()).then_some(text), None);
    }
    let by_disposition = disposition.and_then(|it| it.text("filename"));
    let by_type = || part.header("Content-Type").and_then(|header| Parameters::read(header).text("name"));
    let mut best: Option<Named> = None;
    for named in [by_disposition, by_type(), by_gmail].into_iter().flatten() {
        if named.decoded.text.is_empty() {
            continue;
        }
        if named.decoded.clean {
            return (Some(named.decoded.text), None);
        }
        best = best.or(Some(named));
    }
    match best {
        Some(Named { decoded, raw }) => (Some(decoded.text), Some(words::printable(&raw))),
        None => (None, None),
    }
}
