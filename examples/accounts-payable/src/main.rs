//! Runs the consumer under the settings in the environment.

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    accounts_payable::run(&accounts_payable::Settings::from_environment()?).await
}
