//! What every service starts with: its settings, its telemetry, its health, its admin port and the order to stop.

pub mod admin;
pub mod backoff;
pub mod health;
pub mod metric;
pub mod settings;
pub mod shutdown;
pub mod telemetry;
pub mod trace;

pub use backoff::Backoff;
pub use shutdown::Shutdown;
