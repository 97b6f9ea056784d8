//! The store on a real Postgres: tenants apart, secrets sealed, rows that follow the facts, and outages that pass.

mod claims;
mod connecting;
mod outages;
mod overview;
mod projection;
mod rotation;
mod rows;
mod schema;
mod tenants;
mod upgrade;

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use domain::{OrganisationId, Timestamp};
use secrecy::SecretString;
use store::connections::{Connection, Consent, Due};
use store::{Settings, Store, TokenKeys, connections, organisations};
use tokio_postgres::NoTls;

use crate::support::Place;

/// A migrated store in a place of its own, with a token key.
async fn migrated(name: &str) -> (Place, Store) {
    let place = Place::new(name);
    let store = Store::connect(&settings(&place)).unwrap();
    store.migrate().await.unwrap();
    store.check_token_keys().await.unwrap();
    (place, store)
}

fn settings(place: &Place) -> Settings {
    Settings { acquire_timeout: Duration::from_secs(20), ..Settings::read(&mut place.source()) }
}

fn keys(text: &SecretString) -> Option<std::sync::Arc<TokenKeys>> {
    Some(TokenKeys::parse(text).unwrap().into())
}

/// Rises with every call, by at least a millisecond: two rows of a test never share a time.
fn now() -> Timestamp {
    static LAST: AtomicI64 = AtomicI64::new(0);
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
    let clock = i64::try_from(since).unwrap();
    let last = LAST.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |last| Some(clock.max(last + 1))).unwrap();
    Timestamp::from_millis(clock.max(last + 1))
}

async fn organisation(store: &Store) -> OrganisationId {
    organisations::create(store, "Test", now()).await.unwrap().organisation_id
}

async fn connect(store: &Store, organisation: OrganisationId, account: &str, token: &str) -> Connection {
    let consent = Consent { account, email: account, refresh_token: &token.into() };
    connections::add(store, organisation, &consent, now()).await.unwrap()
}

/// What the scheduler's pass brings, by id.
async fn all_due(store: &Store) -> Vec<Due> {
    let mut all = Vec::new();
    let pass = connections::pass(store, 10, |part| {
        all.extend_from_slice(part);
        ControlFlow::Continue(())
    });
    pass.await.unwrap();
    all.sort_unstable_by_key(|due| due.connection_id);
    all
}

/// A plain client in the place's schema, to look behind the store's back.
async fn client(place: &Place, store: &Store) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(place.database_url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute(&format!("SET search_path = {}", store.schema())).await.unwrap();
    client
}
