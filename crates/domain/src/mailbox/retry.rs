//! How long to wait after a failure.

use super::reply::CallError;
use super::{Context, Duration, Timestamp};

/// The longest wait between two attempts (Gmail's error guide: 32 or 64 s).
const CAP: i64 = 64_000;

/// Gmail's "Retry after" is sometimes far off; longer than this is not believed.
const LONGEST_THROTTLE: Duration = Duration::from_minutes(30);

/// When to try again after `failures` failures in a row: `min(2^n s, 64 s)` and up to a second of jitter.
pub(super) fn after(cx: &Context<'_>, failures: i32) -> Timestamp {
    let exponent = u32::try_from(failures.saturating_sub(1)).unwrap_or(0).min(6);
    let backoff = (1_000_i64 << exponent).min(CAP);
    let jitter = i64::try_from(cx.jitter % 1_000).unwrap_or(0);
    cx.now + Duration::from_millis(backoff + jitter)
}

/// Whose fault a failure is that may pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nobody's: Gmail pushes back.
    Throttle,
    /// Gmail's, or the page's: a probe tells.
    Unknown { detail: String },
    /// The page's.
    Page { detail: String },
}

/// What a failure means for the walk that it happened to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The same call again, not before then.
    Again { at: Timestamp, fault: Fault },
    /// The page tokens are worth nothing any more: from the checkpoint again, not before then.
    Rewind { at: Timestamp },
    /// There is nothing where we looked.
    Missing,
    /// Somebody has to consent again.
    Revoked { cause: String },
    /// There is no such connection any more.
    Gone,
    /// Trying again does not help.
    Hopeless { code: String, detail: String },
}

/// Judges a failure. `failures` counts this one.
pub(super) fn judge(cx: &Context<'_>, error: CallError, failures: i32) -> Verdict {
    match error {
        CallError::Throttled { until } => {
            let backoff = after(cx, failures);
            let told = until.map(|until| until.min(cx.now + LONGEST_THROTTLE));
            let jitter = Duration::from_millis(i64::try_from(cx.jitter % 1_000).unwrap_or(0));
            Verdict::Again { at: told.map_or(backoff, |told| backoff.max(told + jitter)), fault: Fault::Throttle }
        }
        CallError::Transient { detail } => Verdict::Again { at: after(cx, failures), fault: Fault::Unknown { detail } },
        CallError::Broken { detail } => Verdict::Again { at: after(cx, failures), fault: Fault::Page { detail } },
        CallError::InvalidPageToken => Verdict::Rewind { at: after(cx, failures) },
        CallError::NotFound => Verdict::Missing,
        CallError::Revoked { cause } => Verdict::Revoked { cause },
        CallError::ConnectionGone => Verdict::Gone,
        CallError::Permanent { code, detail } => Verdict::Hopeless { code, detail },
    }
}
