//! What an operator sees over all organisations costs the same however many connections there are.

use store::overview::{self, Precision};

use super::{client, migrated, now, organisation};

/// Enough that counting them one by one is given up.
const MANY: i64 = 120_000;

#[tokio::test]
async fn many_connections_are_estimated_and_the_few_that_are_amiss_are_counted() {
    let (place, store) = migrated("overview").await;
    let organisation = organisation(&store).await;
    let none = overview::connections(&store).await.unwrap();
    assert_eq!((none.all.count, none.all.precision, none.needs_reauth.count), (0, Precision::Exact, 0));
    let client = client(&place, &store).await;
    let id = *organisation.as_uuid();
    let connections = "INSERT INTO connections (connection_id, organisation_id, account, email, token_version,
            token_ciphertext, token_nonce, token_key_id, created_at)
        SELECT gen_random_uuid(), $1, 'a' || n, 'a' || n, 1, '', decode(repeat('00', 24), 'hex'), 'test', now()
        FROM generate_series(1, $2::int8) n";
    client.execute(connections, &[&id, &MANY]).await.unwrap();
    let states = "INSERT INTO connection_states (connection_id, organisation_id, state, step, token_version, changed_at,
            units_today, units_day)
        SELECT connection_id, organisation_id, CASE WHEN right(account, 5) = '00000' THEN 'needs_reauth' ELSE 'active' END,
            0, 1, now(), 10, now() - interval '1 hour' FROM connections";
    client.execute(states, &[]).await.unwrap();
    // Until the server has looked, or told so, counting goes on to its bound and stops there.
    client.batch_execute("ANALYZE connections, connection_states").await.unwrap();
    let many = overview::connections(&store).await.unwrap();
    assert_eq!(many.all.precision, Precision::Estimate);
    assert!((110_000..=130_000).contains(&many.all.count), "{many:?}");
    assert_eq!((many.needs_reauth.count, many.needs_reauth.precision), (1, Precision::Exact));
    let units = overview::units(&store, now() - domain::Duration::from_days(1)).await.unwrap();
    assert_eq!(units.precision, Precision::Estimate);
    assert!((900_000..=1_500_000).contains(&units.count), "{units:?}");
    assert_eq!(overview::units(&store, now()).await.unwrap().count, 0, "of another day");
    // The few are found by their index.
    let sql = "EXPLAIN SELECT 1 FROM connection_states WHERE state <> 'active' AND state = 'needs_reauth' LIMIT 100001";
    let plan: Vec<String> = client.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert!(plan.iter().any(|line| line.contains("connection_states_amiss")), "{plan:?}");
}
