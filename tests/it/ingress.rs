//! The REST surface, over real HTTP, on a real broker and a real database.

mod api;
mod away;
pub(crate) mod browser;
mod commands;
mod connections;
mod consent;
mod docs;
mod facts;
mod fuzz;
mod halfway;
mod hostile;
mod hung;
mod idempotency;
mod islands;
mod limits;
mod lists;
mod overload;
mod refusals;
mod right_after;
mod streams;
mod sync;
