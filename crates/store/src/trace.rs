//! Spans of statements, as OpenTelemetry's semantic conventions for databases name them. No value of a row is ever told.

use runtime::trace::{Kind, Parent, Span};

/// One statement, or one transaction, within what is worked on here. `summary` is what it does and to which tables, such
/// as `INSERT jobs`.
pub fn statement(summary: &'static str) -> Span {
    let span = Span::begin(Kind::Client, summary, Parent::Within);
    span.set("db.system.name", "postgresql");
    span.set("db.query.summary", summary);
    span
}
