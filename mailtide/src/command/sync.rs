//! `mailtide sync`: over HTTP, so that it passes the same checks as any caller.

use std::time::Duration;

use anyhow::Context;
use hyper::header::LOCATION;
use hyper::{Method, StatusCode};
use runtime::Shutdown;
use serde_json::Value;

use crate::cli::{Output, Sync};
use crate::http::{Answer, Client};
use crate::output;
use crate::settings::Settings;
use crate::{Outcome, WrongUse};

/// How often a job is looked at while waiting for it.
const LOOK: Duration = Duration::from_millis(200);

/// Triggers, and waits if asked to.
pub(crate) async fn run(sync: &Sync, settings: &Settings, shutdown: &Shutdown) -> anyhow::Result<Outcome> {
    let key = settings.client.api_key.clone().ok_or_else(|| {
        WrongUse(
            "client.api_key is not set; set MAILTIDE_CLIENT_API_KEY to one that `mailtide keys create` made".to_owned(),
        )
    })?;
    let client = Client::new(settings.client.url.clone(), settings.ingress.api_key_header.clone(), key)?;
    let (job_id, path) = accepted(&trigger(&client, &sync.connection.to_string()).await?)?;
    if !sync.wait {
        return print(sync.output, &serde_json::json!({"jobId": job_id, "state": "queued"}));
    }
    loop {
        let job = look(&client, &path).await?;
        if is_terminal(&job) {
            print(sync.output, &job)?;
            return Ok(if job["state"] == "succeeded" { Outcome::Done } else { Outcome::Failed });
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = shutdown.requested() => return Ok(Outcome::Failed),
        }
    }
}

/// Asks for a sync.
pub(crate) async fn trigger(client: &Client, connection: &str) -> anyhow::Result<Answer> {
    client.request(Method::POST, &format!("/gmail-connections/{connection}/sync")).await
}

/// The id and the path of the job, of an answer that says that there is one.
pub(crate) fn accepted(answer: &Answer) -> anyhow::Result<(String, String)> {
    let body: Value = answer.expect(StatusCode::ACCEPTED)?;
    let job_id = body["jobId"].as_str().context("the API's answer has no jobId")?.to_owned();
    let path = answer.headers.get(LOCATION).and_then(|path| path.to_str().ok());
    let path = path.context("the API's answer has no Location")?.to_owned();
    Ok((job_id, path))
}

/// The job at `path` as it stands.
pub(crate) async fn look(client: &Client, path: &str) -> anyhow::Result<Value> {
    client.request(Method::GET, path).await?.expect(StatusCode::OK)
}

/// Whether the job has ended.
pub(crate) fn is_terminal(job: &Value) -> bool {
    matches!(job["state"].as_str(), Some("succeeded" | "failed" | "cancelled"))
}

fn print(output: Output, job: &Value) -> anyhow::Result<Outcome> {
    let cell = |name: &str| job[name].as_str().unwrap_or_default().to_owned();
    let discovered = job["progress"]["discovered"].as_i64().map(|count| count.to_string()).unwrap_or_default();
    let row = [cell("jobId"), cell("state"), discovered, cell("code"), cell("detail")];
    output::print(output, job, ["job", "state", "discovered", "code", "detail"], [row])?;
    Ok(Outcome::Done)
}
