//! Deliberate faults, compiled into the tests' own binary only.

use std::sync::OnceLock;

use domain::mailbox::Input;
use domain::{Command, ConnectionId};

/// Environment variable: the connection whose commands make the mailbox panic. No setting, so without their prefix.
pub const PANIC: &str = "POLLER_FAULT_PANIC_CONNECTION";

/// Panics if this input is a command of the connection that is named for it.
pub(crate) fn panic_if_asked(input: &Input) {
    static NAMED: OnceLock<Option<ConnectionId>> = OnceLock::new();
    let named = NAMED.get_or_init(|| std::env::var(PANIC).ok().and_then(|text| text.parse().ok()));
    if let (Some(named), Input::Command(Command::Poll(command), _)) = (named, input) {
        assert!(command.connection_id != *named, "A fault was asked for");
    }
}
