//! Times as arguments: an instant, or so long ago.

use std::fmt;
use std::str::FromStr;

use domain::{Duration, Timestamp};
use jiff::{Span, SpanRelativeTo, Unit};

/// A time that somebody named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// An instant.
    At(Timestamp),
    /// So long before the command was given.
    Ago(Duration),
}

impl When {
    /// The instant that is meant by a command given at `now`.
    pub(crate) fn resolve(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(at) => at,
            Self::Ago(span) => now - span,
        }
    }
}

/// The same for the same time, however it was spelled.
impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(at) => f.write_str(&super::rfc3339(*at)),
            Self::Ago(span) => write!(f, "{}ms ago", span.as_millis()),
        }
    }
}

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(at) = text.parse::<jiff::Timestamp>() {
            return Ok(Self::At(Timestamp::from_millis(at.as_millisecond())));
        }
        let expected = || "expected RFC 3339, such as 2026-11-22T15:00:00Z, or so long ago, such as 90m, 24h or 7d";
        let span: Span = text.parse().map_err(|_| expected().to_owned())?;
        let millis = span.total((Unit::Millisecond, SpanRelativeTo::days_are_24_hours()));
        match millis {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "it is in range, and a fraction of a millisecond is none"
            )]
            Ok(millis) if (0.0..=1e15).contains(&millis) => Ok(Self::Ago(Duration::from_millis(millis as i64))),
            _ => Err(expected().to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_instants_or_so_long_ago() {
        let at = |text: &str| text.parse::<When>().map(|when| when.resolve(Timestamp::from_millis(1_000_000_000_000)));
        for (text, millis) in [
            ("1970-01-01T00:00:01Z", 1_000),
            ("1970-01-01T02:00:00.250+02:00", 250),
            ("0s", 1_000_000_000_000),
            ("24h", 1_000_000_000_000 - 86_400_000),
            ("7d", 1_000_000_000_000 - 7 * 86_400_000),
            ("1h30m", 1_000_000_000_000 - 5_400_000),
        ] {
            assert_eq!(at(text), Ok(Timestamp::from_millis(millis)), "{text}");
        }
        for text in ["", "yesterday", "24", "-24h", "1mo", "2026-11-22", "15:00"] {
            assert!(at(text).is_err(), "{text}: {:?}", at(text));
        }
    }

    #[test]
    fn the_same_time_is_spelled_the_same() {
        let spelled = |text: &str| text.parse::<When>().unwrap().to_string();
        assert_eq!(spelled("24h"), spelled("1d"));
        assert_eq!(spelled("2026-11-22T15:00:00Z"), spelled("2026-11-22T16:00:00+01:00"));
        assert_ne!(spelled("24h"), spelled("25h"));
    }
}
