//! Reads a query: terms side by side are all wanted, `OR` binds its two neighbours, `-` negates, `{}` is any of,
//! `()` groups, and an operator before a group applies to each word in it.

use std::ops::Range;

use super::date::{self, Date};
use super::{Node, Query, Term};
use crate::label::{self, Label, Table};

/// Groups nested deeper than this are not understood.
const MAX_DEPTH: usize = 50;

/// Reads `text`; relative dates count from `now_ms`.
pub(crate) fn parse(text: &str, labels: &Table, now_ms: i64) -> Query {
    let mut parser = Parser { tokens: tokens(text), at: 0, labels, now_ms, unknown: Vec::new() };
    let mut root = parser.list(None, None, 0);
    while parser.at < parser.tokens.len() {
        // A closing bracket that nothing opened; Gmail ignores it.
        parser.at += 1;
        let more = parser.list(None, None, 0);
        root = Node::All(vec![root, more]);
    }
    Query { root: flat(root), unknown: parser.unknown }
}

/// The query's window by date is read from the outermost conjunction, so nested ones are lifted into it.
fn flat(node: Node) -> Node {
    match node {
        Node::All(nodes) => {
            let mut flattened = Vec::new();
            for node in nodes.into_iter().map(flat) {
                match node {
                    Node::All(inner) => flattened.extend(inner),
                    other => flattened.push(other),
                }
            }
            Node::All(flattened)
        }
        other => other,
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Minus,
    Open(char),
    Close(char),
    Or,
    And,
    /// A word in front of a colon.
    Operator(String),
    /// A word or a quoted phrase.
    Word(String),
}

fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    // `-` negates only at the start of a term.
    let mut fresh = true;
    while let Some(c) = chars.next() {
        match c {
            c if c.is_whitespace() => fresh = true,
            '(' | '{' => {
                tokens.push(Token::Open(c));
                fresh = true;
            }
            ')' | '}' => {
                tokens.push(Token::Close(c));
                fresh = false;
            }
            '-' if fresh && chars.peek().is_some_and(|next| !next.is_whitespace()) => tokens.push(Token::Minus),
            '+' if fresh => {}
            '"' => {
                let mut phrase = String::new();
                for c in chars.by_ref().take_while(|&c| c != '"') {
                    phrase.push(c);
                }
                tokens.push(Token::Word(phrase));
                fresh = false;
            }
            first => {
                let mut word = String::from(first);
                let mut operator = false;
                while let Some(&next) = chars.peek() {
                    if next.is_whitespace() || matches!(next, '(' | ')' | '{' | '}' | '"') {
                        break;
                    }
                    chars.next();
                    if next == ':' && !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
                        operator = true;
                        break;
                    }
                    word.push(next);
                }
                tokens.push(match (operator, word.as_str()) {
                    (true, _) => Token::Operator(word.to_ascii_lowercase()),
                    (false, "OR" | "|") => Token::Or,
                    (false, "AND") => Token::And,
                    (false, _) => Token::Word(word),
                });
                fresh = operator;
            }
        }
    }
    tokens
}

struct Parser<'a> {
    tokens: Vec<Token>,
    at: usize,
    labels: &'a Table,
    now_ms: i64,
    unknown: Vec<String>,
}

