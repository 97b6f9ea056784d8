//! Keys, connections and their tokens: whose is whose.

use std::collections::HashSet;
use std::ops::ControlFlow;

use domain::{ConnectionId, ConnectionState, GmailConnectionStatusChanged, OrganisationId, TokenVersion};
use secrecy::{ExposeSecret, SecretString};
use store::keys::{KeyIdentity, Scope};
use store::projection::{self, Batch};
use store::{Error, Settings, Store, TokenKeyError, TokenKeys, connections, keys};
use uuid::Uuid;

use super::{all_due, client, connect, migrated, now, organisation, settings};

#[tokio::test]
async fn a_key_speaks_for_its_organisation_until_it_is_revoked() {
    let (place, store) = migrated("keys").await;
    let (ours, theirs) = (organisation(&store).await, organisation(&store).await);
    let (key, text) = keys::create(&store, ours, "first", &[Scope::Read, Scope::Write], now()).await.unwrap();
    let (other, _) = keys::create(&store, ours, "second", &[Scope::Read], now()).await.unwrap();
    let text = text.expose_secret();
    let identity = KeyIdentity { key_id: key.key_id, organisation_id: ours, scopes: vec![Scope::Read, Scope::Write] };
    assert_eq!(keys::authenticate(&store, text).await.unwrap(), Some(identity.clone()));
    // Everything that is not the key is nobody: the same prefix with another secret too.
    let last = if text.ends_with('A') { "B" } else { "A" };
    let bent = format!("{}{last}", &text[..text.len() - 1]);
    for wrong in [bent.as_str(), "", "mt_", &text[1..], &format!("{text} "), &text.to_uppercase(), "mt_ \u{0} ' OR 1=1"]
    {
        assert_eq!(keys::authenticate(&store, wrong).await.unwrap(), None, "{wrong}");
    }
    // Only a hash is kept.
    let client = client(&place, &store).await;
    let dump: String = client.query_one("SELECT string_agg(k::text, ' ') FROM api_keys k", &[]).await.unwrap().get(0);
    let secret = &text[key.prefix.len() + 1..];
    assert!(dump.contains(&key.prefix) && !dump.contains(secret), "{dump}");
    // Another organisation can neither see nor revoke it.
    assert!(keys::list(&store, theirs).await.unwrap().is_empty());
    assert!(!keys::revoke(&store, theirs, key.key_id, now()).await.unwrap());
    keys::record_use(&store, &[(identity.clone(), now()), (identity.clone(), now())]).await.unwrap();
    let listed = keys::list(&store, ours).await.unwrap();
    assert_eq!(listed.iter().map(|key| key.key_id).collect::<Vec<_>>(), [other.key_id, key.key_id]);
    assert!(listed[0].last_used_at.is_none() && listed[1].last_used_at > Some(key.created_at));
    assert!(keys::revoke(&store, ours, key.key_id, now()).await.unwrap());
    assert!(!keys::revoke(&store, ours, key.key_id, now()).await.unwrap(), "once is enough");
    assert_eq!(keys::authenticate(&store, text).await.unwrap(), None);
}

#[tokio::test]
async fn nothing_belongs_to_an_organisation_that_does_not_exist() {
    let (_place, store) = migrated("nobody").await;
    let nobody = OrganisationId::from_uuid(Uuid::new_v4());
    let key = keys::create(&store, nobody, "x", &[Scope::Read], now()).await.unwrap_err();
    assert!(matches!(key, Error::Missing { missing: "organisation", .. }), "{key:?}");
    let consent = connections::Consent { account: "a", email: "a", refresh_token: &"t".into() };
    let connection = connections::add(&store, nobody, &consent, now()).await.unwrap_err();
    assert!(matches!(connection, Error::Missing { missing: "organisation", .. }), "{connection:?}");
}

