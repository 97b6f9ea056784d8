//! The `fields` parameter: which parts of a response are wanted.
//!
//! Grammar (Google's partial responses): names parted by commas, `a/b` goes into `a`, `a(b,c)` takes several
//! of `a`, `*` is every name at its level.

/// What is wanted of a value.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Mask {
    /// The whole value.
    #[default]
    All,
    /// These members only; `*` stands for all others.
    Only(Vec<(String, Mask)>),
}

/// A mask that does not parse, or names what the response does not have.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("Invalid field selection {path}")]
pub(crate) struct Error {
    /// The path that is wrong.
    pub(crate) path: String,
}

/// How deep masks may nest; a mask is not recursive, so real ones stay far below.
const MAX_DEPTH: usize = 64;

impl Mask {
    /// What is wanted of the member `name`; `None` if nothing.
    pub(crate) fn get(&self, name: &str) -> Option<&Mask> {
        match self {
            Mask::All => Some(&Mask::All),
            Mask::Only(members) => {
                let exact = members.iter().find(|(member, _)| member == name);
                exact.or_else(|| members.iter().find(|(member, _)| member == "*")).map(|(_, mask)| mask)
            }
        }
    }

    /// Whether every name of the mask is a member that `shape` knows; else the first path that is not.
    pub(crate) fn check(&self, shape: &Shape) -> Result<(), Error> {
        self.check_under(shape, "")
    }

    fn check_under(&self, shape: &Shape, prefix: &str) -> Result<(), Error> {
        let Mask::Only(members) = self else { return Ok(()) };
        for (name, mask) in members {
            let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}/{name}") };
            if name == "*" {
                continue;
            }
            match shape.member(name) {
                Some(inner) => mask.check_under(inner, &path)?,
                None => return Err(Error { path }),
            }
        }
        Ok(())
    }

    fn add(&mut self, path: &[&str], last: Mask) {
        let Mask::Only(members) = self else { return };
        let Some((name, rest)) = path.split_first() else {
            match last {
                Mask::All => *self = Mask::All,
                Mask::Only(more) => more.into_iter().for_each(|(name, mask)| self.add(&[&name], mask)),
            }
            return;
        };
        let at = members.iter().position(|(member, _)| member == name).unwrap_or_else(|| {
            members.push(((*name).to_owned(), Mask::Only(Vec::new())));
            members.len() - 1
        });
        members[at].1.add(rest, last);
    }
}

/// The members of a response's schema: names, each with the shape of its value.
#[derive(Debug)]
pub(crate) struct Shape(pub(crate) &'static [(&'static str, &'static Shape)]);

impl Shape {
    fn member(&self, name: &str) -> Option<&'static Shape> {
        self.0.iter().find(|(member, _)| *member == name).map(|(_, shape)| *shape)
    }
}

/// A value without members.
pub(crate) static LEAF: Shape = Shape(&[]);
static BODY: Shape = Shape(&[("attachmentId", &LEAF), ("size", &LEAF), ("data", &LEAF)]);
static HEADER: Shape = Shape(&[("name", &LEAF), ("value", &LEAF)]);
static PART: Shape = Shape(&[
    ("partId", &LEAF),
    ("mimeType", &LEAF),
    ("filename", &LEAF),
    ("headers", &HEADER),
    ("body", &BODY),
    ("parts", &PART),
]);
/// `Message` of the discovery document.
pub(crate) static MESSAGE: Shape = Shape(&[
    ("id", &LEAF),
    ("threadId", &LEAF),
    ("labelIds", &LEAF),
    ("snippet", &LEAF),
    ("historyId", &LEAF),
    ("internalDate", &LEAF),
    ("payload", &PART),
    ("sizeEstimate", &LEAF),
    ("raw", &LEAF),
    ("classificationLabelValues", &LEAF),
]);
static MESSAGE_CHANGE: Shape = Shape(&[("message", &MESSAGE)]);
static LABEL_CHANGE: Shape = Shape(&[("message", &MESSAGE), ("labelIds", &LEAF)]);
static HISTORY: Shape = Shape(&[
    ("id", &LEAF),
    ("messages", &MESSAGE),
    ("messagesAdded", &MESSAGE_CHANGE),
    ("messagesDeleted", &MESSAGE_CHANGE),
    ("labelsAdded", &LABEL_CHANGE),
    ("labelsRemoved", &LABEL_CHANGE),
]);
/// `ListHistoryResponse` of the discovery document.
pub(crate) static HISTORY_LIST: Shape = Shape(&[("history", &HISTORY), ("nextPageToken", &LEAF), ("historyId", &LEAF)]);
/// `ListMessagesResponse` of the discovery document.
pub(crate) static MESSAGE_LIST: Shape =
    Shape(&[("messages", &MESSAGE), ("nextPageToken", &LEAF), ("resultSizeEstimate", &LEAF)]);
