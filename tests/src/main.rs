//! The program as it is, but with the faults built in that tests switch on by environment variables.

use std::process::ExitCode;

fn main() -> ExitCode {
    mailtide::main()
}