#[tokio::test]
async fn connecting_an_account_again_renews_its_connection_in_its_organisation() {
    let (_place, store) = migrated("connect").await;
    let (ours, theirs) = (organisation(&store).await, organisation(&store).await);
    let first = connect(&store, ours, "a@example.com", "1//first").await;
    let other = connect(&store, ours, "b@example.com", "1//other").await;
    let foreign = connect(&store, theirs, "a@example.com", "1//foreign").await;
    let again = connect(&store, ours, "a@example.com", "1//second").await;
    assert_eq!((again.connection_id, again.token_version), (first.connection_id, TokenVersion(2)));
    assert_ne!(foreign.connection_id, first.connection_id);
    // One's own, newest first, page by page; nobody else's.
    let all = connections::list(&store, ours, None, 10).await.unwrap();
    assert_eq!(all, [other.clone(), again.clone()]);
    let page = connections::list(&store, ours, Some((other.created_at, other.connection_id)), 10).await.unwrap();
    assert_eq!(page, std::slice::from_ref(&again));
    assert_eq!(connections::find(&store, theirs, first.connection_id).await.unwrap(), None);
    assert_eq!(connections::find(&store, ours, first.connection_id).await.unwrap(), Some(again));
    assert!(connections::refresh_token(&store, theirs, first.connection_id).await.unwrap().is_none());
    // The newest token, and how many share the account's budget.
    let grant = connections::refresh_token(&store, ours, first.connection_id).await.unwrap().unwrap();
    assert_eq!(grant.refresh_token.expose_secret(), "1//second");
    assert_eq!((grant.token_version, grant.shares, grant.account.as_str()), (TokenVersion(2), 2, "a@example.com"));
    assert!(!format!("{grant:?}").contains("second") && !format!("{grant:?}").contains("example"));
}

#[tokio::test]
async fn consents_for_one_account_at_one_time_make_one_connection() {
    let (_place, store) = migrated("consents").await;
    let ours = organisation(&store).await;
    let tokens: Vec<String> = (0..16).map(|n| format!("1//token-{n}")).collect();
    let added = tokens.iter().map(|token| connect(&store, ours, "a@example.com", token));
    let added = futures_util::future::join_all(added).await;
    let mut versions: Vec<i64> = added.iter().map(|connection| connection.token_version.0).collect();
    versions.sort_unstable();
    assert_eq!(versions, (1..=16).collect::<Vec<_>>());
    assert!(added.iter().all(|connection| connection.connection_id == added[0].connection_id));
    // The token that stands is the last version's, and it opens.
    let last = added.iter().position(|connection| connection.token_version == TokenVersion(16)).unwrap();
    let grant = connections::refresh_token(&store, ours, added[0].connection_id).await.unwrap().unwrap();
    assert_eq!(grant.refresh_token.expose_secret(), tokens[last]);
}

#[tokio::test]
async fn a_refresh_token_is_sealed_in_its_place() {
    let (place, store) = migrated("sealed").await;
    let (ours, theirs) = (organisation(&store).await, organisation(&store).await);
    let mine = connect(&store, ours, "a@example.com", "1//very-secret-token").await.connection_id;
    let foreign = connect(&store, theirs, "b@example.com", "1//other").await.connection_id;
    let client = client(&place, &store).await;
    let row = client
        .query_one("SELECT token_ciphertext, token_key_id FROM connections WHERE connection_id = $1", &[mine.as_uuid()])
        .await
        .unwrap();
    let (ciphertext, key_id): (Vec<u8>, String) = (row.get(0), row.get(1));
    assert!(!ciphertext.windows(6).any(|window| window == b"secret"));
    assert_eq!(key_id, "test");
    // Copied to another tenant's row it does not open.
    let copy = "UPDATE connections SET (token_ciphertext, token_nonce) =
                    (SELECT token_ciphertext, token_nonce FROM connections WHERE connection_id = $1)
                WHERE connection_id = $2";
    client.execute(copy, &[mine.as_uuid(), foreign.as_uuid()]).await.unwrap();
    let error = connections::refresh_token(&store, theirs, foreign).await.unwrap_err();
    let wrong = TokenKeyError::Wrong { id: "test".to_owned() };
    assert!(matches!(&error, Error::TokenKey { reason, .. } if *reason == wrong), "{error:?}");
}

