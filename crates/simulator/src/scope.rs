//! OAuth scopes, and which of them each method accepts.

use crate::quota::Method;

/// Scopes as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scopes(u8);

/// Names of the scopes in the order of their bits.
const NAMES: [&str; 6] = [
    "https://mail.google.com/",
    "https://www.googleapis.com/auth/gmail.modify",
    "https://www.googleapis.com/auth/gmail.readonly",
    "https://www.googleapis.com/auth/gmail.metadata",
    "https://www.googleapis.com/auth/gmail.compose",
    "https://www.googleapis.com/auth/gmail.labels",
];
const FULL: u8 = 1;
const MODIFY: u8 = 1 << 1;
const READONLY: u8 = 1 << 2;
const METADATA: u8 = 1 << 3;
const COMPOSE: u8 = 1 << 4;
const LABELS: u8 = 1 << 5;

impl Scopes {
    /// What a mailbox is given when nobody says otherwise.
    pub(crate) const READONLY: Self = Self(READONLY);

    /// The Gmail scopes in a list parted by blanks; others (such as `openid`) are left out.
    pub(crate) fn parse(text: &str) -> Self {
        let bits = text.split_whitespace().filter_map(|word| NAMES.iter().position(|name| *name == word));
        Self(bits.fold(0, |scopes, bit| scopes | 1 << bit))
    }

    /// Only what is in both.
    pub(crate) const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether there is none.
    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether the token carries `gmail.metadata`, whatever else it carries: it then may not search.
    pub(crate) const fn has_metadata(self) -> bool {
        self.0 & METADATA != 0
    }

    /// Whether `method` accepts one of these.
    pub(crate) const fn allow(self, method: Method) -> bool {
        let accepted = match method {
            Method::GetProfile => FULL | MODIFY | READONLY | METADATA | COMPOSE,
            Method::ListHistory | Method::ListMessages | Method::GetMessage => FULL | MODIFY | READONLY | METADATA,
            Method::GetAttachment => FULL | MODIFY | READONLY,
            Method::ListLabels => FULL | MODIFY | READONLY | METADATA | LABELS,
            Method::Watch | Method::Stop => FULL | MODIFY | READONLY | METADATA,
        };
        self.0 & accepted != 0
    }
}

impl std::fmt::Display for Scopes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> =
            NAMES.iter().enumerate().filter(|(bit, _)| self.0 & (1 << bit) != 0).map(|(_, name)| *name).collect();
        f.write_str(&names.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_take_the_scopes_of_the_discovery_document() {
        let metadata = Scopes::parse("openid https://www.googleapis.com/auth/gmail.metadata");
        assert!(metadata.has_metadata() && metadata.allow(Method::ListHistory));
        assert!(!metadata.allow(Method::GetAttachment));
        assert!(Scopes::parse("https://www.googleapis.com/auth/gmail.labels").allow(Method::ListLabels));
        let compose = Scopes::parse("https://www.googleapis.com/auth/gmail.compose");
        assert!(compose.allow(Method::GetProfile) && !compose.allow(Method::ListMessages));
        assert_eq!(Scopes::READONLY.to_string(), "https://www.googleapis.com/auth/gmail.readonly");
        assert!(Scopes::parse("openid email").is_empty());
    }
}
