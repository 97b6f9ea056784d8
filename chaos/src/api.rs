//! A client of the API: it goes to any ingress that is there, and notes what it is promised.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use url::Url;

use crate::ledger::Ledger;

/// How long a request may take; the service itself answers within five seconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where consents lead in the end.
const RETURN_URL: &str = "https://app.example/mail";

/// The client.
#[derive(Clone)]
pub(crate) struct Api {
    /// Where each ingress listens, while it is known to.
    addresses: Arc<Mutex<Vec<String>>>,
    key: Arc<str>,
    http: Client,
    pub(crate) ledger: Arc<Ledger>,
}

impl Api {
    pub(crate) fn new(key: &str) -> anyhow::Result<Self> {
        // Nobody is followed: where a consent leads is looked at first.
        let http = Client::builder().timeout(PATIENCE).redirect(reqwest::redirect::Policy::none()).build()?;
        Ok(Self { addresses: Arc::default(), key: key.into(), http, ledger: Arc::default() })
    }

    pub(crate) fn is_at(&self, addresses: Vec<String>) {
        *self.addresses.lock().expect("nobody panics with the addresses") = addresses;
    }

    /// Any of the addresses.
    fn base(&self) -> Option<String> {
        let addresses = self.addresses.lock().expect("nobody panics with the addresses");
        let at = rand::random_range(0..addresses.len().max(1));
        addresses.get(at).map(|address| format!("http://{address}"))
    }

    /// What is answered, if anything is: its status and body. What breaks off promised nothing.
    pub(crate) async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Option<(StatusCode, Value)> {
        let request =
            self.http.request(method, format!("{}{path}", self.base()?)).header("x-dolfin-api-key", &*self.key);
        let request = match body {
            Some(body) => request.json(body),
            None => request,
        };
        let answer = request.send().await.ok()?;
        let status = answer.status();
        let body = answer.bytes().await.ok()?;
        Some((status, serde_json::from_slice(&body).unwrap_or(Value::Null)))
    }

    /// Asks for a job; its id where it was accepted.
    pub(crate) async fn job(&self, path: &str, body: Option<&Value>) -> Option<String> {
        let (status, answer) = self.ask(Method::POST, path, body).await?;
        let job = answer["jobId"].as_str().filter(|_| status == StatusCode::ACCEPTED)?.to_owned();
        self.ledger.accepted(job.clone());
        Some(job)
    }

    pub(crate) async fn sync(&self, connection: &str) -> Option<String> {
        self.job(&format!("/gmail-connections/{connection}/sync"), None).await
    }

    /// Whether a job has ended.
    pub(crate) async fn has_ended(&self, job: &str) -> bool {
        let answer = self.ask(Method::GET, &format!("/jobs/{job}"), None).await;
        answer.is_some_and(|(_, job)| matches!(job["state"].as_str(), Some("succeeded" | "failed" | "cancelled")))
    }

    pub(crate) async fn cancel(&self, job: &str) {
        // Whether it comes in time or not, the job has one end.
        let _ = self.ask(Method::POST, &format!("/jobs/{job}/cancel"), None).await;
    }

    pub(crate) async fn delete(&self, connection: &str) {
        let answer = self.ask(Method::DELETE, &format!("/gmail-connections/{connection}"), None).await;
        if answer.is_some_and(|(status, _)| status == StatusCode::NO_CONTENT) {
            self.ledger.deleted(connection);
        }
    }

    /// Connects a mailbox by way of the consent page; the connection, if all of that was answered.
    pub(crate) async fn connect(&self, email: &str) -> Option<String> {
        let body = json!({"returnUrl": RETURN_URL, "loginHint": email});
        let (_, answer) = self.ask(Method::POST, "/gmail-connections", Some(&body)).await?;
        let callback = self.led_to(answer["consentUrl"].as_str()?).await?;
        // The callback may come to another ingress than the one that sent the browser off.
        let path = &callback[url::Position::BeforePath..];
        let end = self.led_to(&format!("{}{path}", self.base()?)).await?;
        let value = |name| end.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
        let connection = value("connectionId").filter(|_| value("gmailStatus").as_deref() == Some("connected"))?;
        self.ledger.connected(&connection, email);
        Some(connection)
    }

    /// Where a page sends the browser.
    async fn led_to(&self, page: &str) -> Option<Url> {
        let answer = self.http.get(page).send().await.ok()?;
        answer.headers().get("location")?.to_str().ok()?.parse().ok()
    }
}