#[tokio::test]
async fn a_key_that_is_missing_or_wrong_is_named() {
    let (place, store) = migrated("token_keys").await;
    let ours = organisation(&store).await;
    let connection = connect(&store, ours, "a@example.com", "1//token").await.connection_id;
    let with = |keys: Option<SecretString>| {
        let token_keys = keys.as_ref().and_then(super::keys);
        Store::connect(&Settings { token_keys, ..settings(&place) }).unwrap()
    };
    // Another key first: old tokens need the old key behind it, which is told at start.
    let unknown = with(Some(TokenKeys::generate("next")));
    let reason = TokenKeyError::Unknown { id: "test".to_owned() };
    let error = unknown.check_token_keys().await.unwrap_err();
    assert!(matches!(&error, Error::TokenKey { reason: found, .. } if *found == reason), "{error:?}");
    let error = connections::refresh_token(&unknown, ours, connection).await.unwrap_err();
    assert!(matches!(&error, Error::TokenKey { reason: found, .. } if *found == reason), "{error:?}");
    // Another key under the old id is told at start.
    let wrong = with(Some(TokenKeys::generate("test")));
    let error = wrong.check_token_keys().await.unwrap_err();
    let reason = TokenKeyError::Wrong { id: "test".to_owned() };
    assert!(matches!(&error, Error::TokenKey { reason: found, .. } if *found == reason), "{error:?}");
    // None at all: a sentence on what to set.
    let none = with(None);
    none.check_token_keys().await.unwrap();
    let error = connections::refresh_token(&none, ours, connection).await.unwrap_err().to_string();
    assert!(error.contains("store.token_key"), "{error}");
}

fn said(
    organisation_id: OrganisationId,
    connection_id: ConnectionId,
    step: i64,
    status: ConnectionState,
) -> GmailConnectionStatusChanged {
    GmailConnectionStatusChanged {
        organisation_id,
        connection_id,
        status,
        step,
        last_history_id: None,
        last_synced_at: None,
        token_version: TokenVersion(1),
        code: (status != ConnectionState::Active).then(|| "Gmail.ReauthRequired".to_owned()),
        at: now(),
        watch_expires_at: None,
        last_push_at: None,
        units_today: None,
        units_day: None,
    }
}

#[tokio::test]
async fn a_renewed_token_ends_needs_reauth_before_the_poller_has_seen_it() {
    let (_place, store) = migrated("reauth").await;
    let ours = organisation(&store).await;
    let connection = connect(&store, ours, "a@example.com", "1//token").await.connection_id;
    let fact = said(ours, connection, 1, ConnectionState::NeedsReauth);
    projection::apply(&store, "p", Batch { connections: vec![fact], ..Batch::default() }).await.unwrap();
    let found = connections::find(&store, ours, connection).await.unwrap().unwrap();
    assert_eq!((found.state, found.code.as_deref()), (ConnectionState::NeedsReauth, Some("Gmail.ReauthRequired")));
    let renewed = connect(&store, ours, "a@example.com", "1//newer").await;
    assert_eq!((renewed.state, renewed.code), (ConnectionState::Active, None));
    let due = all_due(&store).await;
    assert_eq!((due[0].state, due[0].token_version), (ConnectionState::Active, TokenVersion(2)));
}

#[tokio::test]
async fn the_scheduler_passes_over_every_living_connection_once() {
    let (place, store) = migrated("pages").await;
    let ours = organisation(&store).await;
    let client = client(&place, &store).await;
    let fill =
        "INSERT INTO connections (connection_id, organisation_id, account, email, token_version, token_ciphertext,
                                         token_nonce, token_key_id, created_at, revoked_at)
                SELECT gen_random_uuid(), $1, n::text, '', 1, '', decode(repeat('00', 24), 'hex'), 'test', now(),
                       CASE WHEN n % 10 = 0 THEN now() END
                FROM generate_series(1, 2500) n";
    client.execute(fill, &[ours.as_uuid()]).await.unwrap();
    for limit in [400, 2_250, 2_251, 1] {
        let (mut parts, mut seen) = (0, Vec::new());
        connections::pass(&store, limit, |part| {
            assert!(part.len() <= limit.into());
            parts += usize::from(!part.is_empty());
            seen.extend(part.iter().map(|due| due.connection_id));
            ControlFlow::Continue(())
        })
        .await
        .unwrap();
        assert_eq!((parts, seen.len()), (2_250_usize.div_ceil(limit.into()), 2_250));
        assert_eq!(seen.into_iter().collect::<HashSet<_>>().len(), 2_250, "each once");
    }

    // Broken off, it leaves a connection that is as good as before.
    let mut parts = 0;
    for _ in 0..20 {
        let broken_off = |_: &[connections::Due]| {
            parts += 1;
            ControlFlow::Break(())
        };
        connections::pass(&store, 400, broken_off).await.unwrap();
    }
    assert_eq!(parts, 20);
}
