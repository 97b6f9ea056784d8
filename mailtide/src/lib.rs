//! The command line of Mailtide: every service, the operator's commands, and the demo.

mod cli;
mod command;
mod demo;
mod dev;
mod http;
mod local;
mod metrics;
mod output;
mod service;
mod settings;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use runtime::Shutdown;
use runtime::telemetry::Telemetry;
use runtime::trace::{self, Traces};

use crate::cli::{Cli, Command};
use crate::settings::Settings;

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// As it should.
    Done,
    /// Nothing broke, but what was asked for is not so.
    Failed,
}

/// What was asked for makes no sense, and would not later either.
#[derive(Debug)]
struct WrongUse(String);

impl std::fmt::Display for WrongUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for WrongUse {}

/// The exit code of wrong use: arguments or settings.
const WRONG_USE: u8 = 2;

/// How long tasks that outlive their command may hold up the end.
const LINGER: Duration = Duration::from_millis(500);

/// How long the last traces may take to be delivered at the end.
const TRACES: Duration = Duration::from_secs(1);

/// Runs the command line of this process. Exit codes: 0 done, 1 failed, 2 wrong use.
pub fn main() -> ExitCode {
    // Ends the process by itself for help (0) and for arguments that make no sense (2).
    let cli = Cli::parse();
    let settings = match settings::load(cli.config.as_deref(), BTreeMap::new()) {
        Ok(settings) => settings,
        Err(failure) => {
            eprintln!("{failure}");
            return ExitCode::from(WRONG_USE);
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: starting the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(run(cli, settings));
    runtime.shutdown_timeout(LINGER);
    match ended {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Failed) => ExitCode::FAILURE,
        // Whoever reads our output has heard enough, as in `tail … | head`.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            if error.is::<WrongUse>() { ExitCode::from(WRONG_USE) } else { ExitCode::FAILURE }
        }
    }
}

async fn run(cli: Cli, mut settings: Settings) -> anyhow::Result<Outcome> {
    if service_name(&cli.command).is_none() && !settings.is_set("log.filter") {
        // The operator's commands speak for themselves, and what the Kafka client grumbles about passes.
        settings.telemetry.filter = "warn,kafka::client=error".to_owned();
    }
    let telemetry = runtime::telemetry::init(&settings.telemetry)?;
    metrics::describe();
    settings.effective.log();
    let traces = match service_name(&cli.command) {
        Some(service) => trace::init(&settings.trace, service, &settings.kafka.instance)?,
        None => Traces::NONE,
    };
    let ended = Box::pin(carry_out(cli, settings, telemetry)).await;
    traces.shut_down(TRACES).await;
    ended
}

