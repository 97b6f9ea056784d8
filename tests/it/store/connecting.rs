//! Consents, what they lead to, and how a connection ends.

use domain::{ConnectionId, Duration, OrganisationId, Timestamp, TokenVersion};
use futures_util::future::join_all;
use secrecy::{ExposeSecret, SecretString};
use store::connections::{self, Change, Connected, Consent, FirstSync};
use store::consents::{self, Pending};
use store::{Error, Store, organisations};

use super::{all_due, client, connect, migrated, now, organisation};

async fn consented(
    store: &Store,
    ours: OrganisationId,
    (email, token): (&str, &str),
    subject: Option<&str>,
    since: Option<Timestamp>,
) -> Result<Connected, Error> {
    let consent = Consent { account: email, email, refresh_token: &token.into() };
    connections::connect(store, ours, &consent, subject, |_| since, now()).await
}

fn pending(organisation_id: OrganisationId) -> Pending {
    Pending {
        organisation_id,
        verifier: "an unmistakable verifier".into(),
        return_url: "https://app.example/".to_owned(),
        since: Some(Timestamp::from_millis(1_700_000_000_000)),
    }
}

async fn keep(store: &Store, state: &SecretString, organisation: OrganisationId, until: Timestamp) {
    assert!(consents::put(store, state, &pending(organisation), until, now(), 100).await.unwrap());
}

#[tokio::test]
async fn an_organisation_has_only_so_many_consents_open() {
    let (_place, store) = migrated("many-open").await;
    let (ours, theirs) = (organisation(&store).await, organisation(&store).await);
    let at = now();
    let put = async |state: String, whose, at, most| {
        consents::put(&store, &state.into(), &pending(whose), at + Duration::from_minutes(10), at, most).await.unwrap()
    };
    for number in 0..3 {
        assert!(put(format!("{number}"), ours, at, 3).await);
    }
    assert!(!put("one more".to_owned(), ours, at, 3).await);
    assert!(put("another's".to_owned(), theirs, at, 3).await, "each has its own number");
    assert!(consents::take(&store, "0", at).await.unwrap().is_some());
    assert!(put("in its place".to_owned(), ours, at, 3).await);
    assert!(!put("and one more".to_owned(), ours, at, 3).await);
    assert!(put("later".to_owned(), ours, at + Duration::from_minutes(11), 3).await, "those before have ended");
}

#[tokio::test]
async fn a_consent_is_taken_once_and_in_time() {
    let (place, store) = migrated("once").await;
    let ours = organisation(&store).await;
    let state = SecretString::from("an unmistakable state");
    let soon = now() + Duration::from_minutes(10);
    keep(&store, &state, ours, soon).await;
    let client = client(&place, &store).await;
    let dump: String = client.query_one("SELECT string_agg(c::text, ' ') FROM consents c", &[]).await.unwrap().get(0);
    for secret in ["state", "verifier"].map(|what| format!("unmistakable {what}")) {
        let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
        assert!(!dump.contains(&secret) && !dump.contains(&hex), "{dump}");
    }
    assert!(consents::take(&store, "another", now()).await.unwrap().is_none());
    let taken = join_all((0..16).map(|_| consents::take(&store, state.expose_secret(), now()))).await;
    let taken: Vec<Pending> = taken.into_iter().filter_map(Result::unwrap).collect();
    assert_eq!(taken.len(), 1, "once");
    assert_eq!(taken[0].verifier.expose_secret(), "an unmistakable verifier");
    assert_eq!((taken[0].organisation_id, taken[0].since), (ours, pending(ours).since));

    keep(&store, &state, ours, soon).await;
    assert!(consents::take(&store, state.expose_secret(), soon).await.unwrap().is_none(), "too late");
    keep(&store, &"one".into(), ours, soon).await;
    keep(&store, &"two".into(), ours, soon + Duration::from_millis(1)).await;
    assert_eq!(consents::sweep(&store, soon).await.unwrap(), 1);
    assert!(consents::take(&store, "two", soon).await.unwrap().is_some());
}

