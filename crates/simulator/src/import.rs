//! Mail from files: mbox (mboxrd), Maildir, single `.eml`. Malformed mail is kept, never refused.

use std::io;
use std::path::{Path, PathBuf};

use crate::label;

/// One mail of an import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The mail's bytes.
    pub raw: Vec<u8>,
    /// What the file's flags say, as bits of system labels; `None` where the format has no flags.
    pub(crate) labels: Option<u16>,
}

/// Why an import could not be read.
#[derive(Debug, thiserror::Error)]
#[error("Reading mail from {}: {source}", path.display())]
pub struct Error {
    /// The file or folder.
    path: PathBuf,
    /// What the system said.
    source: io::Error,
}

/// All mail at `path`: a Maildir (a folder with `cur` or `new`), a folder of `.eml` files, an mbox, or one mail.
///
/// # Errors
/// When a file or folder cannot be read. What is in it is taken as it is.
pub fn read(path: &Path) -> Result<Vec<Imported>, Error> {
    let error = |path: &Path| {
        let path = path.to_owned();
        move |source| Error { path, source }
    };
    let meta = std::fs::metadata(path).map_err(error(path))?;
    if !meta.is_dir() {
        let bytes = std::fs::read(path).map_err(error(path))?;
        return Ok(mbox(&bytes).into_iter().map(|raw| Imported { raw, labels: None }).collect());
    }
    let mut mails = Vec::new();
    let folders = [path.join("cur"), path.join("new")];
    let maildir = folders.iter().any(|folder| folder.is_dir());
    let folders =
        if maildir { folders.into_iter().filter(|folder| folder.is_dir()).collect() } else { vec![path.into()] };
    for folder in folders {
        for file in sorted_files(&folder).map_err(error(&folder))? {
            let raw = std::fs::read(&file).map_err(error(&file))?;
            let labels = maildir.then(|| labels_of(&file));
            mails.push(Imported { raw, labels });
        }
    }
    Ok(mails)
}

/// The mails of an mbox in the variant mboxrd: `>From ` at the start of a line loses one `>`. Bytes that do not
/// begin as an mbox does are one mail.
pub fn mbox(bytes: &[u8]) -> Vec<Vec<u8>> {
    if !bytes.starts_with(b"From ") {
        return if bytes.is_empty() { Vec::new() } else { vec![bytes.to_vec()] };
    }
    let mut mails: Vec<Vec<u8>> = Vec::new();
    let mut after_blank = true;
    for line in bytes.split_inclusive(|&byte| byte == b'\n') {
        if line.starts_with(b"From ") && (after_blank || is_postmark(line)) {
            mails.push(Vec::new());
        } else if let Some(mail) = mails.last_mut() {
            mail.extend_from_slice(unquoted(line));
        }
        after_blank = line.trim_ascii().is_empty();
    }
    // The blank line before a postmark, and at the end, belongs to the format.
    for mail in &mut mails {
        let end = mail.strip_suffix(b"\r\n\r\n").map(|rest| rest.len() + 2);
        let end = end.or_else(|| mail.strip_suffix(b"\n\n").map(|rest| rest.len() + 1));
        mail.truncate(end.unwrap_or(mail.len()));
    }
    mails
}

/// Whether a line that begins with `From ` ends with a time and a year, as the line before a mail does. Without
/// it, a mail whose end lost its blank line would be read as part of the one before.
fn is_postmark(line: &[u8]) -> bool {
    let text = String::from_utf8_lossy(line);
    let words: Vec<&str> = text.split_whitespace().collect();
    let is_time = |word: &&str| {
        let mut parts = word.split(':');
        let all_digits = parts.clone().all(|part| part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit()));
        all_digits && (2..=3).contains(&parts.by_ref().count())
    };
    let is_year = |word: &&str| word.len() == 4 && word.bytes().all(|b| b.is_ascii_digit());
    let tail = words.len().saturating_sub(4);
    words.len() >= 6 && words[tail..].iter().any(is_time) && words[tail..].iter().any(is_year)
}

fn unquoted(line: &[u8]) -> &[u8] {
    let marks = line.iter().take_while(|&&byte| byte == b'>').count();
    if marks > 0 && line[marks..].starts_with(b"From ") { &line[1..] } else { line }
}

fn sorted_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        if entry.file_type()?.is_file() && !hidden {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

/// Labels by the flags at the end of a Maildir file's name (`…:2,FS`).
fn labels_of(file: &Path) -> u16 {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let flags = name.rsplit_once(":2,").map_or("", |(_, flags)| flags);
    let has = |flag| flags.contains(flag);
    let place = match () {
        () if has('D') => label::DRAFT,
        () if has('T') => label::TRASH,
        () => label::INBOX,
    };
    let unread = if has('S') { 0 } else { label::UNREAD };
    let starred = if has('F') { label::STARRED } else { 0 };
    place | unread | starred
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mboxrd_is_split_and_unquoted() {
        let text = b"From a@b Thu Jan  1 00:00:00 2026\nSubject: 1\n\n>From here\n>>From there\n> From kept\n\n\
            From b@c Thu Jan  1 00:00:01 2026\nSubject: 2\n\nlost its blank line\n\
            From c@d Thu Jan  1 00:00:02 2026\nSubject: 3\n\nFrom what I hear, all is well\n\nFrom \n\n";
        let mails = mbox(text);
        let texts: Vec<&str> = mails.iter().map(|mail| std::str::from_utf8(mail).unwrap()).collect();
        assert_eq!(texts[0], "Subject: 1\n\nFrom here\n>From there\n> From kept\n");
        assert_eq!(texts[1], "Subject: 2\n\nlost its blank line\n");
        // After a blank line every `From ` begins a mail: a writer of mboxrd would have quoted it.
        assert_eq!(texts[2], "Subject: 3\n");
        assert_eq!(texts[3], "\n");
        assert_eq!(texts.len(), 5);
    }

    #[test]
    fn what_is_no_mbox_is_one_mail() {
        assert_eq!(mbox(b"Subject: x\n\nFrom y\n").len(), 1);
        assert!(mbox(b"").is_empty());
    }

    #[test]
    fn maildir_flags_become_labels() {
        let labels = |name: &str| labels_of(Path::new(name));
        assert_eq!(labels("/m/cur/1.x:2,S"), label::INBOX);
        assert_eq!(labels("/m/new/1.x"), label::INBOX | label::UNREAD);
        assert_eq!(labels("/m/cur/1.x:2,FST"), label::TRASH | label::STARRED);
        assert_eq!(labels("/m/cur/1.x:2,D"), label::DRAFT | label::UNREAD);
    }
}
