//! The REST surface, over real HTTP, on a real broker and a real database.

mod api;
mod away;
mod facts;
mod idempotency;
mod limits;
mod lists;
mod refusals;
mod streams;
mod sync;