#[tokio::test]
async fn an_account_is_known_by_its_id_and_else_by_its_address() {
    let (_place, store) = migrated("subjects").await;
    let ours = organisation(&store).await;
    // Added by an operator, who knows the address alone, in another spelling.
    let added = connect(&store, ours, "Ann@example.com", "1//added").await;
    let first = consented(&store, ours, ("ann@example.com", "1//first"), Some("1"), None).await.unwrap();
    assert_eq!((first.connection.connection_id, first.is_new), (added.connection_id, false));
    assert_eq!(first.connection.token_version, TokenVersion(2));
    // Married: another address, the same account.
    let renamed = consented(&store, ours, ("ann.b@example.com", "1//renamed"), Some("1"), None).await.unwrap();
    assert_eq!((renamed.connection.connection_id, renamed.is_new), (added.connection_id, false));
    assert_eq!(
        (renamed.connection.email.as_str(), renamed.connection.account.as_str()),
        ("ann.b@example.com", "ann.b@example.com")
    );
    // Her old address goes to somebody else, whose mailbox is another one.
    let other = consented(&store, ours, ("ann@example.com", "1//other"), Some("2"), None).await.unwrap();
    assert!(other.is_new && other.connection.connection_id != added.connection_id);
    // And so does an address that a living connection still has: that is refused, not mixed up.
    let mixed = consented(&store, ours, ("ann.b@example.com", "1//mixed"), Some("3"), None).await.unwrap_err();
    assert!(matches!(mixed, Error::Exists { .. }), "{mixed:?}");
    let grant = connections::refresh_token(&store, ours, added.connection_id).await.unwrap().unwrap();
    assert_eq!(grant.refresh_token.expose_secret(), "1//renamed");
}

#[tokio::test]
async fn a_first_sync_is_owed_until_it_is_acknowledged() {
    let (_place, store) = migrated("owed").await;
    let ours = organisation(&store).await;
    let since = Timestamp::from_millis(1_700_000_000_000);
    let owed = async || connections::first_syncs_owed(&store, now() + Duration::from_hours(1), 10).await.unwrap();
    let one = consented(&store, ours, ("a@example.com", "1//a"), None, Some(since)).await.unwrap().connection;
    let first = FirstSync {
        connection_id: one.connection_id,
        organisation_id: ours,
        token_version: TokenVersion(1),
        since: Some(since),
    };
    assert_eq!(owed().await, [first]);
    assert_eq!(connections::first_syncs_owed(&store, one.created_at, 10).await.unwrap(), [], "not that old");
    // A newer consent owes anew, and no less.
    consented(&store, ours, ("a@example.com", "1//b"), None, None).await.unwrap();
    let second = FirstSync { token_version: TokenVersion(2), ..first };
    assert_eq!(owed().await, [second]);
    connections::first_sync_done(&store, &first).await.unwrap();
    assert_eq!(owed().await, [second], "the older acknowledgement does not speak for the newer consent");
    connections::first_sync_done(&store, &second).await.unwrap();
    assert_eq!(owed().await, []);
    // What is deleted owes nothing.
    consented(&store, ours, ("a@example.com", "1//c"), None, None).await.unwrap();
    connections::delete(&store, ours, one.connection_id, now()).await.unwrap();
    assert_eq!(owed().await, []);
}

