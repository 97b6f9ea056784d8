//! The W3C trace context that travels in the header `traceparent` (<https://www.w3.org/TR/trace-context/>).

use std::fmt;
use std::str::FromStr;

/// Where in which trace something happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceParent {
    trace_id: u128,
    span_id: u64,
    sampled: bool,
}

/// The text is no `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a W3C traceparent: expected 00-<32 hex digits>-<16 hex digits>-<2 hex digits>, lower case, ids not zero")]
pub struct InvalidTraceParent;

impl TraceParent {
    /// A sampled trace of its own, from random numbers. A zero, which the standard forbids, is replaced by one.
    pub const fn new(random_trace: u128, random_span: u64) -> Self {
        Self {
            trace_id: if random_trace == 0 { 1 } else { random_trace },
            span_id: if random_span == 0 { 1 } else { random_span },
            sampled: true,
        }
    }

    /// The next span of the same trace, from a random number.
    #[must_use]
    pub const fn child(self, random_span: u64) -> Self {
        Self { span_id: if random_span == 0 { 1 } else { random_span }, ..self }
    }

    /// The same, recorded or not.
    #[must_use]
    pub const fn sampled(self, sampled: bool) -> Self {
        Self { sampled, ..self }
    }

    /// The trace.
    pub const fn trace_id(self) -> u128 {
        self.trace_id
    }

    /// The span within the trace.
    pub const fn span_id(self) -> u64 {
        self.span_id
    }

    /// Whether the trace is recorded.
    pub const fn is_sampled(self) -> bool {
        self.sampled
    }

    /// Reads a header's value.
    ///
    /// # Errors
    /// When the bytes are no `traceparent` of version 00, nor of a later version that begins like one.
    pub fn parse(value: &[u8]) -> Result<Self, InvalidTraceParent> {
        let &[v0, v1, b'-', ref rest @ ..] = value else { return Err(InvalidTraceParent) };
        let version = hex(&[v0, v1])?;
        let (Some(trace_id), Some(b'-'), Some(span_id), Some(b'-'), Some(flags)) =
            (rest.get(..32), rest.get(32), rest.get(33..49), rest.get(49), rest.get(50..52))
        else {
            return Err(InvalidTraceParent);
        };
        // Version 00 ends here; a later one may go on after a dash; ff is none (§3.2.2, §4.3).
        match (version, rest.get(52)) {
            (0xff, _) | (0, Some(_)) => return Err(InvalidTraceParent),
            (_, None | Some(b'-')) => {}
            (_, Some(_)) => return Err(InvalidTraceParent),
        }
        let trace_id = hex(trace_id)?;
        let span_id = u64::try_from(hex(span_id)?).expect("16 hex digits fit 64 bits");
        let sampled = hex(flags)? & 1 == 1;
        if trace_id == 0 || span_id == 0 {
            return Err(InvalidTraceParent);
        }
        Ok(Self { trace_id, span_id, sampled })
    }
}

/// The number that these lowercase hex digits spell.
fn hex(digits: &[u8]) -> Result<u128, InvalidTraceParent> {
    digits.iter().try_fold(0, |value, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return Err(InvalidTraceParent),
        };
        Ok(value << 4 | u128::from(digit))
    })
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, u8::from(self.sampled))
    }
}

impl FromStr for TraceParent {
    type Err = InvalidTraceParent;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_back(trace: u128, span: u64, child: u64) {
            let parent = TraceParent::new(trace, span);
            prop_assert_eq!(parent.to_string().parse(), Ok(parent));
            let child = parent.child(child);
            prop_assert_eq!(child.to_string().parse(), Ok(child));
            prop_assert_eq!(child.trace_id(), parent.trace_id());
        }

        #[test]
        fn no_bytes_break_the_parser(bytes: Vec<u8>) {
            let _ = TraceParent::parse(&bytes);
        }
    }

    #[test]
    fn the_standards_own_example_is_read() {
        let parent: TraceParent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse().unwrap();
        assert_eq!(parent.trace_id(), 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c);
        assert_eq!(parent.span_id(), 0xb7ad_6b71_6920_3331);
        assert!(parent.is_sampled());
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        assert!(
            "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-the-future".parse::<TraceParent>().is_ok()
        );
    }

    #[test]
    fn what_the_standard_forbids_is_refused() {
        for text in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0AF7651916CD43DD8448EB211C80319C-B7AD6B7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01.more",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0g",
        ] {
            assert_eq!(text.parse::<TraceParent>(), Err(InvalidTraceParent), "{text}");
        }
    }
}
