//! Which messages an organisation wants fetched.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::fetched::GmailMessageFetched;
use crate::mailbox::reply::Label;

/// What an organisation wants fetched; everything, unless it says so. A message has to pass every one of the rules that
/// are set.
///
/// Labels are judged before the message is read where the announcement names them, which saves its units. All else needs
/// the message: Gmail charges the same for every format of it, and a search by the same rules would cost a fourth but
/// lags behind the mail, so it would lose some.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct FetchFilter {
    /// Ids of labels, one of which it must bear.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// Ids of labels, none of which it may bear.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_labels: Vec<String>,
    /// Patterns, one of which an address of its sender must match.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub senders: Vec<Pattern>,
    /// Patterns, none of which an address of its sender may match.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_senders: Vec<Pattern>,
    /// Whether it must have a file beside its text.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub has_attachment: bool,
    /// Patterns of media types, one of which a file of it must match.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mime_types: Vec<Pattern>,
}

/// The rule that a message did not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// [`FetchFilter::labels`] or [`FetchFilter::not_labels`].
    Labels,
    /// [`FetchFilter::senders`] or [`FetchFilter::not_senders`].
    Senders,
    /// [`FetchFilter::has_attachment`].
    HasAttachment,
    /// [`FetchFilter::mime_types`].
    MimeTypes,
}

impl Rule {
    /// The name in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Labels => "labels",
            Self::Senders => "senders",
            Self::HasAttachment => "has_attachment",
            Self::MimeTypes => "mime_types",
        }
    }
}

impl FetchFilter {
    /// The most entries that one rule may have.
    pub const MOST: usize = 100;

    /// Whether everything passes.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The rule that a message with these labels does not pass. No other rule can be judged before it is read.
    pub fn judge_labels(&self, labels: &[Label]) -> Option<Rule> {
        let bears = |wanted: &Vec<String>| labels.iter().any(|label| wanted.iter().any(|id| id == label.as_str()));
        let is_out = bears(&self.not_labels) || !(self.labels.is_empty() || bears(&self.labels));
        is_out.then_some(Rule::Labels)
    }

    /// The rule that a message which was read does not pass, its labels left aside. One that is gone passes: whoever
    /// heard of it may want to know.
    pub fn judge(&self, message: &GmailMessageFetched) -> Option<Rule> {
        if message.gone {
            return None;
        }
        let from = || message.from.iter().filter_map(|from| from.address.as_deref());
        let sent_by = |patterns: &[Pattern]| from().any(|from| patterns.iter().any(|pattern| pattern.matches(from)));
        let has_type = |pattern: &Pattern| message.attachments.iter().any(|file| pattern.matches(&file.mime_type));
        if sent_by(&self.not_senders) || !(self.senders.is_empty() || sent_by(&self.senders)) {
            Some(Rule::Senders)
        } else if self.has_attachment && message.attachments.iter().all(|file| file.inline) {
            Some(Rule::HasAttachment)
        } else if !(self.mime_types.is_empty() || self.mime_types.iter().any(has_type)) {
            Some(Rule::MimeTypes)
        } else {
            None
        }
    }
}

/// A text in which `*` stands for any number of characters, in whatever case: `billing@vendor.example`,
/// `*@vendor.example`, `image/*`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern(String);

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a pattern has from 1 to {} characters, none of them a blank", Pattern::LONGEST)]
pub struct InvalidPattern;

impl Pattern {
    /// The longest pattern, in bytes.
    pub const LONGEST: usize = 320;

    /// Reads a pattern.
    ///
    /// # Errors
    /// When it is empty, too long, or has blanks or control characters in it.
    pub fn new(text: &str) -> Result<Self, InvalidPattern> {
        let is_sound = !text.is_empty()
            && text.len() <= Self::LONGEST
            && !text.chars().any(|char| char.is_whitespace() || char.is_control());
        if is_sound { Ok(Self(text.to_lowercase())) } else { Err(InvalidPattern) }
    }

    /// The pattern as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the whole of `text` matches. Takes time of pattern × text at most.
    pub fn matches(&self, text: &str) -> bool {
        let text = text.to_lowercase();
        let mut parts = self.0.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = text.strip_prefix(first) else { return false };
        let Some(last) = parts.next_back() else { return rest.is_empty() };
        // Taking each part as early as it comes leaves the most for those that follow.
        for part in parts {
            match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        rest.ends_with(last)
    }
}

impl fmt::Debug for Pattern {
    /// Patterns may be addresses.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pattern(…)")
    }
}

impl TryFrom<String> for Pattern {
    type Error = InvalidPattern;

