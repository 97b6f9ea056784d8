//! `mailtide organisations`.

use anyhow::Context;
use domain::filter::Pattern;
use domain::{FetchFilter, OrganisationId};
use serde::Serialize;
use store::organisations::{self, Organisation};
use store::{Store, fetching};

use super::{now, rfc3339};
use crate::WrongUse;
use crate::cli::{Filter, Organisations};
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

/// A filter as it stands.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ShownFilter {
    organisation_id: OrganisationId,
    filter: FetchFilter,
}

/// Shows a filter, or sets it.
async fn filter(what: Filter, store: &Store) -> anyhow::Result<()> {
    let Filter { organisation, labels, not_labels, senders, not_senders, has_attachment, mime_types, clear, output } =
        what;
    let given = FetchFilter { labels, not_labels, senders, not_senders, has_attachment, mime_types };
    for (option, count) in [
        ("--label", given.labels.len()),
        ("--not-label", given.not_labels.len()),
        ("--sender", given.senders.len()),
        ("--not-sender", given.not_senders.len()),
        ("--mime-type", given.mime_types.len()),
    ] {
        if count > FetchFilter::MOST {
            return Err(WrongUse(format!("{option} is given {count} times; at most {}", FetchFilter::MOST)).into());
        }
    }
    if clear || !given.is_empty() {
        fetching::set_filter(store, organisation, &given).await?;
    }
    let filter = fetching::filter(store, organisation).await?;
    let filter = filter.with_context(|| format!("there is no organisation {organisation}"))?;
    let rows = rows(&filter);
    output::print(output, &ShownFilter { organisation_id: organisation, filter }, ["rule", "value"], rows)
}

/// The rules that are set.
fn rows(filter: &FetchFilter) -> Vec<[String; 2]> {
    let patterns = |patterns: &[Pattern]| patterns.iter().map(Pattern::as_str).collect::<Vec<_>>().join(", ");
    let rules = [
        ("one of these labels", filter.labels.join(", ")),
        ("none of these labels", filter.not_labels.join(", ")),
        ("a sender like", patterns(&filter.senders)),
        ("no sender like", patterns(&filter.not_senders)),
        ("an attachment", if filter.has_attachment { "yes".to_owned() } else { String::new() }),
        ("a file of a type like", patterns(&filter.mime_types)),
    ];
    let set: Vec<_> = rules
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(rule, value)| [rule.to_owned(), value])
        .collect();
    if set.is_empty() { vec![["everything is fetched".to_owned(), String::new()]] } else { set }
}

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
        Organisations::Filter(what) => return filter(what, &store).await,
        Organisations::List(output) => {
            let all: Vec<_> = organisations::list(&store, MOST).await?.into_iter().map(Shown::from).collect();
            return output::print(output, &all, HEADER, all.iter().map(Shown::row));
        }
    };
    output::print(output, &shown, HEADER, [shown.row()])
}
