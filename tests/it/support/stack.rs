//! The servers that all tests of this process share.

use std::sync::OnceLock;
use std::thread;

use chaos::records::{Record, committed_blocking};
use devstack::{Kafka, KafkaOptions, Postgres, PostgresOptions};
use tokio::runtime::Runtime;

/// Kafka, Postgres and a simulated Gmail. None of them may be stopped by a test: who wants to,
/// starts one of its own. They end with this process (libtest runs nothing after the last test,
/// and statics are not dropped): Kafka and Postgres hang on a leash, the simulator is in here.
pub(crate) struct Stack {
    /// The broker.
    pub(crate) kafka: Kafka,
    /// The database server.
    pub(crate) postgres: Postgres,
    /// The simulator. Its mailboxes are shared: make your own, and start a simulator of your own to change how it behaves.
    pub(crate) simulator: simulator::Running,
    /// Where the simulator runs: each test's own runtime ends with that test.
    _runtime: Runtime,
}

/// The stack, started by whoever asks first; the others wait.
pub(crate) fn stack() -> &'static Stack {
    static STACK: OnceLock<Stack> = OnceLock::new();
    // On a thread of its own: inside a test's runtime no other may be entered.
    STACK.get_or_init(|| thread::spawn(start).join().expect("the stack starts, see above"))
}

fn start() -> Stack {
    let (kafka, postgres) = thread::scope(|scope| {
        let kafka = scope.spawn(|| Kafka::start(&KafkaOptions { short_lived: true, ..KafkaOptions::default() }));
        let postgres = Postgres::start(&PostgresOptions::default());
        (kafka.join().unwrap(), postgres)
    });
    let kafka = kafka.unwrap_or_else(|error| panic!("{error}"));
    let postgres = postgres.unwrap_or_else(|error| panic!("{error}"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let simulator = runtime.block_on(simulator::start(simulator::Settings::default())).unwrap();
    Stack { kafka, postgres, simulator, _runtime: runtime }
}

/// Everything committed in `topic` (its full name) at this moment, by partition and offset.
pub(crate) async fn committed(topic: &str) -> Vec<Record> {
    let topic = topic.to_owned();
    tokio::task::spawn_blocking(move || committed_blocking(stack().kafka.bootstrap(), &topic)).await.unwrap()
}
