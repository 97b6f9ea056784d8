//! Upgrades: from the schema of every version ever released, with rows in place.

use std::collections::BTreeMap;
use std::path::Path;

use domain::OrganisationId;
use secrecy::ExposeSecret;
use store::{Settings, Store, connections, jobs, keys, organisations};
use uuid::Uuid;

use super::{client, connect, migrated, settings};
use crate::support::Place;

/// The migrations' texts by version.
fn migrations() -> BTreeMap<i32, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/store/migrations");
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let number = |path: &Path| path.file_name()?.to_str()?.strip_prefix('V')?.split_once("__")?.0.parse().ok();
    files.map(|path| (number(&path).unwrap(), std::fs::read_to_string(&path).unwrap())).collect()
}

/// Rows of every table that the first version had, as it wrote them.
const ROWS: &str = "
    INSERT INTO organisations VALUES ('00000000-0000-4000-8000-000000000001', 'Acme', '{}', now());
    INSERT INTO api_keys VALUES ('00000000-0000-4000-8000-000000000002', '00000000-0000-4000-8000-000000000001', 'key',
        'mt_abc', decode(repeat('00', 32), 'hex'), '{read}', now());
    INSERT INTO connections SELECT '00000000-0000-4000-8000-000000000003', '00000000-0000-4000-8000-000000000001',
        'Ann@Example.com', 'Ann@Example.com', 1, '', decode(repeat('00', 24), 'hex'), 'test', now();
    INSERT INTO connection_states VALUES ('00000000-0000-4000-8000-000000000003',
        '00000000-0000-4000-8000-000000000001', 'active', 1, '18446744073709551615', now(), 1, NULL, now());
    INSERT INTO jobs VALUES ('00000000-0000-4000-8000-000000000004', '00000000-0000-4000-8000-000000000001',
        '00000000-0000-4000-8000-000000000003', 'api', 'succeeded', 2, 7, '{\"pages\": 3}', now(), now(), now(), now(),
        NULL, NULL, now());
    INSERT INTO projector_offsets VALUES ('p', 't', 0, 7);
    INSERT INTO schedule_watermarks VALUES ('s', now());";

#[tokio::test]
async fn every_released_version_is_brought_up_to_date_with_its_rows() {
    let (place, newest) = migrated("upgrade").await;
    let client = client(&place, &newest).await;
    let migrations = migrations();
    let known = client.query("SELECT version FROM refinery_schema_history ORDER BY 1", &[]).await.unwrap();
    let known: Vec<i32> = known.iter().map(|row| row.get(0)).collect();
    assert_eq!(known, migrations.keys().copied().collect::<Vec<_>>(), "each file is a migration that is run");
    for version in &known {
        upgrade(&place, &client, &newest, *version, &migrations).await;
    }
}

async fn upgrade(
    place: &Place,
    client: &tokio_postgres::Client,
    newest: &Store,
    version: i32,
    migrations: &BTreeMap<i32, String>,
) {
    let schema = format!("{}_from_{version}", newest.schema());
    let of_newest = newest.schema();
    client
        .batch_execute(&format!(
            "CREATE SCHEMA {schema}; SET search_path = {schema};
             CREATE TABLE refinery_schema_history (LIKE {of_newest}.refinery_schema_history INCLUDING ALL);
             INSERT INTO refinery_schema_history
                 SELECT * FROM {of_newest}.refinery_schema_history WHERE version <= {version};"
        ))
        .await
        .unwrap();
    let old = Store::connect(&Settings { schema: schema.clone(), ..settings(place) }).unwrap();
    for text in migrations.range(..=version).map(|(_, text)| text) {
        client.batch_execute(text).await.unwrap();
        if text == &migrations[&1] {
            client.batch_execute(ROWS).await.unwrap();
        }
    }

    old.migrate().await.unwrap();
    let columns = "SELECT string_agg(format('%s.%s %s %s', table_name, column_name, data_type, is_nullable), E'\\n'
                                     ORDER BY table_name, column_name)
                   FROM information_schema.columns WHERE table_schema = $1";
    let of = async |schema: &str| client.query_one(columns, &[&schema]).await.unwrap().get::<_, String>(0);
    assert_eq!(of(&schema).await, of(of_newest).await, "from version {version}");

    // Everything is there and can be read, and the connection is found by its address in any case.
    let ours = OrganisationId::from_uuid(Uuid::parse_str("00000000-0000-4000-8000-000000000001").unwrap());
    assert_eq!(organisations::find(&old, ours).await.unwrap().unwrap().name, "Acme");
    assert_eq!(keys::list(&old, ours).await.unwrap().len(), 1);
    let listed = connections::list(&old, ours, None, 10).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].last_history_id.unwrap().to_string(), "18446744073709551615");
    let job = "00000000-0000-4000-8000-000000000004".parse().unwrap();
    assert_eq!(jobs::find(&old, ours, job).await.unwrap().unwrap().progress.pages, 3);
    let renewed = connect(&old, ours, "ann@example.com", "1//renewed").await;
    assert_eq!(renewed.connection_id, listed[0].connection_id);
    let grant = connections::refresh_token(&old, ours, renewed.connection_id).await.unwrap().unwrap();
    assert_eq!(grant.refresh_token.expose_secret(), "1//renewed");
    client.batch_execute(&format!("DROP SCHEMA {schema} CASCADE")).await.unwrap();
}
