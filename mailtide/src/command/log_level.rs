//! `mailtide log-level`: what a running service logs, in an image that has no shell tools to ask with.

use std::net::SocketAddr;

use anyhow::bail;
use hyper::{Method, StatusCode};
use serde::Deserialize;

use super::{admin, ask};
use crate::cli::LogLevel;
use crate::{Outcome, WrongUse};

/// What the admin port answers.
#[derive(Deserialize)]
struct Answer {
    filter: Option<String>,
    before: Option<String>,
    error: Option<String>,
}

/// Asks the service whose admin port is at `address`, or has it change what it logs; prints what it was and is.
pub(crate) async fn run(level: LogLevel, address: SocketAddr) -> anyhow::Result<Outcome> {
    let (method, body) = match level.filter {
        None => (Method::GET, String::new()),
        Some(filter) => (Method::PUT, filter),
    };
    let (status, said) = admin::ask(address, method, "/log-level", body).await?;
    let answer: Option<Answer> = serde_json::from_str(&said).ok();
    match (status, answer) {
        (StatusCode::OK, Some(Answer { filter: Some(filter), before: None, .. })) => ask::say(&filter)?,
        (StatusCode::OK, Some(Answer { filter: Some(filter), before: Some(before), .. })) => {
            ask::say(&format!("{filter} (before: {before})"))?;
        }
        (StatusCode::BAD_REQUEST, Some(Answer { error: Some(error), .. })) => return Err(WrongUse(error).into()),
        (status, _) => bail!("the admin port at {address} answered {status}; is it a service of this version?"),
    }
    Ok(Outcome::Done)
}
