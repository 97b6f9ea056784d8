//! What a running service says of itself on its admin port.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use hyper::{Method, StatusCode};
use serde::{Deserialize, Serialize};

use crate::command::admin;

/// One process.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Service {
    pub(super) address: SocketAddr,
    /// Why it does not answer; nothing else is known then.
    pub(super) away: Option<String>,
    /// What keeps it from being ready, by check; nothing when it is.
    pub(super) not_ready: BTreeMap<String, String>,
    /// What it may spend in each budget's window, and what of it could be spent at once, in quota units.
    pub(super) budgets: BTreeMap<String, Budget>,
}

/// A budget of one process, in quota units.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Budget {
    pub(super) limit: f64,
    pub(super) left: f64,
}

/// What `/readyz` answers.
#[derive(Deserialize)]
struct Ready {
    failing: BTreeMap<String, String>,
}

/// Asks all that are named; where none is, the one in the settings, which need not be there.
pub(super) async fn ask_all(named: &[SocketAddr], usual: SocketAddr) -> Vec<Service> {
    if named.is_empty() {
        let service = ask(usual).await;
        return if service.away.is_none() { vec![service] } else { Vec::new() };
    }
    futures_util::future::join_all(named.iter().map(|address| ask(*address))).await
}

async fn ask(address: SocketAddr) -> Service {
    let get = |path| admin::ask(address, Method::GET, path, String::new());
    let mut service = Service { address, away: None, not_ready: BTreeMap::new(), budgets: BTreeMap::new() };
    match tokio::try_join!(get("/readyz"), get("/metrics")) {
        Ok(((_, ready), (StatusCode::OK, metrics))) => match serde_json::from_str::<Ready>(&ready) {
            Ok(Ready { failing }) => {
                service.not_ready = failing;
                service.budgets = budgets(&metrics);
            }
            Err(_) => service.away = Some("what answers is no service of Mailtide".to_owned()),
        },
        Ok((_, (status, _))) => service.away = Some(format!("its metrics answer {status}")),
        Err(error) => service.away = Some(format!("{error:#}")),
    }
    service
}

/// The budgets in an exposition.
fn budgets(metrics: &str) -> BTreeMap<String, Budget> {
    let mut budgets: BTreeMap<String, Budget> = BTreeMap::new();
    for line in metrics.lines() {
        let Some((name, rest)) = line.split_once("{budget=\"") else { continue };
        let Some((budget, value)) = rest.split_once("\"} ") else { continue };
        let Ok(value) = value.trim().parse() else { continue };
        match name {
            "mailtide_gmail_budget_limit_units" => budgets.entry(budget.to_owned()).or_default().limit = value,
            "mailtide_gmail_budget_left_units" => budgets.entry(budget.to_owned()).or_default().left = value,
            _ => {}
        }
    }
    budgets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_read_from_an_exposition() {
        let text = "# TYPE mailtide_gmail_budget_limit_units gauge\n\
            mailtide_gmail_budget_limit_units{budget=\"project_minute\"} 480000\n\
            mailtide_gmail_budget_left_units{budget=\"project_minute\"} 1200.5\n\
            mailtide_gmail_held_up_total{budget=\"project_day\"} 3\n";
        let expected = BTreeMap::from([("project_minute".to_owned(), Budget { limit: 480_000.0, left: 1_200.5 })]);
        assert_eq!(budgets(text), expected);
    }
}