impl Parser<'_> {
    /// Terms up to `close`, each word in it under `operator`.
    fn list(&mut self, close: Option<char>, operator: Option<&str>, depth: usize) -> Node {
        let mut nodes: Vec<Node> = Vec::new();
        let mut or = false;
        while let Some(token) = self.tokens.get(self.at).cloned() {
            match token {
                Token::Close(bracket) if Some(bracket) == close || close.is_none() => break,
                // The wrong kind of bracket; Gmail takes no offence.
                Token::Close(_) | Token::And => self.at += 1,
                Token::Or => {
                    self.at += 1;
                    or = true;
                }
                Token::Minus | Token::Open(_) | Token::Operator(_) | Token::Word(_) => {
                    let Some(node) = self.term(operator, depth) else { continue };
                    match (std::mem::take(&mut or), nodes.pop()) {
                        (true, Some(Node::Any(mut any))) => {
                            any.push(node);
                            nodes.push(Node::Any(any));
                        }
                        (true, Some(last)) => nodes.push(Node::Any(vec![last, node])),
                        (false, Some(last)) => nodes.extend([last, node]),
                        (_, None) => nodes.push(node),
                    }
                }
            }
        }
        match (close, nodes.len()) {
            (_, 1) => nodes.remove(0),
            (Some('}'), _) => Node::Any(nodes),
            _ => Node::All(nodes),
        }
    }

    /// One term, group or negation; `None` at the end of the query.
    fn term(&mut self, operator: Option<&str>, depth: usize) -> Option<Node> {
        let token = self.tokens.get(self.at).cloned()?;
        self.at += 1;
        if depth > MAX_DEPTH {
            self.unknown.push("a group nested too deeply".to_owned());
            return None;
        }
        match token {
            Token::Minus => self.term(operator, depth + 1).map(|node| Node::Not(Box::new(node))),
            Token::Open(open) => {
                let close = if open == '{' { '}' } else { ')' };
                let node = self.list(Some(close), operator, depth + 1);
                self.at += 1;
                // In brackets, so that a following `OR` does not reach into it.
                Some(if matches!(node, Node::Any(_)) { Node::All(vec![node]) } else { node })
            }
            Token::Operator(name) => match self.tokens.get(self.at) {
                Some(Token::Word(_) | Token::Open(_) | Token::Minus) => self.term(Some(&name), depth + 1),
                _ => {
                    self.unknown.push(format!("{name}:"));
                    None
                }
            },
            Token::Word(word) => Some(self.word(operator, &word)),
            Token::Close(_) | Token::Or | Token::And => None,
        }
    }

    fn word(&mut self, operator: Option<&str>, word: &str) -> Node {
        let lower = word.to_lowercase();
        let term = match operator {
            None => Some(Term::Words(lower)),
            Some("after" | "newer") => Some(self.dates(word, |at| at..i64::MAX)),
            Some("before" | "older") => Some(self.dates(word, |at| i64::MIN..at)),
            Some("newer_than") => date::ago(&lower, self.now_ms).map(|at| Term::Dates(at..i64::MAX)),
            Some("older_than") => date::ago(&lower, self.now_ms).map(|at| Term::Dates(i64::MIN..at)),
            Some("in") => place(&lower).or_else(|| self.label(word)),
            Some("is") => state(&lower),
            Some("label") => Some(place(&lower).or_else(|| self.label(word)).unwrap_or(Term::Never)),
            Some("category") => category(&lower),
            Some("has") => match lower.as_str() {
                "attachment" => Some(Term::Attachment),
                "userlabels" => Some(Term::UserLabels),
                "nouserlabels" => return Node::Not(Box::new(Node::Term(Term::UserLabels))),
                "yellow-star" => Some(Term::System(label::STARRED)),
                _ => None,
            },
            Some("filename") => Some(Term::Filename(lower)),
            Some("rfc822msgid") => Some(Term::MessageId(word.trim_matches(['<', '>']).to_owned())),
            Some("subject") => Some(Term::Header("Subject", lower)),
            Some("from") => Some(Term::Header("From", lower)),
            Some("to") => Some(Term::Header("To", lower)),
            Some("cc") => Some(Term::Header("Cc", lower)),
            Some("bcc") => Some(Term::Header("Bcc", lower)),
            Some("list") => Some(Term::Header("List-Id", lower)),
            Some("deliveredto") => Some(Term::Header("Delivered-To", lower)),
            Some("larger" | "size") => bytes(&lower).map(Term::Larger),
            Some("smaller") => bytes(&lower).map(Term::Smaller),
            Some(_) => None,
        };
        Node::Term(term.unwrap_or_else(|| {
            self.unknown.push(format!("{}:{word}", operator.unwrap_or_default()));
            Term::Never
        }))
    }

    fn dates(&self, word: &str, range: impl FnOnce(i64) -> Range<i64>) -> Term {
        match date::parse(word) {
            Date::At(ms) => Term::Dates(range(ms)),
            Date::Nothing => Term::Never,
        }
    }

    fn label(&self, word: &str) -> Option<Term> {
        self.labels.find(word).map(|label| match label {
            Label::System(bit) => Term::System(bit),
            Label::User(_) => Term::Label(label),
        })
    }
}

