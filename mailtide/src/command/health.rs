//! `mailtide health`: what a container's health check calls, in an image that has no shell tools to ask with.

use std::net::SocketAddr;

use hyper::{Method, StatusCode};

use super::{admin, ask};
use crate::Outcome;
use crate::cli::Health;

/// Asks the service whose admin port is at `address`, and prints what it says.
pub(crate) async fn run(health: Health, address: SocketAddr) -> anyhow::Result<Outcome> {
    let path = if health.live { "/livez" } else { "/readyz" };
    let (status, said) = admin::ask(address, Method::GET, path, String::new()).await?;
    ask::say(said.trim_end())?;
    Ok(if status == StatusCode::OK { Outcome::Done } else { Outcome::Failed })
}
