//! `mailtide keys`.

use anyhow::bail;
use domain::OrganisationId;
use secrecy::ExposeSecret;
use serde::Serialize;
use store::keys::{ApiKey, Scope};
use store::{Store, keys, organisations};
use uuid::Uuid;

use super::{now, rfc3339};
use crate::cli::Keys;
use crate::output;
use crate::service;
use crate::settings::Settings;

/// A key as it may be shown.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    organisation_id: OrganisationId,
    key_id: Uuid,
    name: String,
    prefix: String,
    scopes: Vec<&'static str>,
    created_at: String,
    revoked_at: Option<String>,
    last_used_at: Option<String>,
    /// The key itself, only where it was just made.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
}

impl Shown {
    fn new(organisation_id: OrganisationId, key: ApiKey) -> Self {
        Self {
            organisation_id,
            key_id: key.key_id,
            name: key.name,
            prefix: key.prefix,
            scopes: key.scopes.into_iter().map(Scope::as_str).collect(),
            created_at: rfc3339(key.created_at),
            revoked_at: key.revoked_at.map(rfc3339),
            last_used_at: key.last_used_at.map(rfc3339),
            key: None,
        }
    }

    fn row(&self) -> [String; 8] {
        [
            self.organisation_id.to_string(),
            self.key_id.to_string(),
            self.name.clone(),
            format!("{}…", self.prefix),
            self.scopes.join(", "),
            self.created_at.clone(),
            self.last_used_at.clone().unwrap_or_else(|| "never".to_owned()),
            self.revoked_at.clone().unwrap_or_else(|| "no".to_owned()),
        ]
    }
}

const HEADER: [&str; 8] = ["organisation", "key id", "name", "key", "scopes", "created", "last used", "revoked"];

/// Creates, lists or revokes.
pub(crate) async fn run(what: Keys, settings: &Settings) -> anyhow::Result<()> {
    let store = service::open(settings).await?;
    match what {
        Keys::Create { organisation, name, mut scopes, output } => {
            scopes.sort_unstable();
            scopes.dedup();
            let organisation = match organisation {
                Some(organisation) => organisation,
                None => organisations::create(&store, &name, now()).await?.organisation_id,
            };
            let (key, text) = keys::create(&store, organisation, &name, &scopes, now()).await?;
            let shown = Shown { key: Some(text.expose_secret().to_owned()), ..Shown::new(organisation, key) };
            if output.json {
                return output::line(&shown);
            }
            output::print(output, &shown, HEADER, [shown.row()])?;
            println!("The key, shown this once:\n{}", text.expose_secret());
            Ok(())
        }
        Keys::List { organisation, output } => {
            let mut shown = Vec::new();
            for organisation in chosen(&store, organisation).await? {
                let listed = keys::list(&store, organisation).await?;
                shown.extend(listed.into_iter().map(|key| Shown::new(organisation, key)));
            }
            output::print(output, &shown, HEADER, shown.iter().map(Shown::row))
        }
        Keys::Revoke { id, output } => {
            for organisation in chosen(&store, None).await? {
                if keys::revoke(&store, organisation, id, now()).await? {
                    let revoked = serde_json::json!({"keyId": id, "revoked": true});
                    return output::print(
                        output,
                        &revoked,
                        ["key id", "state"],
                        [[id.to_string(), "revoked".to_owned()]],
                    );
                }
            }
            bail!("there is no living API key with the id {id}; `mailtide keys list` shows all")
        }
    }
}

/// The organisation that was named, or all.
pub(super) async fn chosen(store: &Store, named: Option<OrganisationId>) -> anyhow::Result<Vec<OrganisationId>> {
    /// More than this are not listed at once.
    const MOST: u32 = 100_000;
    match named {
        Some(organisation) if organisations::find(store, organisation).await?.is_none() => {
            bail!("there is no organisation {organisation}")
        }
        Some(organisation) => Ok(vec![organisation]),
        None => {
            let all = organisations::list(store, MOST).await?;
            Ok(all.into_iter().map(|organisation| organisation.organisation_id).collect())
        }
    }
}