fn place(text: &str) -> Option<Term> {
    Some(match text {
        "inbox" => Term::System(label::INBOX),
        "sent" => Term::System(label::SENT),
        "draft" | "drafts" => Term::System(label::DRAFT),
        "spam" => Term::System(label::SPAM),
        "trash" => Term::System(label::TRASH),
        "chat" | "chats" => Term::System(label::CHAT),
        "unread" => Term::System(label::UNREAD),
        "starred" => Term::System(label::STARRED),
        "important" => Term::System(label::IMPORTANT),
        "anywhere" | "all" => Term::Anywhere,
        "archive" => {
            Term::NoSystem(label::INBOX | label::SENT | label::DRAFT | label::SPAM | label::TRASH | label::CHAT)
        }
        _ => return None,
    })
}

fn state(text: &str) -> Option<Term> {
    match text {
        "read" => Some(Term::NoSystem(label::UNREAD)),
        "unread" | "starred" | "important" | "chat" | "sent" | "draft" | "spam" | "trash" | "inbox" => place(text),
        _ => None,
    }
}

fn category(text: &str) -> Option<Term> {
    let id = match text {
        "primary" | "personal" => "CATEGORY_PERSONAL",
        "social" => "CATEGORY_SOCIAL",
        "promotions" => "CATEGORY_PROMOTIONS",
        "updates" => "CATEGORY_UPDATES",
        "forums" => "CATEGORY_FORUMS",
        _ => return None,
    };
    let bit = label::SYSTEM.iter().position(|name| *name == id)?;
    Some(Term::System(1 << bit))
}

fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = match text.strip_suffix(['k', 'm']) {
        Some(number) if text.ends_with('k') => (number, 1 << 10),
        Some(number) => (number, 1 << 20),
        None => (text, 1),
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::label::LabelSet;
    use crate::mime::Mail;
    use crate::query::Subject;

    const MAIL: &[u8] = b"Subject: Your invoice 4711\r\nFrom: Ann <ann@shop.example>\r\nTo: me@example.org\r\n\
        Message-ID: <m1@shop>\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nplease pay\r\n--b\r\n\
        Content-Type: application/pdf; name=Invoice.pdf\r\n\r\nx\r\n--b--\r\n";

    fn asks(q: &str) -> Query {
        let mut table = Table::default();
        table.set_of(["Work/Bills"]).unwrap();
        parse(q, &table, 1_700_000_000_000)
    }

    fn matches(q: &str, bits: u16) -> bool {
        let mut table = Table::default();
        let user = table.set_of(["Work/Bills"]).unwrap();
        let labels = table.union(user, LabelSet::system(bits)).unwrap();
        let mail = Arc::new(Mail::new(MAIL));
        let subject = Subject { internal_ms: 1_600_000_000_500, labels, table: &table, mail: &|| Arc::clone(&mail) };
        let query = parse(q, &table, 1_700_000_000_000);
        assert_eq!(query.unknown, Vec::<String>::new(), "{q}");
        query.matches(&subject)
    }

    #[test]
    fn what_matches() {
        for q in [
            "",
            "in:inbox",
            "after:1600000000 before:1600000001",
            "after:1600000000 before:1600000001 -in:drafts -in:chats",
            "after:2020/09/12 before:2020/09/14",
            "older_than:1y newer_than:10y",
            "{in:spam in:inbox}",
            "in:spam OR in:inbox",
            "in:spam OR in:trash OR is:unread",
            "-(in:spam in:inbox)",
            "-{in:spam in:trash}",
            "label:work-bills",
            "label:\"Work/Bills\"",
            "label:Label_1",
            "has:attachment filename:pdf",
            "has:userlabels",
            "subject:(invoice 4711)",
            "subject:{klingon invoice}",
            "from:ann from:shop.example",
            "\"please pay\" invoice",
            "rfc822msgid:<m1@shop>",
            "larger:10 smaller:1M",
            "in:anywhere is:unread",
            "in:trash OR (is:unread -is:starred)",
        ] {
            assert!(matches(q, label::INBOX | label::UNREAD), "{q}");
        }
    }

    #[test]
    fn what_does_not_match() {
        for q in [
            "-in:inbox",
            "after:1600000001",
            "before:1600000000",
            "after:1600000000000",
            "after:0",
            "after:2020-09-12T00:00:00Z",
            "in:spam",
            "{in:spam in:trash}",
            "-{in:spam in:inbox}",
            "label:no-such-label",
            "is:read",
            "has:nouserlabels",
            "subject:(invoice 4712)",
            "invoi",
            "in:archive",
            "in:spam OR in:trash is:unread",
            "smaller:10",
        ] {
            assert!(!matches(q, label::INBOX | label::UNREAD), "{q}");
        }
    }

    #[test]
    fn what_is_unknown_is_named_and_matches_nothing() {
        for (q, unknown) in [
            ("frob:nicate", "frob:nicate"),
            ("-frob:nicate", "frob:nicate"),
            ("in:inbox OR frob:x", "frob:x"),
            ("in:nowhere", "in:nowhere"),
            ("has:drive", "has:drive"),
            ("older_than:3w", "older_than:3w"),
            ("after:", "after:"),
        ] {
            let query = asks(q);
            assert_eq!(query.unknown, [unknown], "{q}");
            let mail = Arc::new(Mail::new(MAIL));
            let labels = LabelSet::system(label::INBOX);
            let table = Table::default();
            let subject = Subject { internal_ms: 1, labels, table: &table, mail: &|| Arc::clone(&mail) };
            assert!(!query.matches(&subject), "{q}");
        }
    }

    #[test]
    fn windows_and_spam_are_seen_in_the_query() {
        let query = asks("after:1600000000 (before:1600000001 -in:drafts) in:inbox");
        assert_eq!(query.dates(), 1_600_000_000_000..1_600_000_001_000);
        assert!(!query.asks_for_spam_or_trash());
        assert!(asks("{in:spam in:trash}").asks_for_spam_or_trash());
        assert!(!asks("-in:spam").asks_for_spam_or_trash());
        assert!(asks("in:anywhere").asks_for_spam_or_trash());
        assert_eq!(asks("after:5 OR before:3").dates(), i64::MIN..i64::MAX);
    }

    #[test]
    fn broken_brackets_do_not_hang() {
        for q in ["((((", "}}}}", "{a", "a)b", "-", "OR", "OR a", "a OR", "\"open", "(a}", "-(", "from:("] {
            let _ = asks(q);
        }
        let deep = "(".repeat(10_000);
        assert!(!asks(&deep).unknown.is_empty());
    }

    proptest::proptest! {
        #[test]
        fn anything_can_be_asked(q in "[-+(){}\"|:a-c0-9/ ORin]{0,60}|.{0,60}") {
            let mail = Arc::new(Mail::new(MAIL));
            let table = Table::default();
            let labels = LabelSet::system(label::INBOX);
            let subject = Subject { internal_ms: 1, labels, table: &table, mail: &|| Arc::clone(&mail) };
            let query = parse(&q, &table, 1_700_000_000_000);
            let inside = query.dates().contains(&1);
            proptest::prop_assert!(inside || !query.matches(&subject), "what matches lies in the query's window");
        }
    }
}
