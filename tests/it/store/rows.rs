//! Jobs as ingress puts them, and the schedule's watermark.

use domain::{
    ConnectionId, JobId, JobState, OrganisationId, PollGmailConnection, Progress, TokenVersion, Trigger, Window,
};
use store::{jobs, schedule};
use uuid::Uuid;

use super::{migrated, now};

pub(super) fn command(organisation_id: OrganisationId) -> PollGmailConnection {
    let requested_at = now();
    PollGmailConnection {
        job_id: JobId::from_uuid(Uuid::new_v4()),
        organisation_id,
        connection_id: ConnectionId::from_uuid(Uuid::new_v4()),
        trigger: Trigger::Api,
        window: None,
        token_version: TokenVersion(1),
        requested_at,
        deadline: requested_at + domain::Duration::from_hours(1),
    }
}

pub(super) fn anybody() -> OrganisationId {
    OrganisationId::from_uuid(Uuid::new_v4())
}

#[tokio::test]
async fn a_queued_job_is_found_at_once_by_its_organisation_only() {
    let (_place, store) = migrated("queued").await;
    let (ours, theirs) = (anybody(), anybody());
    let window = Some(Window { since: now(), until: now() });
    let backfill = PollGmailConnection { window, trigger: Trigger::Backfill, ..command(ours) };
    let commands = [command(ours), backfill, command(theirs)];
    jobs::insert_queued(&store, &commands).await.unwrap();
    jobs::insert_queued(&store, &commands).await.unwrap();
    jobs::insert_queued(&store, &[]).await.unwrap();
    for command in &commands {
        let job = jobs::find(&store, command.organisation_id, command.job_id).await.unwrap().unwrap();
        let expected = jobs::Job {
            job_id: command.job_id,
            organisation_id: command.organisation_id,
            connection_id: command.connection_id,
            trigger: command.trigger,
            state: JobState::Queued,
            step: -1,
            progress: Progress { window: command.window, ..Progress::default() },
            requested_at: command.requested_at,
            started_at: None,
            ended_at: None,
            deadline: command.deadline,
            code: None,
            detail: None,
            changed_at: command.requested_at,
        };
        assert_eq!(job, expected);
    }
    assert_eq!(jobs::find(&store, theirs, commands[0].job_id).await.unwrap(), None);
    assert_eq!(jobs::find(&store, ours, JobId::from_uuid(Uuid::new_v4())).await.unwrap(), None);
}

#[tokio::test]
async fn the_watermark_never_goes_back() {
    let (_place, store) = migrated("watermark").await;
    assert_eq!(schedule::fired_to(&store, "12h").await.unwrap(), None);
    let (early, late) = (now(), now());
    for to in [early, late, early] {
        schedule::advance(&store, "12h", to).await.unwrap();
    }
    assert_eq!(schedule::fired_to(&store, "12h").await.unwrap(), Some(late));
    assert_eq!(schedule::fired_to(&store, "other").await.unwrap(), None);
}