    fn try_from(text: String) -> Result<Self, InvalidPattern> {
        Self::new(&text)
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::{GmailMessageDiscovered, Origin};
    use crate::fetched::{Address, Attachment};
    use crate::id::{ConnectionId, EventId, MessageId, OrganisationId};
    use crate::time::Timestamp;

    fn pattern(text: &str) -> Pattern {
        Pattern::new(text).unwrap()
    }

    #[test]
    fn stars_stand_for_anything() {
        for (text, matching, others) in [
            ("a@b.example", vec!["a@b.example", "A@B.Example"], vec!["aa@b.example", "a@b.example2", ""]),
            ("*@b.example", vec!["a@b.example", "@b.example"], vec!["a@sub.b.example", "a@b.example.org"]),
            ("*@*.b.example", vec!["a@x.b.example"], vec!["a@b.example"]),
            ("image/*", vec!["image/png", "image/"], vec!["ximage/png", "video/image/"]),
            ("*", vec!["", "anything"], vec![]),
            ("a*a", vec!["aa", "aba"], vec!["a", "ab"]),
            ("a**b", vec!["ab", "axxb"], vec!["a"]),
        ] {
            for one in matching {
                assert!(pattern(text).matches(one), "{text} {one}");
            }
            for one in others {
                assert!(!pattern(text).matches(one), "{text} {one}");
            }
        }
        for text in ["", "a b", "a\n", &"x".repeat(321)] {
            assert_eq!(Pattern::new(text), Err(InvalidPattern));
        }
    }

    /// The plain definition, by trying everything.
    fn by_trying(pattern: &[char], text: &[char]) -> bool {
        match (pattern, text) {
            ([], []) => true,
            (['*', rest @ ..], _) => (0..=text.len()).any(|at| by_trying(rest, &text[at..])),
            ([p, pattern @ ..], [t, text @ ..]) => p == t && by_trying(pattern, text),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn a_pattern_matches_what_its_definition_says(text in "[ab]{0,8}", glob in "[ab*]{1,6}") {
            let (chars, globs): (Vec<char>, Vec<char>) = (text.chars().collect(), glob.chars().collect());
            prop_assert_eq!(pattern(&glob).matches(&text), by_trying(&globs, &chars));
        }
    }

    fn message(from: &str, files: &[(&str, bool)]) -> GmailMessageFetched {
        let discovered = GmailMessageDiscovered {
            event_id: EventId::of(ConnectionId::from_uuid(uuid::Uuid::nil()), &MessageId::new("a")),
            organisation_id: OrganisationId::from_uuid(uuid::Uuid::nil()),
            connection_id: ConnectionId::from_uuid(uuid::Uuid::nil()),
            message_id: MessageId::new("a"),
            thread_id: MessageId::new("a"),
            label_ids: None,
            history_id: None,
            origin: Origin::Live,
            job_id: None,
            discovered_at: Timestamp::from_millis(0),
        };
        let file = |(mime_type, inline): &(&str, bool)| Attachment {
            mime_type: (*mime_type).to_owned(),
            inline: *inline,
            ..Attachment::default()
        };
        GmailMessageFetched {
            gone: false,
            from: vec![Address { address: Some(from.to_owned()), ..Address::default() }],
            attachments: files.iter().map(file).collect(),
            ..GmailMessageFetched::gone(&discovered, Timestamp::from_millis(0))
        }
    }

    #[test]
    fn each_rule_is_told_apart() {
        let labels = |ids: &[&str]| ids.iter().map(|id| Label::new(id)).collect::<Vec<_>>();
        let filter = FetchFilter {
            labels: vec!["INBOX".into(), "Label_7".into()],
            not_labels: vec!["CATEGORY_PROMOTIONS".into()],
            senders: vec![pattern("*@vendor.example")],
            not_senders: vec![pattern("noreply@*")],
            has_attachment: true,
            mime_types: vec![pattern("application/pdf")],
        };
        assert_eq!(filter.judge_labels(&labels(&["Label_7"])), None);
        assert_eq!(filter.judge_labels(&labels(&["Label_8"])), Some(Rule::Labels));
        assert_eq!(filter.judge_labels(&labels(&["INBOX", "CATEGORY_PROMOTIONS"])), Some(Rule::Labels));
        let pdf = ("application/pdf", false);
        assert_eq!(filter.judge(&message("ap@Vendor.example", &[pdf])), None);
        assert_eq!(filter.judge(&message("ap@other.example", &[pdf])), Some(Rule::Senders));
        assert_eq!(filter.judge(&message("noreply@vendor.example", &[pdf])), Some(Rule::Senders));
        assert_eq!(filter.judge(&message("ap@vendor.example", &[("image/png", true)])), Some(Rule::HasAttachment));
        assert_eq!(filter.judge(&message("ap@vendor.example", &[("image/png", false)])), Some(Rule::MimeTypes));
        let gone = GmailMessageFetched { gone: true, ..message("ap@other.example", &[]) };
        assert_eq!(filter.judge(&gone), None);
        let all = FetchFilter::default();
        assert!(all.is_empty() && all.judge_labels(&[]).is_none() && all.judge(&message("x", &[])).is_none());
    }
}
