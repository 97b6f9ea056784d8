//! Text to value and back: durations, sizes, and what a type expects, said in words.

use std::str::FromStr;
use std::time::Duration;

/// Reads `500ms`, `5s`, `2m` or `12h`: a whole number and a unit, nothing between them.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    const EXPECTED: &str = "expected a duration such as 500ms, 5s, 2m or 12h";
    let (number, unit) = split(text).ok_or(EXPECTED)?;
    let factor: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(EXPECTED.to_owned()),
    };
    number.checked_mul(factor).map(Duration::from_millis).ok_or_else(|| format!("{EXPECTED}, not that long"))
}

/// Writes a duration the way [`parse_duration`] reads it, in the largest unit that is exact.
/// What is below a millisecond is cut off.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    let units = [("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
    match units.into_iter().find(|(_, factor)| millis > 0 && millis.is_multiple_of(*factor)) {
        Some((unit, factor)) => format!("{}{unit}", millis / factor),
        None => format!("{millis}ms"),
    }
}

/// Reads a size in bytes: `512`, `64KiB`, `4MiB`, `1GiB` (powers of 1,024) or `64KB`, `4MB`, `1GB` (of 1,000).
pub fn parse_size(text: &str) -> Result<u64, String> {
    const EXPECTED: &str = "expected a size such as 512, 64KiB, 4MiB or 1GB";
    let (number, unit) = split(text).ok_or(EXPECTED)?;
    let factor: u64 = match unit {
        "" | "B" => 1,
        "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(EXPECTED.to_owned()),
    };
    number.checked_mul(factor).ok_or_else(|| format!("{EXPECTED}, not that large"))
}

/// Writes a size the way [`parse_size`] reads it, in the largest binary unit that is exact.
#[must_use]
pub fn format_size(bytes: u64) -> String {
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.into_iter().find(|(_, factor)| bytes > 0 && bytes.is_multiple_of(*factor)) {
        Some((unit, factor)) => format!("{}{unit}", bytes / factor),
        None => bytes.to_string(),
    }
}

/// Digits, then the rest.
fn split(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit))
}

/// Parses by [`FromStr`]; for the standard types the message says what would be right, for our
/// own their error does.
pub(super) fn from_text<T>(text: &str) -> Result<T, String>
where
    T: FromStr<Err: std::fmt::Display>,
{
    text.parse().map_err(|error: T::Err| expected(std::any::type_name::<T>()).unwrap_or_else(|| error.to_string()))
}

fn expected(type_name: &str) -> Option<String> {
    let range = |low: i128, high: u128| Some(format!("expected a whole number from {low} to {high}"));
    match type_name {
        "u8" => range(0, u8::MAX.into()),
        "u16" => range(0, u16::MAX.into()),
        "u32" => range(0, u32::MAX.into()),
        "u64" | "usize" => range(0, u64::MAX.into()),
        "i32" => range(i32::MIN.into(), i32::MAX as u128),
        "i64" => range(i64::MIN.into(), i64::MAX as u128),
        "f32" | "f64" => Some("expected a number".to_owned()),
        "bool" => Some("expected true or false".to_owned()),
        "core::net::socket_addr::SocketAddr" => {
            Some("expected an address and a port such as 127.0.0.1:8080 or [::1]:8080".to_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_print_alike() {
        for text in ["0ms", "1ms", "500ms", "5s", "90s", "2m", "12h"] {
            assert_eq!(format_duration(parse_duration(text).unwrap()), text, "{text}");
        }
        assert_eq!(parse_duration("120s").unwrap(), Duration::from_secs(120));
        assert_eq!(format_duration(Duration::from_secs(120)), "2m");
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "5", "s", "-5s", "5 s", "1.5s", "5d", "5S", "99999999999999999999s", "18446744073709551615h"] {
            assert!(parse_duration(text).unwrap_err().contains("500ms, 5s, 2m or 12h"), "{text}");
        }
    }

    #[test]
    fn sizes_read_and_print_alike() {
        for (text, bytes) in [("0", 0), ("512", 512), ("64KiB", 65_536), ("4MiB", 4 << 20), ("1GiB", 1 << 30)] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
            assert_eq!(format_size(bytes), text);
        }
        assert_eq!(parse_size("64KB"), Ok(64_000));
        assert!(parse_size("64kb").is_err());
        assert!(parse_size("18446744073709551615GiB").is_err());
    }

    #[test]
    fn standard_types_say_what_they_expect() {
        assert_eq!(from_text::<u16>("70000").unwrap_err(), "expected a whole number from 0 to 65535");
        assert_eq!(from_text::<bool>("yes").unwrap_err(), "expected true or false");
        assert!(from_text::<std::net::SocketAddr>("8080").unwrap_err().contains("127.0.0.1:8080"));
    }
}
