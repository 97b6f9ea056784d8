//! A browser at Google's consent page, and what it is needed for.

use domain::OrganisationId;
use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};
use store::{Store, organisations};
use url::Url;

use super::api::{Api, KEY};
use crate::support::stack;

/// Where consents lead in these tests.
pub(crate) const RETURN_URL: &str = "https://app.example/mail?tab=1";

/// The scope that reading needs.
pub(crate) const READONLY: &str = "https://www.googleapis.com/auth/gmail.readonly";

/// Somebody at a browser, who looks where it is sent before it goes there.
pub(crate) struct Browser(Client);

impl Browser {
    pub(crate) fn new() -> Self {
        Self(Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap())
    }

    /// Answers the consent page; gives where Google sends the browser.
    pub(crate) async fn answer(&self, page: &str, decision: &str, account: &str, scopes: &[&str]) -> String {
        let mut form = vec![("account", account), ("decision", decision)];
        form.extend(scopes.iter().map(|scope| ("scope", *scope)));
        let answer = self.0.post(page).form(&form).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::FOUND, "{}", answer.text().await.unwrap());
        answer.headers()["location"].to_str().unwrap().to_owned()
    }

    /// Says yes to all that is asked.
    pub(crate) async fn allow(&self, page: &str, account: &str) -> String {
        self.answer(page, "allow", account, &["openid", READONLY]).await
    }

    /// Goes there, and no further.
    pub(crate) async fn get(&self, url: &str) -> Response {
        self.0.get(url).send().await.unwrap()
    }

    /// Comes back to us; gives what we send it on with: status and connection.
    pub(crate) async fn come_back(&self, callback: &str) -> (String, Option<String>) {
        let answer = self.get(callback).await;
        assert_eq!(answer.status(), StatusCode::FOUND, "{}", answer.text().await.unwrap());
        assert_eq!(answer.headers()["referrer-policy"], "no-referrer");
        assert_eq!(answer.headers()["cache-control"], "no-store");
        outcome(answer.headers()["location"].to_str().unwrap())
    }
}

/// What is in the address that the browser is sent on to.
pub(crate) fn outcome(location: &str) -> (String, Option<String>) {
    let rest = location.strip_prefix(RETURN_URL).unwrap_or_else(|| panic!("{location} leads elsewhere"));
    let url = Url::parse(location).unwrap();
    let value = |name| url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
    let status = value("gmailStatus").unwrap();
    let connection = value("connectionId");
    let expected = match &connection {
        Some(connection) => format!("&gmailStatus={status}&connectionId={connection}"),
        None => format!("&gmailStatus={status}"),
    };
    assert_eq!(rest, expected, "nothing else is added");
    (status, connection)
}

/// Lets an organisation's consents lead back to [`RETURN_URL`].
pub(crate) async fn allow_return(store: &Store, organisation: OrganisationId) {
    let hosts = ["app.example".to_owned()];
    organisations::change_return_hosts(store, organisation, &hosts, &[]).await.unwrap().unwrap();
}

/// A mailbox at Gmail, not connected yet.
pub(crate) fn mailbox(prefix: &str, name: &str) -> String {
    let email = format!("{name}@{prefix}example").to_lowercase();
    let new = simulator::NewMailbox { email: email.clone(), ..simulator::NewMailbox::default() };
    stack().simulator.control().create(&new).unwrap();
    email
}

impl Api {
    /// Asks for a consent page.
    pub(super) async fn connect_with(&self, key: &str, body: &Value) -> Response {
        self.client.post(format!("{}/gmail-connections", self.base)).header(KEY, key).json(body).send().await.unwrap()
    }

    /// The same for the tenant, which has to work; gives the page's address.
    pub(super) async fn consent_page(&self, more: Value) -> String {
        let mut body = json!({"returnUrl": RETURN_URL});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = self.connect_with(&self.tenant.key, &body).await;
        assert_eq!(answer.status(), StatusCode::CREATED, "{}", answer.text().await.unwrap());
        answer.json::<Value>().await.unwrap()["consentUrl"].as_str().unwrap().to_owned()
    }

    /// Connects a mailbox from end to end; gives the connection.
    pub(super) async fn connect(&self, browser: &Browser, email: &str, more: Value) -> String {
        let callback = browser.allow(&self.consent_page(more).await, email).await;
        let (status, connection) = browser.come_back(&callback).await;
        assert_eq!(status, "connected");
        connection.unwrap()
    }
}