#[tokio::test]
async fn a_deleted_connection_is_gone_for_all_but_those_who_finish_it() {
    let (place, store) = migrated("leaving").await;
    let (ours, theirs) = (organisation(&store).await, organisation(&store).await);
    let mine = connect(&store, ours, "a@example.com", "1//mine").await.connection_id;
    let foreign = connect(&store, theirs, "a@example.com", "1//foreign").await.connection_id;
    assert!(connections::delete(&store, theirs, mine, now()).await.unwrap().is_none(), "nobody else's");
    let later = || now() + Duration::from_hours(1);

    let leaving = connections::delete(&store, ours, mine, now()).await.unwrap().unwrap();
    assert!(!leaving.is_forgotten);
    assert_eq!(connections::delete(&store, ours, mine, later()).await.unwrap(), Some(leaving), "repeatable");
    assert_eq!(connections::find(&store, ours, mine).await.unwrap(), None);
    assert!(connections::refresh_token(&store, ours, mine).await.unwrap().is_none());
    assert!(connections::change(&store, ours, mine, Change::default()).await.unwrap().is_none());
    assert_eq!(connections::leaving(&store, later(), 10).await.unwrap(), [leaving]);
    assert_eq!(connections::leaving(&store, leaving.deleted_at, 10).await.unwrap(), []);
    // The account is still in use, by another organisation; then it is not.
    assert!(connections::last_grant(&store, ours, mine).await.unwrap().is_none());
    connections::delete(&store, theirs, foreign, now()).await.unwrap();
    assert_eq!(connections::last_grant(&store, ours, mine).await.unwrap().unwrap().expose_secret(), "1//mine");
    assert!(connections::last_grant(&store, theirs, mine).await.unwrap().is_none());

    connections::forget(&store, ours, mine, now()).await.unwrap();
    assert!(connections::delete(&store, ours, mine, now()).await.unwrap().unwrap().is_forgotten);
    assert!(connections::last_grant(&store, ours, mine).await.unwrap().is_none());
    let client = client(&place, &store).await;
    let sql = "SELECT c::text FROM connections c WHERE connection_id = $1";
    let row: String = client.query_one(sql, &[mine.as_uuid()]).await.unwrap().get(0);
    assert!(!row.contains("example.com"), "{row}");
    // Neither is a living one forgotten by mistake, nor does a deleted one come back.
    let again = connect(&store, ours, "a@example.com", "1//again").await;
    assert_ne!(again.connection_id, mine);
    connections::forget(&store, ours, again.connection_id, now()).await.unwrap();
    let grant = connections::refresh_token(&store, ours, again.connection_id).await.unwrap().unwrap();
    assert_eq!(grant.refresh_token.expose_secret(), "1//again");
}

#[tokio::test]
async fn an_interval_and_a_pause_are_a_connections_own() {
    let (_place, store) = migrated("settings").await;
    let (ours, theirs) = (organisation(&store).await, organisation(&store).await);
    let one = connect(&store, ours, "a@example.com", "1//a").await;
    let other = connect(&store, ours, "b@example.com", "1//b").await;
    assert_eq!((one.sync_interval_hours, one.paused), (None, false));
    let change = async |whose, id: ConnectionId, hours, paused| {
        let change = Change { sync_interval_hours: hours, paused };
        connections::change(&store, whose, id, change).await
    };
    assert_eq!(change(theirs, one.connection_id, Some(Some(1)), None).await.unwrap(), None);
    let changed = change(ours, one.connection_id, Some(Some(6)), None).await.unwrap().unwrap();
    assert_eq!((changed.sync_interval_hours, changed.paused), (Some(6), false));
    let changed = change(ours, one.connection_id, None, Some(true)).await.unwrap().unwrap();
    assert_eq!((changed.sync_interval_hours, changed.paused), (Some(6), true));
    assert!(change(ours, one.connection_id, Some(Some(25)), None).await.is_err());
    assert_eq!(connections::longest_interval(&store).await.unwrap(), Some(Duration::from_hours(6)));
    let due = all_due(&store).await;
    assert_eq!(
        due.iter().map(|due| (due.connection_id, due.interval)).collect::<Vec<_>>(),
        [(other.connection_id, None)]
    );
    change(ours, one.connection_id, None, Some(false)).await.unwrap();
    let due = all_due(&store).await;
    assert!(
        due.iter().any(|due| due.connection_id == one.connection_id && due.interval == Some(Duration::from_hours(6)))
    );
    change(ours, one.connection_id, Some(None), None).await.unwrap();
    assert_eq!(connections::longest_interval(&store).await.unwrap(), None);
}

#[tokio::test]
async fn return_hosts_are_an_organisations_own() {
    let (_place, store) = migrated("hosts").await;
    let (ours, theirs) = (organisation(&store).await, organisation(&store).await);
    let hosts = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let allowed = hosts(&["App.example", "localhost", "app.example"]);
    let changed = organisations::change_return_hosts(&store, ours, &allowed, &[]).await.unwrap().unwrap();
    assert_eq!(changed.return_hosts, ["app.example", "localhost"]);
    let changed =
        organisations::change_return_hosts(&store, ours, &hosts(&["b.example"]), &hosts(&["LOCALHOST"])).await;
    assert_eq!(changed.unwrap().unwrap().return_hosts, ["app.example", "b.example"]);
    assert!(organisations::find(&store, theirs).await.unwrap().unwrap().return_hosts.is_empty());
    let nobody = OrganisationId::from_uuid(uuid::Uuid::new_v4());
    assert_eq!(organisations::change_return_hosts(&store, nobody, &[], &[]).await.unwrap(), None);
}