/// `Profile` of the discovery document.
pub(crate) static PROFILE: Shape =
    Shape(&[("emailAddress", &LEAF), ("messagesTotal", &LEAF), ("threadsTotal", &LEAF), ("historyId", &LEAF)]);
/// `MessagePartBody`, which attachments.get answers.
pub(crate) static ATTACHMENT: Shape = Shape(&[("attachmentId", &LEAF), ("size", &LEAF), ("data", &LEAF)]);
static COLOR: Shape = Shape(&[("textColor", &LEAF), ("backgroundColor", &LEAF)]);
static LABEL: Shape = Shape(&[
    ("id", &LEAF),
    ("name", &LEAF),
    ("type", &LEAF),
    ("messageListVisibility", &LEAF),
    ("labelListVisibility", &LEAF),
    ("messagesTotal", &LEAF),
    ("messagesUnread", &LEAF),
    ("threadsTotal", &LEAF),
    ("threadsUnread", &LEAF),
    ("color", &COLOR),
]);
/// `ListLabelsResponse` of the discovery document.
pub(crate) static LABEL_LIST: Shape = Shape(&[("labels", &LABEL)]);
/// `WatchResponse` of the discovery document.
pub(crate) static WATCH: Shape = Shape(&[("historyId", &LEAF), ("expiration", &LEAF)]);

/// Reads a `fields` parameter; empty is everything.
pub(crate) fn parse(text: &str) -> Result<Mask, Error> {
    if text.trim().is_empty() {
        return Ok(Mask::All);
    }
    let mut rest = text;
    let mask = list(&mut rest, 0).ok_or_else(|| Error { path: text.to_owned() })?;
    if rest.is_empty() { Ok(mask) } else { Err(Error { path: text.to_owned() }) }
}

fn list(rest: &mut &str, depth: usize) -> Option<Mask> {
    let mut mask = Mask::Only(Vec::new());
    if depth > MAX_DEPTH {
        return None;
    }
    loop {
        let mut path = Vec::new();
        loop {
            let end = rest.find(['/', ',', '(', ')']).unwrap_or(rest.len());
            let (name, tail) = rest.split_at(end);
            let name = name.trim();
            if name.is_empty() {
                return None;
            }
            path.push(name);
            *rest = tail;
            match rest.strip_prefix('/') {
                Some(tail) => *rest = tail,
                None => break,
            }
        }
        let last = match rest.strip_prefix('(') {
            Some(tail) => {
                *rest = tail;
                let inner = list(rest, depth + 1)?;
                *rest = rest.strip_prefix(')')?.trim_start();
                inner
            }
            None => Mask::All,
        };
        mask.add(&path, last);
        match rest.strip_prefix(',') {
            Some(tail) => *rest = tail,
            None => return Some(mask),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_of_the_fact_sheet() {
        let mask = parse("id,payload(mimeType,headers,body(size,attachmentId),parts(partId,parts(partId)))").unwrap();
        assert_eq!(mask.check(&MESSAGE), Ok(()));
        let payload = mask.get("payload").unwrap();
        assert_eq!(payload.get("headers"), Some(&Mask::All));
        assert_eq!(payload.get("body").unwrap().get("data"), None);
        assert_eq!(payload.get("parts").unwrap().get("parts").unwrap().get("mimeType"), None);
        assert_eq!(mask.get("snippet"), None);
    }

    #[test]
    fn paths_lists_and_stars() {
        let mask = parse("history/messagesAdded/message(id,labelIds),history/id,nextPageToken").unwrap();
        assert_eq!(mask.check(&HISTORY_LIST), Ok(()));
        let history = mask.get("history").unwrap();
        assert_eq!(history.get("id"), Some(&Mask::All));
        assert!(history.get("messages").is_none());
        assert_eq!(parse("*").unwrap().get("anything"), Some(&Mask::All));
        assert_eq!(parse(""), Ok(Mask::All));
        assert_eq!(parse("a,a/b").unwrap().get("a"), Some(&Mask::All));
    }

    #[test]
    fn what_does_not_parse_or_exist_is_refused() {
        for wrong in ["a,", "a(b", "a)", "a//b", ",a", "a(b))", "()"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        let unknown = parse("messages(id,nope)").unwrap().check(&MESSAGE_LIST);
        assert_eq!(unknown, Err(Error { path: "messages/nope".to_owned() }));
    }

    proptest::proptest! {
        #[test]
        fn anything_can_be_given(text in "[a-c*/(), ]{0,40}") {
            if let Ok(mask) = parse(&text) {
                let _ = (mask.get("a"), mask.check(&MESSAGE));
            }
        }
    }
}
