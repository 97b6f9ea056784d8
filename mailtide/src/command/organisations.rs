//! `mailtide organisations`.

use anyhow::Context;
use domain::OrganisationId;
use serde::Serialize;
use store::organisations::{self, Organisation};

use super::{now, rfc3339};
use crate::cli::Organisations;
use crate::output;
use crate::service;
use crate::settings::Settings;

/// More than this are not listed at once.
const MOST: u32 = 100_000;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    organisation_id: OrganisationId,
    name: String,
    return_hosts: Vec<String>,
    created_at: String,
}

impl From<Organisation> for Shown {
    fn from(organisation: Organisation) -> Self {
        Self {
            organisation_id: organisation.organisation_id,
            name: organisation.name,
            return_hosts: organisation.return_hosts,
            created_at: rfc3339(organisation.created_at),
        }
    }
}

impl Shown {
    fn row(&self) -> [String; 4] {
        [self.organisation_id.to_string(), self.name.clone(), self.return_hosts.join(", "), self.created_at.clone()]
    }
}

const HEADER: [&str; 4] = ["organisation", "name", "return hosts", "created"];

/// Creates, lists or changes.
pub(crate) async fn run(what: Organisations, settings: &Settings) -> anyhow::Result<()> {
    let store = service::open(settings).await?;
    let change = async |id, allow: &[String], disallow: &[String]| {
        let changed = organisations::change_return_hosts(&store, id, allow, disallow).await?;
        changed.map(Shown::from).with_context(|| format!("there is no organisation {id}"))
    };
    let (shown, output) = match what {
        Organisations::Create { name, return_hosts, output } => {
            let made = organisations::create(&store, &name, now()).await?;
            (change(made.organisation_id, &return_hosts, &[]).await?, output)
        }
        Organisations::Allow { organisation, hosts, output } => (change(organisation, &hosts, &[]).await?, output),
        Organisations::Disallow { organisation, hosts, output } => (change(organisation, &[], &hosts).await?, output),
        Organisations::List(output) => {
            let all: Vec<_> = organisations::list(&store, MOST).await?.into_iter().map(Shown::from).collect();
            return output::print(output, &all, HEADER, all.iter().map(Shown::row));
        }
    };
    output::print(output, &shown, HEADER, [shown.row()])
}
