//! An API to ask: the service in this process, an organisation, its key and its connection.

use std::collections::BTreeMap;

use domain::{ConnectionId, OrganisationId, Timestamp};
use ingress::Ingress;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use runtime::Shutdown;
use runtime::health::Health;
use runtime::settings::Source;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use store::connections::Consent;
use store::keys::Scope;
use store::{Store, connections, keys, organisations};
use uuid::Uuid;

use crate::support::Place;

/// The header that carries the key.
pub(super) const KEY: &str = "x-dolfin-api-key";

/// The service and a tenant of it. Stops when dropped.
pub(super) struct Api {
    pub(super) place: Place,
    pub(super) base: String,
    pub(super) client: Client,
    pub(super) store: Store,
    pub(super) tenant: Tenant,
    settings: BTreeMap<String, String>,
    shutdown: Shutdown,
}

/// One more instance of the service. Stops when dropped.
pub(super) struct Beside {
    pub(super) base: String,
    shutdown: Shutdown,
}

/// An organisation with a key and a connection.
pub(super) struct Tenant {
    pub(super) organisation: OrganisationId,
    pub(super) key_id: Uuid,
    pub(super) key: String,
    pub(super) connection: ConnectionId,
}

impl Api {
    /// The service in a place of its own.
    pub(super) async fn start(name: &str) -> Self {
        let place = Place::new(name);
        let settings = place.settings();
        Self::start_with(place, settings).await
    }

    /// The same with other settings.
    pub(super) async fn start_with(place: Place, settings: BTreeMap<String, String>) -> Self {
        let (store, base, shutdown) = instance(&settings).await;
        let tenant = tenant(&store).await;
        Self { place, base, client: Client::new(), store, tenant, settings, shutdown }
    }

    /// One more instance, on the same broker and database.
    pub(super) async fn beside(&self) -> Beside {
        self.beside_with(&[]).await
    }

    /// The same, with other settings.
    pub(super) async fn beside_with(&self, changes: &[(&str, &str)]) -> Beside {
        let mut settings = self.settings.clone();
        settings.extend(changes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let (_, base, shutdown) = instance(&settings).await;
        Beside { base, shutdown }
    }

    /// Orders the service to stop.
    pub(super) fn stop(&self) {
        self.shutdown.request();
    }

    /// A request with the tenant's key.
    pub(super) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.request_as(&self.tenant.key, method, path)
    }

    /// A request with any key.
    pub(super) fn request_as(&self, key: &str, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base)).header(KEY, key)
    }

    /// Asks for a sync of the tenant's connection; gives the job's path.
    pub(super) async fn sync(&self) -> String {
        let answer = self.request(Method::POST, &self.sync_path()).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::ACCEPTED);
        answer.headers()["location"].to_str().unwrap().to_owned()
    }

    /// The path of a sync of the tenant's connection.
    pub(super) fn sync_path(&self) -> String {
        sync_path(&self.tenant.connection.to_string())
    }
}

/// One instance: its store, its address, and how to stop it.
pub(super) async fn instance(settings: &BTreeMap<String, String>) -> (Store, String, Shutdown) {
    let mut source = Source::from_parts(None, settings.clone());
    let kafka = kafka::Settings::read(&mut source);
    let store = Store::connect(&store::Settings::read(&mut source)).unwrap();
    let settings = ingress::Settings::read(&mut source);
    let ingress = Ingress::start(&settings, &kafka, store.clone(), &Health::new()).await.unwrap();
    let base = format!("http://{}", ingress.address().unwrap());
    let shutdown = Shutdown::new();
    tokio::spawn(ingress.serve(shutdown.clone()));
    (store, base, shutdown)
}

/// The wall clock.
pub(super) fn now() -> Timestamp {
    Timestamp::from_millis(jiff::Timestamp::now().as_millisecond())
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.shutdown.request();
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.shutdown.request();
    }
}

/// A plain client in the service's schema, to look behind its back.
pub(super) async fn database(api: &Api) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(api.place.database_url(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute(&format!("SET search_path TO {}", api.store.schema())).await.unwrap();
    client
}

/// The path of a sync.
pub(super) fn sync_path(connection: &str) -> String {
    format!("/gmail-connections/{connection}/sync")
}

/// One more organisation.
pub(super) async fn tenant(store: &Store) -> Tenant {
    let now = now();
    let organisation = organisations::create(store, "tests", now).await.unwrap().organisation_id;
    let (key, text) = keys::create(store, organisation, "tests", &[Scope::Read, Scope::Write], now).await.unwrap();
    let refresh_token = SecretString::from("of no use here");
    let consent = Consent { account: "a@tests.example", email: "a@tests.example", refresh_token: &refresh_token };
    let connection = connections::add(store, organisation, &consent, now).await.unwrap().connection_id;
    Tenant { organisation, key_id: key.key_id, key: text.expose_secret().to_owned(), connection }
}

/// Checks that the answer is a problem document of this status and title about this path; gives the document.
pub(super) async fn assert_problem(answer: Response, status: u16, title: &str) -> Value {
    let path = answer.url().path().to_owned();
    assert_eq!(answer.status().as_u16(), status, "{path}");
    assert_eq!(answer.headers()["content-type"], "application/problem+json", "{path}");
    assert_eq!(answer.headers().contains_key("retry-after"), matches!(status, 429 | 503), "{path}");
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["title"], title, "{body}");
    assert_eq!(body["status"], status, "{body}");
    assert_eq!(body["instance"], path, "{body}");
    assert!(body["type"].is_string() && body["detail"].is_string(), "{body}");
    body
}
