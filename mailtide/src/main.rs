//! The one binary. Everything it does is in the library, so that tests can run it too.

use std::process::ExitCode;

fn main() -> ExitCode {
    mailtide::main()
}
