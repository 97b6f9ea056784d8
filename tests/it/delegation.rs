//! Mailboxes that a service account reads for a whole domain.

use openssl::pkey::PKey;
use openssl::rsa::Rsa;
use serde_json::{Value, json};
use simulator::{Delivery, Mails, NewMailbox, Running, ServiceAccount};
use store::connections;

use crate::house::{House, now};
use crate::support::{LONG, wait_for, wait_until};

const READONLY: &str = "https://www.googleapis.com/auth/gmail.readonly";
const ACCOUNT: &str = "reader@project.iam.gserviceaccount.com";

/// A service account as Google gives it out: its key in a file, which the simulator knows the other half of.
struct Account {
    file: tempfile::NamedTempFile,
    public: String,
}

impl Account {
    fn new() -> Self {
        let key = PKey::from_rsa(Rsa::generate(2_048).unwrap()).unwrap();
        let text = |pem: Vec<u8>| String::from_utf8(pem).unwrap();
        let private = text(key.private_key_to_pem_pkcs8().unwrap());
        let content = json!({"type": "service_account", "client_email": ACCOUNT, "private_key_id": "1",
            "private_key": private});
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content.to_string()).unwrap();
        Self { file, public: text(key.public_key_to_pem().unwrap()) }
    }

    fn let_in(&self, google: &Running, scopes: &str) {
        let account =
            ServiceAccount { email: ACCOUNT.to_owned(), public_key: self.public.clone(), scopes: scopes.to_owned() };
        google.control().add_service_account(account).unwrap();
    }
}

async fn house(google: &Running, account: &Account) -> std::sync::Arc<House> {
    let token_url = format!("{}/token", google.base_url);
    let settings = [
        ("MAILTIDE_GMAIL_API_URL", google.base_url.as_str()),
        ("MAILTIDE_GMAIL_TOKEN_URL", &token_url),
        ("MAILTIDE_GMAIL_SERVICE_ACCOUNT_FILE", account.file.path().to_str().unwrap()),
    ];
    House::with("delegated", &settings).await
}

async fn ended(house: &House, connection: domain::ConnectionId) -> Value {
    let job = wait_for(LONG, "the sync is accepted", || async { house.try_sync(connection).await.unwrap() }).await;
    house.ended(&job).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delegated_mailbox_is_read_once_its_domain_lets_us_in() {
    let google = simulator::start(simulator::Settings::default()).await.unwrap();
    let account = Account::new();
    let email = "ann@example.com";
    google.control().create(&NewMailbox { email: email.to_owned(), ..NewMailbox::default() }).unwrap();
    let delivered = google.control().deliver(email, Mails::Synthetic(7), &Delivery::default()).unwrap();
    let house = house(&google, &account).await;
    let services = house.open().await;
    let organisation = house.organisation;
    let connection = connections::delegate(&house.store, organisation, email, now()).await.unwrap().connection_id;

    // A key that Google does not know is our own mistake, and no reason to bother the mailbox's owner.
    let job = ended(&house, connection).await;
    assert_eq!((&job["state"], &job["code"]), (&json!("failed"), &json!("Gmail.ServiceAccountRefused")), "{job}");
    // An administrator who has not let the account in for reading is.
    account.let_in(&google, "https://www.googleapis.com/auth/gmail.labels");
    let job = ended(&house, connection).await;
    assert_eq!((&job["state"], &job["code"]), (&json!("failed"), &json!("Gmail.ReauthRequired")), "{job}");

    // Once let in, adding the mailbox again says so.
    account.let_in(&google, READONLY);
    let again = connections::delegate(&house.store, organisation, email, now()).await.unwrap();
    assert_eq!(again.connection_id, connection);
    wait_until(LONG, "a sync succeeds", || async { ended(&house, connection).await["state"] == "succeeded" }).await;
    let events = house.committed("gmail.message.discovered").await;
    assert_eq!(events.len(), delivered.len());
    // There is no grant to end at Google when it goes.
    connections::delete(&house.store, organisation, connection, now()).await.unwrap();
    assert!(connections::last_grant(&house.store, organisation, connection).await.unwrap().is_none());
    services.stop().await;
}

#[tokio::test]
async fn an_assertion_is_signed_once_for_an_hour_and_anew_after_a_401() {
    let google = simulator::start(simulator::Settings::default()).await.unwrap();
    let account = Account::new();
    account.let_in(&google, READONLY);
    let email = "ann@example.com";
    google.control().create(&NewMailbox { email: email.to_owned(), ..NewMailbox::default() }).unwrap();
    let world = crate::gmail::World::delegated(google, account.file.path(), email);
    for _ in 0..5 {
        world.profile().await.unwrap();
    }
    assert_eq!(world.simulator.control().usage().token_requests, 1);
    world.simulator.control().expire_access_tokens(email).unwrap();
    world.profile().await.unwrap();
    assert_eq!(world.simulator.control().usage().token_requests, 2);
}
