//! The program as it is, but with the faults built in that tests switch on by environment variables; and the consumer in
//! `examples/`, so that it need not be linked by itself.

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() != Some("accounts-payable") {
        return mailtide::main();
    }
    match tokio::runtime::Runtime::new().map_err(Into::into).and_then(|runtime| runtime.block_on(consume())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn consume() -> anyhow::Result<()> {
    accounts_payable::run(&accounts_payable::Settings::from_environment()?).await
}
