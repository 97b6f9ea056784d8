//! Refresh tokens moved from one token key to another.

use secrecy::{ExposeSecret, SecretString};
use store::{Error, Settings, Store, TokenKeyError, TokenKeys, connections, rotation};

use super::{client, connect, migrated, now, organisation, settings};

const OLD: &str = "test:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";

#[tokio::test]
async fn tokens_move_batch_by_batch_while_others_write_and_the_old_key_can_go() {
    const TOKENS: usize = 25;
    let (place, old) = migrated("rotate").await;
    let with = |keys: &str| {
        let token_keys = super::keys(&SecretString::from(keys));
        Store::connect(&Settings { token_keys, ..settings(&place) }).unwrap()
    };
    let new = TokenKeys::generate("new");
    let new = new.expose_secret();
    let ours = organisation(&old).await;
    let mut owned = Vec::new();
    for number in 0..TOKENS {
        let account = format!("a{number}@example.com");
        owned.push(connect(&old, ours, &account, &format!("1//{number}")).await.connection_id);
    }
    let rotating = with(&format!("{new},{OLD}"));
    rotating.check_token_keys().await.unwrap();
    assert_eq!(rotation::left(&rotating, now()).await.unwrap().tokens, TOKENS as u64);

    // Stopped after a batch, and begun again from the start; renewed in between by a service with either key first.
    let first = rotation::batch(&rotating, None, 10).await.unwrap();
    assert_eq!((first.moved, first.unopened.len()), (10, 0));
    assert!(first.next.is_some());
    assert_eq!(rotation::left(&rotating, now()).await.unwrap().tokens, TOKENS as u64 - 10);
    connect(&rotating, ours, "a3@example.com", "1//3 renewed").await;
    let behind = with(&format!("{OLD},{new}"));
    connect(&behind, ours, "a4@example.com", "1//4 renewed").await;
    let mut after = None;
    let mut moved = 0;
    loop {
        let batch = rotation::batch(&rotating, after, 10).await.unwrap();
        moved += batch.moved;
        match batch.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert!((13..=16).contains(&moved), "those that were left, and the one renewed under the old key: {moved}");
    assert_eq!(rotation::left(&rotating, now()).await.unwrap().tokens, 0);
    assert_eq!(rotation::batch(&rotating, None, 10).await.unwrap().moved, 0, "repeatable");

    let alone = with(new);
    alone.check_token_keys().await.unwrap();
    for (number, connection) in owned.into_iter().enumerate() {
        let grant = connections::refresh_token(&alone, ours, connection).await.unwrap().unwrap();
        let expected = if matches!(number, 3 | 4) { format!("1//{number} renewed") } else { format!("1//{number}") };
        assert_eq!(grant.refresh_token.expose_secret(), expected);
    }
}

#[tokio::test]
async fn a_token_that_no_key_opens_is_named_and_holds_up_no_other() {
    let (place, old) = migrated("rotate-bad").await;
    let ours = organisation(&old).await;
    let bent = connect(&old, ours, "a@example.com", "1//a").await.connection_id;
    let fine = connect(&old, ours, "b@example.com", "1//b").await.connection_id;
    let bend =
        "UPDATE connections SET token_ciphertext = set_byte(token_ciphertext, 0, 255 - get_byte(token_ciphertext, 0))
                WHERE connection_id = $1";
    assert_eq!(client(&place, &old).await.execute(bend, &[bent.as_uuid()]).await.unwrap(), 1);
    let new = TokenKeys::generate("new");
    let keys = super::keys(&format!("{},{OLD}", new.expose_secret()).into());
    let rotating = Store::connect(&Settings { token_keys: keys, ..settings(&place) }).unwrap();
    let batch = rotation::batch(&rotating, None, 10).await.unwrap();
    assert_eq!((batch.moved, batch.next), (1, None));
    assert_eq!(batch.unopened, [(bent, TokenKeyError::Wrong { id: "test".to_owned() })]);
    assert_eq!(rotation::left(&rotating, now()).await.unwrap().tokens, 1);
    let grant = connections::refresh_token(&rotating, ours, fine).await.unwrap().unwrap();
    assert_eq!(grant.refresh_token.expose_secret(), "1//b");
    let alone = Store::connect(&Settings { token_keys: super::keys(&new), ..settings(&place) }).unwrap();
    let refused = alone.check_token_keys().await.unwrap_err();
    assert!(matches!(refused, Error::TokenKey { .. }), "the old key cannot go yet: {refused:?}");
}
