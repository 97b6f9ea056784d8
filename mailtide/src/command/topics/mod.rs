//! `mailtide topics`.

mod grow;

use kafka::rights::{self, Role};
use kafka::topics::{Topic, Topics as Names};
use runtime::Shutdown;
use serde::Serialize;

use crate::Outcome;
use crate::cli::{Rights, Topics};
use crate::output;
use crate::settings::Settings;

#[derive(Serialize)]
struct Checked<'a> {
    topic: &'a str,
    state: &'static str,
}

/// A right, as those who grant it put it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    role: &'static str,
    resource: String,
    name: String,
    pattern: String,
    operation: String,
}

/// Creates, checks, grows, or lists what has to be allowed.
pub(crate) async fn run(what: Topics, settings: &Settings, shutdown: &Shutdown) -> anyhow::Result<Outcome> {
    let names = Names::new(&settings.kafka.topic_prefix);
    let output = match what {
        Topics::Create(output) => {
            kafka::topics::create(&settings.kafka, &names, &Topic::ALL).await?;
            output
        }
        Topics::Check(output) => output,
        Topics::Grow(ask) => return grow::run(&ask, settings, shutdown).await,
        Topics::Rights(asked) => return list(asked, settings).await,
    };
    kafka::topics::check(&settings.kafka, &names, &Topic::ALL).await?;
    let checked: Vec<Checked<'_>> =
        Topic::ALL.iter().map(|topic| Checked { topic: names.name(*topic), state: "ok" }).collect();
    let rows = checked.iter().map(|Checked { topic, state }| [(*topic).to_owned(), (*state).to_owned()]);
    output::print(output, &checked, ["topic", "state"], rows)?;
    Ok(Outcome::Done)
}

async fn list(Rights { role, check, output }: Rights, settings: &Settings) -> anyhow::Result<Outcome> {
    if let Some(role) = role.filter(|_| check) {
        rights::check(&settings.kafka, role).await?;
    }
    let listed = listed(role, &settings.kafka.topic_prefix);
    let rows = listed.iter().map(|Listed { role, resource, name, pattern, operation }| {
        [(*role).to_owned(), resource.clone(), name.clone(), pattern.clone(), operation.clone()]
    });
    output::print(output, &listed, ["role", "resource", "name", "pattern", "operation"], rows)?;
    Ok(Outcome::Done)
}

fn listed(role: Option<Role>, prefix: &str) -> Vec<Listed> {
    let roles = Role::ALL.into_iter().filter(|it| role.is_none_or(|role| role == *it));
    let all = roles.flat_map(|role| rights::of(role, prefix).into_iter().map(move |right| (role, right)));
    all.map(|(role, right)| Listed {
        role: role.name(),
        resource: right.kind.to_string(),
        name: right.name,
        pattern: right.pattern.to_string(),
        operation: right.operation.to_string(),
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::listed;

    const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/security.md");
    const BEGIN: &str = "cargo test -p mailtide rights` -->\n";
    const END: &str = "<!-- end of rights -->";

    /// `UPDATE_GOLDEN=1 cargo test -p mailtide rights` writes it anew.
    #[test]
    fn the_page_on_security_lists_all_rights() {
        let text = std::fs::read_to_string(PAGE).unwrap();
        let (before, rest) = text.split_once(BEGIN).expect("the page marks where the rights begin");
        let (found, after) = rest.split_once(END).expect("the page marks where the rights end");
        let mut table = "| role | resource | name | pattern | operation |\n|---|---|---|---|---|\n".to_owned();
        for it in listed(None, "") {
            let row =
                format!("| {} | {} | `{}` | {} | {} |\n", it.role, it.resource, it.name, it.pattern, it.operation);
            table.push_str(&row);
        }
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(PAGE, format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
        } else {
            assert!(found == table, "the page's rights are not the binary's; write them anew with UPDATE_GOLDEN=1");
        }
    }
}
