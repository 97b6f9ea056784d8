//! Starts a Kafka and a Postgres, says where they are, and keeps them until it is stopped:
//! `cargo run -p devstack`, then Ctrl-C.

use std::io::Write;
use std::process::ExitCode;
use std::thread;

use devstack::{Error, Kafka, KafkaOptions, Postgres, PostgresOptions};
use nix::sys::signal::{SigSet, Signal};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Error> {
    // Blocked before any thread starts, so that every thread leaves them to `wait` below.
    let stop = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM]);
    let io = |tried: &str| {
        let tried = tried.to_owned();
        move |errno| Error::Io { tried, source: std::io::Error::from(errno) }
    };
    stop.thread_block().map_err(io("blocking signals"))?;
    let (kafka, postgres) = thread::scope(|scope| {
        let kafka = scope.spawn(|| Kafka::start(&KafkaOptions::default()));
        let postgres = Postgres::start(&PostgresOptions::default());
        (kafka.join().expect("starting Kafka does not panic"), postgres)
    });
    let (kafka, postgres) = (kafka?, postgres?);
    let said = format!("KAFKA_BOOTSTRAP_SERVERS={}\nDATABASE_URL={}\n", kafka.bootstrap(), postgres.url());
    std::io::stdout()
        .write_all(said.as_bytes())
        .map_err(|source| Error::Io { tried: "printing".to_owned(), source })?;
    stop.wait().map_err(io("waiting for a signal"))?;
    Ok(())
}
