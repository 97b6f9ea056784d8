//! Dates in a query. Gmail reads a day as midnight Pacific Standard Time, and digits alone as seconds.

use jiff::civil;
use jiff::tz::{Offset, TimeZone};

/// Gmail's largest number of seconds: the end of the year 9999.
const MAX_SECONDS: i64 = 253_402_300_800;

/// What a date in a query means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Date {
    /// An instant, ms since the epoch.
    At(i64),
    /// Gmail takes it and finds nothing: zero, a negative or too large number (such as milliseconds), ISO time.
    Nothing,
}

/// The instant that `text` names: `2026/9/30`, `2026-9-30`, `9/30/2026`, or seconds since the epoch.
pub(crate) fn parse(text: &str) -> Date {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return match text.parse::<i64>() {
            Ok(seconds @ 1..=MAX_SECONDS) => Date::At(seconds * 1_000),
            _ => Date::Nothing,
        };
    }
    let parts: Vec<Option<i16>> = text.split(['/', '-']).map(|part| part.parse().ok()).collect();
    let (year, month, day) = match parts[..] {
        [Some(year), Some(month), Some(day)] if year > 31 => (year, month, day),
        [Some(month), Some(day), Some(year)] if year > 31 => (year, month, day),
        _ => return Date::Nothing,
    };
    let (Ok(month), Ok(day)) = (i8::try_from(month), i8::try_from(day)) else { return Date::Nothing };
    let midnight = civil::Date::new(year, month, day).and_then(|date| {
        let pacific = TimeZone::fixed(Offset::constant(-8));
        date.to_zoned(pacific)
    });
    midnight.map_or(Date::Nothing, |at| Date::At(at.timestamp().as_millisecond()))
}

/// The instant that lies `text` before `now_ms`: `3d`, `2m` (months), `1y`; also Gmail's undocumented `h`ours.
pub(crate) fn ago(text: &str, now_ms: i64) -> Option<i64> {
    let number: i32 = text.get(..text.len().checked_sub(1)?)?.parse().ok().filter(|&number| number >= 0)?;
    let span = jiff::Span::new();
    let span = match text.as_bytes().last()? {
        b'h' => span.try_hours(number),
        b'd' => span.try_days(number),
        b'm' => span.try_months(number),
        b'y' => span.try_years(number),
        _ => return None,
    };
    let pacific = TimeZone::fixed(Offset::constant(-8));
    let now = jiff::Timestamp::from_millisecond(now_ms).ok()?.to_zoned(pacific);
    // Before the beginning of time there is no mail: everything is newer.
    Some(now.checked_sub(span.ok()?).map_or(i64::MIN, |at| at.timestamp().as_millisecond()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_begin_at_midnight_pacific_standard_time() {
        // Also in summer: the documentation says PST.
        for text in ["2014/02/01", "2014-2-1", "02/01/2014", "2/1/2014"] {
            assert_eq!(parse(text), Date::At(1_391_241_600_000), "{text}");
        }
        assert_eq!(parse("2014/07/01"), Date::At(1_404_201_600_000));
    }

    #[test]
    fn seconds_are_exact_and_anything_else_finds_nothing() {
        assert_eq!(parse("1388552400"), Date::At(1_388_552_400_000));
        assert_eq!(parse("1"), Date::At(1_000));
        assert_eq!(parse("253402300800"), Date::At(253_402_300_800_000));
        let nothing =
            ["0", "-5", "253402300801", "1388552400000", "2026-01-01T00:00:00Z", "yesterday", "2026/13/1", "", "1/2"];
        for text in nothing {
            assert_eq!(parse(text), Date::Nothing, "{text}");
        }
    }

    #[test]
    fn ages_count_calendar_months() {
        let now = 1_404_201_600_000; // 2014-07-01 PST
        assert_eq!(ago("1d", now), Some(now - 86_400_000));
        assert_eq!(ago("5m", now), Some(1_391_241_600_000));
        assert_eq!(ago("9999999y", now), None);
        assert_eq!(ago("19000y", now), Some(i64::MIN));
        assert_eq!((ago("3w", now), ago("d", now), ago("-1d", now), ago("", now)), (None, None, None, None));
    }
}
