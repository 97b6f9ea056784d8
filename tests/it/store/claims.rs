//! Idempotency keys claimed together.

use domain::Duration;
use store::idempotency::{Claim, Request, Same, Wanted, claim_all, find};
use uuid::Uuid;

use super::{migrated, now, organisation};

fn request(key: u8, request: u8) -> Request {
    Request { key_hash: [key; 32], request_hash: [request; 32] }
}

#[tokio::test]
async fn of_many_that_claim_at_once_each_key_has_the_first_and_all_hear_whose_it_is() {
    let (_place, store) = migrated("claims").await;
    let (ours, theirs) = (organisation(&store).await, organisation(&store).await);
    let wanted = |organisation_id, request| Wanted { organisation_id, request, fresh_id: Uuid::new_v4() };
    let same = |wanted: &Wanted| Some(Claim::Same(Same { made_id: wanted.fresh_id, is_a_job: false, answer: None }));
    let (at, since) = (now(), now() - Duration::from_hours(24));

    let first = [
        wanted(ours, request(1, 1)),
        wanted(ours, request(1, 1)),
        wanted(theirs, request(1, 1)),
        wanted(ours, request(2, 1)),
        wanted(ours, request(2, 2)),
    ];
    let claims = claim_all(&store, &first, at, since).await.unwrap();
    let expected = [same(&first[0]), same(&first[0]), same(&first[2]), same(&first[3]), Some(Claim::Other)];
    assert_eq!(claims, expected);
    // Again, beside one that is new.
    let again = [wanted(ours, request(3, 1)), wanted(ours, request(1, 1)), wanted(ours, request(2, 9))];
    let claims = claim_all(&store, &again, at, since).await.unwrap();
    assert_eq!(claims, [same(&again[0]), same(&first[0]), Some(Claim::Other)]);
    // After its time a key is as new, for whoever comes first.
    let later = at + Duration::from_hours(25);
    let anew = [wanted(ours, request(1, 7)), wanted(ours, request(1, 1))];
    let claims = claim_all(&store, &anew, later, later - Duration::from_hours(24)).await.unwrap();
    assert_eq!(claims, [same(&anew[0]), Some(Claim::Other)]);
    assert_eq!(find(&store, ours, &request(1, 7), since).await.unwrap(), same(&anew[0]));
    assert_eq!(claim_all(&store, &[], at, since).await.unwrap(), []);
}

#[tokio::test]
async fn batches_that_share_keys_do_not_stand_in_each_others_way() {
    let (_place, store) = migrated("claims-shared").await;
    let ours = organisation(&store).await;
    let (at, since) = (now(), now() - Duration::from_hours(24));
    // Each in an order of its own.
    let batches = (0..16u16).map(|batch| {
        let keys = (0..40u16).map(move |key| u8::try_from((key * 7 + batch * 3) % 40).unwrap());
        let wanted =
            keys.map(|key| Wanted { organisation_id: ours, request: request(key, 1), fresh_id: Uuid::new_v4() });
        wanted.collect::<Vec<_>>()
    });
    let batches: Vec<_> = batches.collect();
    let claims = futures_util::future::join_all(batches.iter().map(|batch| claim_all(&store, batch, at, since))).await;
    let mut made = std::collections::BTreeMap::new();
    for (batch, claims) in batches.iter().zip(claims) {
        for (wanted, claim) in batch.iter().zip(claims.unwrap()) {
            let Some(Claim::Same(same)) = claim else { panic!("{claim:?}") };
            let id = *made.entry(wanted.request.key_hash).or_insert(same.made_id);
            assert_eq!(id, same.made_id, "all hear of the same");
        }
    }
    assert_eq!(made.len(), 40);
}
