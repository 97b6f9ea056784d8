//! The REST surface, over real HTTP, on a real broker and a real database.

mod api;
mod away;
mod idempotency;
mod limits;
mod refusals;
mod sync;