async fn carry_out(cli: Cli, settings: Settings, telemetry: Telemetry) -> anyhow::Result<Outcome> {
    let shutdown = Shutdown::on_signals()?;
    if let Command::Replay(_) | Command::State(_) = cli.command
        && !registry::register(&settings.registry, |error| eprintln!("{error}"), &shutdown).await?
    {
        return Ok(Outcome::Failed);
    }
    if reads_records(&cli.command) {
        registry::look_up(&settings.registry).await?;
    }
    match cli.command {
        Command::Ingress => service::run(service::Service::Ingress, settings, telemetry, shutdown).await?,
        Command::Scheduler => service::run(service::Service::Scheduler, settings, telemetry, shutdown).await?,
        Command::Poller => service::run(service::Service::Poller, settings, telemetry, shutdown).await?,
        Command::Fetcher => service::run(service::Service::Fetcher, settings, telemetry, shutdown).await?,
        Command::Projector(projector) if projector.rebuild => {
            let rebuilt = projector::rebuild(settings.projector, shutdown).await?;
            println!("Derived the rows from {} records", rebuilt.records);
        }
        Command::Projector(_) => service::run(service::Service::Projector, settings, telemetry, shutdown).await?,
        Command::Simulator => service::run(service::Service::Simulator, settings, telemetry, shutdown).await?,
        Command::Dev(dev) => dev::run(&dev, cli.config.as_deref(), settings, telemetry, shutdown).await?,
        Command::Demo(demo) => return demo::run(&demo, cli.config.as_deref(), shutdown).await,
        Command::Topics(topics) => return command::topics::run(topics, &settings, &shutdown).await,
        Command::State(cli::State::Restore(ask)) => return command::state::restore(&ask, &settings, &shutdown).await,
        Command::Organisations(what) => command::organisations::run(what, &settings).await?,
        Command::Keys(keys) => command::keys::run(keys, &settings).await?,
        Command::Tokens(tokens) => command::tokens::run(tokens, &settings).await?,
        Command::Connections(connections) => command::connections::run(connections, &settings).await?,
        Command::Sync(sync) => return command::sync::run(&sync, &settings, &shutdown).await,
        Command::Tail(tail) => command::tail::run(&tail, &settings, &shutdown).await?,
        Command::Replay(replay) => return command::replay::run(&replay, &settings, &shutdown).await,
        Command::DeadLetters(what) => return command::dead_letters::run(*what, &settings).await,
        Command::Lag(lag) => command::lag::run(&lag, &settings, &shutdown).await?,
        Command::Verify(verify) => return command::verify::run(&verify, &settings, &shutdown).await,
        Command::Health(health) => return command::health::run(health, settings.admin.address).await,
        Command::Status(status) => return Box::pin(command::status::run(&status, &settings, &shutdown)).await,
        Command::Doctor(doctor) => return Box::pin(command::doctor::run(&doctor, &settings)).await,
        Command::LogLevel(level) => return command::log_level::run(level, settings.admin.address).await,
        Command::Settings(asked) => command::settings::run(&asked, &settings)?,
    }
    Ok(Outcome::Done)
}

/// What those who read our traces call a command that runs until it is told to stop, and logs as it goes; none for all
/// others.
const fn service_name(command: &Command) -> Option<&'static str> {
    match command {
        Command::Dev(_) => Some("mailtide-dev"),
        Command::Ingress => Some("mailtide-ingress"),
        Command::Scheduler => Some("mailtide-scheduler"),
        Command::Poller => Some("mailtide-poller"),
        Command::Fetcher => Some("mailtide-fetcher"),
        Command::Projector(_) => Some("mailtide-projector"),
        Command::Simulator => Some("mailtide-simulator"),
        Command::Demo(_)
        | Command::Topics(_)
        | Command::State(_)
        | Command::Organisations(_)
        | Command::Keys(_)
        | Command::Tokens(_)
        | Command::Connections(_)
        | Command::Sync(_)
        | Command::Tail(_)
        | Command::Replay(_)
        | Command::DeadLetters(_)
        | Command::Lag(_)
        | Command::Verify(_)
        | Command::Health(_)
        | Command::Status(_)
        | Command::Doctor(_)
        | Command::LogLevel(_)
        | Command::Settings(_) => None,
    }
}

/// Whether the command decodes records, without being one of those that register the schemas when they start.
const fn reads_records(command: &Command) -> bool {
    match command {
        Command::Projector(projector) => projector.rebuild,
        Command::Tail(_) | Command::DeadLetters(_) | Command::Verify(_) => true,
        Command::Dev(_)
        | Command::Demo(_)
        | Command::Ingress
        | Command::Scheduler
        | Command::Poller
        | Command::Fetcher
        | Command::Simulator
        | Command::Topics(_)
        | Command::State(_)
        | Command::Organisations(_)
        | Command::Keys(_)
        | Command::Tokens(_)
        | Command::Connections(_)
        | Command::Sync(_)
        | Command::Replay(_)
        | Command::Lag(_)
        | Command::Health(_)
        | Command::Status(_)
        | Command::Doctor(_)
        | Command::LogLevel(_)
        | Command::Settings(_) => false,
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}
