//! Deliberate faults, compiled into the tests' own binary only.

use std::sync::OnceLock;

use domain::GmailMessageDiscovered;

/// Environment variable: the Gmail id of the message whose reading panics. No setting, so without their prefix.
pub const PANIC: &str = "FETCHER_FAULT_PANIC_MESSAGE";

/// Panics if this is the message that is named for it.
pub(crate) fn panic_if_asked(event: &GmailMessageDiscovered) {
    static NAMED: OnceLock<Option<String>> = OnceLock::new();
    let named = NAMED.get_or_init(|| std::env::var(PANIC).ok());
    assert!(named.as_deref() != Some(event.message_id.to_string().as_str()), "A fault was asked for");
}
