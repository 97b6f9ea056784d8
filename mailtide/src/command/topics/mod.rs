//! `mailtide topics`.

mod grow;

use kafka::topics::{Topic, Topics as Names};
use runtime::Shutdown;
use serde::Serialize;

use crate::Outcome;
use crate::cli::Topics;
use crate::output;
use crate::settings::Settings;

#[derive(Serialize)]
struct Checked<'a> {
    topic: &'a str,
    state: &'static str,
}

/// Creates, checks or grows.
pub(crate) async fn run(what: Topics, settings: &Settings, shutdown: &Shutdown) -> anyhow::Result<Outcome> {
    let names = Names::new(&settings.kafka.topic_prefix);
    let output = match what {
        Topics::Create(output) => {
            kafka::topics::create(&settings.kafka, &names, &Topic::ALL).await?;
            output
        }
        Topics::Check(output) => output,
        Topics::Grow(ask) => return grow::run(&ask, settings, shutdown).await,
    };
    kafka::topics::check(&settings.kafka, &names, &Topic::ALL).await?;
    let checked: Vec<Checked<'_>> =
        Topic::ALL.iter().map(|topic| Checked { topic: names.name(*topic), state: "ok" }).collect();
    let rows = checked.iter().map(|Checked { topic, state }| [(*topic).to_owned(), (*state).to_owned()]);
    output::print(output, &checked, ["topic", "state"], rows)?;
    Ok(Outcome::Done)
}
