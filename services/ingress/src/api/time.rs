//! Times as callers write them: RFC 3339, within the years that there is mail of.

use domain::{Duration, Timestamp};

/// Gmail's birth, 2004-04-01T00:00:00Z: there is no older mail of it.
pub(super) const FIRST: Timestamp = Timestamp::from_millis(1_080_777_600_000);

/// A clock that runs ahead of ours by no more is believed to mean now.
const AHEAD: Duration = Duration::from_millis(60_000);

/// Reads RFC 3339 §5.6, to the millisecond; none for all else, such as dates alone, other calendars' spellings, or times
/// without an offset.
pub(super) fn rfc3339(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    let digits =
        |range: std::ops::Range<usize>| bytes.get(range).is_some_and(|part| part.iter().all(u8::is_ascii_digit));
    let is = |at: usize, any_of: &[u8]| bytes.get(at).is_some_and(|byte| any_of.contains(byte));
    let head = digits(0..4)
        && is(4, b"-")
        && digits(5..7)
        && is(7, b"-")
        && digits(8..10)
        && is(10, b"Tt")
        && digits(11..13)
        && is(13, b":")
        && digits(14..16)
        && is(16, b":")
        && digits(17..19);
    let fraction = if is(19, b".") { bytes[20..].iter().take_while(|byte| byte.is_ascii_digit()).count() } else { 0 };
    let offset = match (is(19, b"."), fraction) {
        (true, 1..=9) => 20 + fraction,
        (false, _) => 19,
        (true, _) => return None,
    };
    let zulu = is(offset, b"Zz") && bytes.len() == offset + 1;
    let numeric = is(offset, b"+-")
        && digits(offset + 1..offset + 3)
        && is(offset + 3, b":")
        && digits(offset + 4..offset + 6)
        && bytes.len() == offset + 6;
    if !(head && (zulu || numeric)) {
        return None;
    }
    let at: jiff::Timestamp = text.parse().ok()?;
    Some(Timestamp::from_millis(at.as_millisecond()))
}

/// Reads a member that is a time there may be mail of, up to `now`; the error says what is wrong with it.
pub(super) fn past(member: &str, text: &str, now: Timestamp) -> Result<Timestamp, String> {
    let at = rfc3339(text)
        .ok_or_else(|| format!("`{member}`: expected a time as RFC 3339 writes it, such as 2026-01-31T00:00:00Z"))?;
    if at < FIRST {
        return Err(format!("`{member}`: is before 2004-04-01T00:00:00Z, from when on there is Gmail"));
    }
    if at > now + AHEAD {
        return Err(format!("`{member}`: is in the future"));
    }
    Ok(at.min(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_the_standard_writes_them_and_not_otherwise() {
        for (text, ms) in [
            ("2004-04-01T00:00:00Z", 1_080_777_600_000),
            ("2026-01-31t12:34:56.789z", 1_769_862_896_789),
            ("2026-01-31T12:34:56.789123456+01:00", 1_769_859_296_789),
            ("2026-01-31T12:34:56-00:30", 1_769_864_696_000),
        ] {
            assert_eq!(rfc3339(text).map(Timestamp::as_millis), Some(ms), "{text}");
        }
        for text in [
            "",
            "2026-01-31",
            "2026-01-31T12:34:56",
            "2026-01-31 12:34:56Z",
            "2026-02-31T12:34:56Z",
            "2026-01-31T25:00:00Z",
            "2026-01-31T12:34Z",
            "2026-01-31T12:34:56.Z",
            "2026-01-31T12:34:56.1234567890Z",
            "2026-01-31T12:34:56+0100",
            "2026-01-31T12:34:56Z[UTC]",
            "2026-01-31T12:34:56Z ",
            " 2026-01-31T12:34:56Z",
            "20260131T123456Z",
            "+002026-01-31T12:34:56Z",
            "١٩٩٩-01-31T12:34:56Z",
            "1769862896789",
        ] {
            assert_eq!(rfc3339(text), None, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_is_told_by_the_members_name() {
        let now = rfc3339("2026-01-31T00:00:00Z").unwrap();
        assert_eq!(past("since", "2004-04-01T00:00:00Z", now), Ok(FIRST));
        assert_eq!(past("until", "2026-01-31T00:00:59Z", now), Ok(now), "a clock a little ahead means now");
        for text in
            ["2004-03-31T23:59:59Z", "0000-01-01T00:00:00Z", "2026-01-31T00:01:01Z", "9999-12-31T00:00:00Z", "x"]
        {
            assert!(past("since", text, now).unwrap_err().starts_with("`since`: "), "{text}");
        }
    }
}
