//! Migrations.

use futures_util::future::try_join_all;
use store::{Error, Settings, Store, organisations};

use super::{client, migrated, now, settings};
use crate::support::Place;

#[tokio::test]
async fn many_processes_migrate_at_once_and_again() {
    let place = Place::new("migrate");
    let stores: Vec<_> = (0..8).map(|_| Store::connect(&settings(&place)).unwrap()).collect();
    try_join_all(stores.iter().map(Store::migrate)).await.unwrap();
    try_join_all(stores.iter().map(Store::migrate)).await.unwrap();
    let client = client(&place, &stores[0]).await;
    let applied = client.query("SELECT version FROM refinery_schema_history ORDER BY 1", &[]).await.unwrap();
    let mut versions: Vec<i32> = applied.iter().map(|row| row.get(0)).collect();
    assert_eq!(versions[0], 1);
    versions.dedup();
    assert_eq!(versions.len(), applied.len(), "each once");
}

#[tokio::test]
async fn nothing_is_made_outside_of_the_schema() {
    let place = Place::new("outside");
    let tables = "SELECT schemaname || '.' || tablename FROM pg_tables
                  WHERE schemaname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1";
    let all = |rows: Vec<tokio_postgres::Row>| rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>();
    let one = Store::connect(&settings(&place)).unwrap();
    let client = client(&place, &one).await;
    let before = all(client.query(tables, &[]).await.unwrap());
    one.migrate().await.unwrap();
    let schema = format!("{}_two", one.schema());
    let two = Store::connect(&Settings { schema, ..settings(&place) }).unwrap();
    two.migrate().await.unwrap();
    let made = all(client.query(tables, &[]).await.unwrap());
    let of = |store: &Store| made.iter().filter(|name| name.starts_with(&format!("{}.", store.schema()))).count();
    assert_eq!(of(&one), of(&two));
    assert_eq!(made.len() - before.len(), of(&one) + of(&two), "{made:?}");
    // And they share nothing.
    let there = organisations::create(&one, "One's", now()).await.unwrap();
    assert_eq!(organisations::find(&one, there.organisation_id).await.unwrap(), Some(there.clone()));
    assert_eq!(organisations::find(&two, there.organisation_id).await.unwrap(), None);
    client.batch_execute(&format!("DROP SCHEMA {} CASCADE", two.schema())).await.unwrap();
}

#[tokio::test]
async fn a_later_schema_is_left_alone_and_a_changed_one_is_refused() {
    let (place, store) = migrated("versions").await;
    let client = client(&place, &store).await;
    let later = "INSERT INTO refinery_schema_history (version, name, applied_on, checksum)
                 SELECT 99, 'later', applied_on, '1' FROM refinery_schema_history WHERE version = 1";
    client.batch_execute(later).await.unwrap();
    store.migrate().await.unwrap();
    client.batch_execute("UPDATE refinery_schema_history SET checksum = '2' WHERE version = 1").await.unwrap();
    let error = store.migrate().await.unwrap_err();
    assert!(matches!(&error, Error::Migration { schema, .. } if schema == store.schema()), "{error:?}");
}
