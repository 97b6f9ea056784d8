//! `mailtide doctor`: whether everything that the services stand on is as they need it, and what to do where it is not.
//!
//! Nothing is changed and no quota unit is spent. What is looked at is looked at side by side, each with an end to its
//! patience, so that one thing that is away does not keep the others from being told of.

mod brokers;
mod database;
mod finding;
mod google;
mod installation;
mod topics;

use std::future::Future;
use std::time::Duration;

use kafka::survey;
use kafka::topics::Topics;
use serde_json::json;

use super::{now, rfc3339};
use crate::cli::Doctor;
use crate::settings::Settings;
use crate::{Outcome, output};
use finding::{Finding, State};

/// How long one question to the brokers may take.
const ANSWER: Duration = Duration::from_secs(6);

/// How long one part of the whole may take, of however many questions it consists.
const PATIENCE: Duration = Duration::from_secs(25);

/// Looks at everything, and prints what it found.
pub(crate) async fn run(doctor: &Doctor, settings: &Settings) -> anyhow::Result<Outcome> {
    let (kafka, registry, postgres, google) = tokio::join!(
        patient("kafka", of_kafka(settings)),
        patient("registry", of_registry(settings)),
        patient("postgres", database::look(settings)),
        patient("google", google::look(settings)),
    );
    let findings: Vec<Finding> =
        [installation::look(settings), kafka, registry, postgres, google].into_iter().flatten().collect();
    let worst = findings.iter().map(|finding| finding.state).max().unwrap_or(State::Ok);
    if doctor.output.json {
        output::line(&json!({"at": rfc3339(now()), "state": worst, "checks": findings}))?;
    } else {
        let shown = findings.iter().filter(|finding| !doctor.quiet || finding.state != State::Ok);
        output::print(doctor.output, &(), ["", "check", "found", "what to do"], shown.map(Finding::row))?;
    }
    Ok(if worst == State::Fail { Outcome::Failed } else { Outcome::Done })
}

/// What a part found; that it found nothing in time is a finding, too.
async fn patient(part: &'static str, look: impl Future<Output = Vec<Finding>>) -> Vec<Finding> {
    tokio::time::timeout(PATIENCE, look).await.unwrap_or_else(|_| {
        let found = format!("no answer to all questions within {} s", PATIENCE.as_secs());
        vec![Finding::fail(
            part,
            "answers",
            found,
            "look at the load and the network of what is asked, then look again",
        )]
    })
}

async fn of_kafka(settings: &Settings) -> Vec<Finding> {
    let names = Topics::new(&settings.kafka.topic_prefix);
    match survey::survey(&settings.kafka, &names, ANSWER).await {
        Ok(survey) => [brokers::judge(&survey, &settings.kafka), topics::judge(&survey, &names)].concat(),
        Err(error) => vec![Finding::fail(
            "kafka",
            "brokers",
            error.to_string(),
            "start the brokers, or set kafka.bootstrap_servers to where they are; where they want TLS or SASL, see \
             kafka.librdkafka.*",
        )],
    }
}

async fn of_registry(settings: &Settings) -> Vec<Finding> {
    const AREA: &str = "registry";
    match registry::missing(&settings.registry).await {
        Ok(None) => {
            let found =
                "none is set: ingress answers as a read-only one, and the ids are those of schemas/manifest.json";
            vec![Finding::ok(AREA, "schemas", found)]
        }
        Ok(Some(missing)) if missing.is_empty() => {
            vec![Finding::ok(AREA, "schemas", "every schema of this version is registered")]
        }
        Ok(Some(missing)) => vec![Finding::warn(
            AREA,
            "schemas",
            format!("not registered: {}", missing.join(", ")),
            "start a service of this version: each registers them before it writes",
        )],
        Err(error) => vec![Finding::fail(
            AREA,
            "schemas",
            error.to_string(),
            "start the registry, or set registry.url, registry.user, registry.password and registry.ca_file right",
        )],
    }
}
