//! The one binary. Everything it does is in the library, so that tests can run it too.

use std::process::ExitCode;

/// Every event is a handful of small allocations that live until their transaction ends, thousands at a time: what the
/// system's allocator is slow at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    mailtide::main()
}
