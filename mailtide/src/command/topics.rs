//! `mailtide topics`.

use kafka::topics::{Topic, Topics as Names};
use serde::Serialize;

use crate::cli::Topics;
use crate::output;
use crate::settings::Settings;

#[derive(Serialize)]
struct Checked<'a> {
    topic: &'a str,
    state: &'static str,
}

/// Creates or checks.
pub(crate) async fn run(what: Topics, settings: &Settings) -> anyhow::Result<()> {
    let names = Names::new(&settings.kafka.topic_prefix);
    let output = match what {
        Topics::Create(output) => {
            kafka::topics::create(&settings.kafka, &names, &Topic::ALL).await?;
            output
        }
        Topics::Check(output) => output,
    };
    kafka::topics::check(&settings.kafka, &names, &Topic::ALL).await?;
    let checked: Vec<Checked<'_>> =
        Topic::ALL.iter().map(|topic| Checked { topic: names.name(*topic), state: "ok" }).collect();
    let rows = checked.iter().map(|Checked { topic, state }| [(*topic).to_owned(), (*state).to_owned()]);
    output::print(output, &checked, ["topic", "state"], rows)
}
