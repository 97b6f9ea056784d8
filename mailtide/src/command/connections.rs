//! `mailtide connections`.

use std::io::Read;

use anyhow::{Context, bail, ensure};
use domain::{ConnectionId, OrganisationId};
use secrecy::SecretString;
use serde::Serialize;
use store::connections::{self, Connection, Consent};

use super::{keys, now, rfc3339};
use crate::cli::Connections;
use crate::output;
use crate::service;
use crate::settings::Settings;

/// Connections read from the database at once.
const PAGE: u32 = 1_000;

/// No refresh token is longer, in bytes (Google's documentation: at most 512).
const MAX_TOKEN: u64 = 4_096;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    organisation_id: OrganisationId,
    connection_id: ConnectionId,
    address: String,
    status: &'static str,
    code: Option<String>,
    last_history_id: Option<String>,
    last_synced_at: Option<String>,
    created_at: String,
}

impl From<Connection> for Shown {
    fn from(connection: Connection) -> Self {
        Self {
            organisation_id: connection.organisation_id,
            connection_id: connection.connection_id,
            address: connection.email,
            status: connection.state.as_str(),
            code: connection.code,
            last_history_id: connection.last_history_id.map(|id| id.to_string()),
            last_synced_at: connection.last_synced_at.map(rfc3339),
            created_at: rfc3339(connection.created_at),
        }
    }
}

impl Shown {
    fn row(&self) -> [String; 5] {
        [
            self.organisation_id.to_string(),
            self.connection_id.to_string(),
            self.address.clone(),
            self.status.to_owned(),
            self.last_synced_at.clone().unwrap_or_else(|| "never".to_owned()),
        ]
    }
}

const HEADER: [&str; 5] = ["organisation", "connection", "address", "status", "last synced"];

/// Adds, deletes or lists.
pub(crate) async fn run(what: Connections, settings: &Settings) -> anyhow::Result<()> {
    let store = service::open(settings).await?;
    match what {
        Connections::Add { organisation, address, delegated, output } => {
            let added = if delegated {
                connections::delegate(&store, organisation, &address, now()).await?
            } else {
                let refresh_token = token_from_stdin()?;
                let consent = Consent { account: &address, email: &address, refresh_token: &refresh_token };
                connections::add(&store, organisation, &consent, now()).await?
            };
            let added = Shown::from(added);
            output::print(output, &added, HEADER, [added.row()])
        }
        Connections::Delete { connection, output } => {
            for organisation in keys::chosen(&store, None).await? {
                if connections::find(&store, organisation, connection).await?.is_some() {
                    // From now on it does not exist. Ingress tells the poller and Google, and wipes the token.
                    connections::delete(&store, organisation, connection, now()).await?;
                    let deleted = serde_json::json!({"connectionId": connection, "deleted": true});
                    let row = [[connection.to_string(), "deleted".to_owned()]];
                    return output::print(output, &deleted, ["connection", "state"], row);
                }
            }
            bail!("there is no connection {connection}; `mailtide connections list` shows all")
        }
        Connections::List { organisation, output } => {
            let mut shown = Vec::new();
            for organisation in keys::chosen(&store, organisation).await? {
                let mut after = None;
                loop {
                    let page = connections::list(&store, organisation, after, PAGE).await?;
                    let Some(last) = page.last() else { break };
                    after = Some((last.created_at, last.connection_id));
                    shown.extend(page.into_iter().map(Shown::from));
                }
            }
            output::print(output, &shown, HEADER, shown.iter().map(Shown::row))
        }
    }
}

/// From stdin, because arguments and environments are seen by others.
fn token_from_stdin() -> anyhow::Result<SecretString> {
    let mut text = String::new();
    std::io::stdin().take(MAX_TOKEN + 1).read_to_string(&mut text).context("reading the refresh token from stdin")?;
    let token = text.trim();
    ensure!(
        !token.is_empty() && text.len() as u64 <= MAX_TOKEN,
        "stdin must give the refresh token, of at most {MAX_TOKEN} bytes: mailtide connections add … < token.txt"
    );
    Ok(SecretString::from(token))
}
