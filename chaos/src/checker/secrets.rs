//! Looks for what must be seen nowhere.

use std::collections::BTreeMap;

use memchr::memmem::Finder;

/// Shorter ones could be seen by chance.
const SHORTEST: usize = 8;

/// How Google's tokens look, those of the simulator too: a beginning, and then so many hexadecimal numbers, of which the
/// last has sixteen digits, with dashes between.
const TOKENS: [(&str, &str, usize); 2] = [("a refresh token", "1//0", 3), ("an access token", "ya29.", 5)];

/// What is looked for: known secrets, and tokens, which are made while we look on.
#[derive(Debug, Clone, Default)]
pub struct Secrets {
    known: Vec<(String, Finder<'static>)>,
    tokens: Vec<(&'static str, Finder<'static>, usize)>,
}

impl Secrets {
    /// Secrets by the names under which they are reported, and all tokens.
    ///
    /// # Panics
    /// When one is so short that it could be seen by chance.
    #[must_use]
    pub fn new(known: &BTreeMap<String, String>) -> Self {
        let finder = |(name, secret): (&String, &String)| {
            assert!(secret.len() >= SHORTEST, "{name} could be seen by chance");
            (name.clone(), Finder::new(secret.as_bytes()).into_owned())
        };
        let token = |(name, begin, numbers): (&'static str, &'static str, usize)| (name, Finder::new(begin), numbers);
        Self { known: known.iter().map(finder).collect(), tokens: TOKENS.map(token).into() }
    }

    /// Which of them are seen in `bytes`, as sentences that name the secret and `place`, not what it is.
    pub(super) fn seen(&self, bytes: &[u8], place: impl Fn() -> String) -> Vec<String> {
        let tell = |name: &str, at: usize| format!("{name} in {}, at byte {at}", place());
        let known = self.known.iter().filter_map(|(name, finder)| Some(tell(name, finder.find(bytes)?)));
        let tokens = self.tokens.iter().filter_map(|(name, finder, numbers)| {
            let mut found = finder.find_iter(bytes);
            let at = found.find(|at| is_token(&bytes[at + finder.needle().len()..], *numbers))?;
            Some(tell(name, at))
        });
        known.chain(tokens).collect()
    }
}

/// Whether `rest` begins with so many hexadecimal numbers with dashes between, the last of sixteen digits.
fn is_token(rest: &[u8], numbers: usize) -> bool {
    let digits = |part: &[u8]| part.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let mut parts = rest.splitn(numbers, |byte| *byte == b'-');
    let whole = parts.by_ref().take(numbers - 1).all(|part| !part.is_empty() && digits(part) == part.len());
    whole && parts.next().is_some_and(|last| digits(last) >= 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(text: &str) -> Vec<String> {
        let known = BTreeMap::from([("the key".to_owned(), "0123456789".to_owned())]);
        Secrets::new(&known).seen(text.as_bytes(), || "a log".to_owned())
    }

    #[test]
    fn secrets_are_found_and_not_told() {
        assert_eq!(seen("nothing to see: 1//0 and 1//02-3, ya29. and ya29.a-b"), Vec::<String>::new());
        assert_eq!(seen("look: 0123456789"), ["the key in a log, at byte 6"]);
        assert_eq!(seen("1//0x 1//0a-1-0123456701234567\""), ["a refresh token in a log, at byte 6"]);
        assert_eq!(seen("ya29.a-1-0-18f-0123456701234567"), ["an access token in a log, at byte 0"]);
    }
}
