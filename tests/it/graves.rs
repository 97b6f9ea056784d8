//! Commands that come again, around a deletion: the command topic delivers at least once, and two schedulers ask for the
//! same slot. A job that ended with its mailbox is not begun again, whoever owns the partition then.

use std::collections::BTreeMap;
use std::process::Stdio;

use bytes::Bytes;
use domain::mailbox::record::{MailboxState, Tail};
use domain::{CancelJob, Command, ForgetConnection};
use kafka::topics::Topic;
use kafka::{Headers, OutRecord, Producer};
use serde_json::{Value, json};
use store::connections;
use uuid::Uuid;

use crate::cli::command;
use crate::house::{House, Mailbox, now};
use crate::support::{LONG, Record, wait_for, wait_until};

/// Writes commands as ingress and schedulers do.
struct Asking<'a> {
    house: &'a House,
    producer: Producer,
}

impl Asking<'_> {
    async fn send(&self, command: Command) {
        let value = events::encode_command(&command);
        let key = command.connection_id().to_string();
        let record = OutRecord::new(self.house.topics().name(Topic::Poll), key, value, Headers::new());
        self.producer.send(&record).await.unwrap();
    }

    async fn sync(&self, mailbox: &Mailbox, job: Uuid) {
        self.send(Command::Poll(self.house.command(mailbox, job))).await;
    }

    async fn cancel(&self, mailbox: &Mailbox, job: Uuid) {
        let domain::PollGmailConnection { job_id, organisation_id, connection_id, requested_at, .. } =
            self.house.command(mailbox, job);
        self.send(Command::Cancel(CancelJob { job_id, organisation_id, connection_id, requested_at })).await;
    }

    async fn forget(&self, mailbox: &Mailbox) {
        let (organisation_id, connection_id) = (self.house.organisation, mailbox.id);
        self.send(Command::Forget(ForgetConnection { organisation_id, connection_id, requested_at: now() })).await;
    }

    async fn ends(&self, job: Uuid, state: &str) {
        wait_until(LONG, &format!("job {job} ends as {state}"), || async {
            told(self.house).await.get(&job).is_some_and(|told| told.last().is_some_and(|last| last == state))
        })
        .await;
    }
}

/// All that was told of each job, in order.
async fn told(house: &House) -> BTreeMap<Uuid, Vec<String>> {
    let mut told: BTreeMap<Uuid, Vec<String>> = BTreeMap::new();
    for fact in house.evidence(false).await.jobs {
        let state = fact.value["state"].as_str().unwrap().to_owned();
        told.entry(fact.key.parse().unwrap()).or_default().push(state);
    }
    told
}

/// The last record under a mailbox's own key.
async fn last(house: &House, mailbox: &Mailbox) -> Record {
    let records = house.committed("gmail.connection.state").await;
    records.into_iter().rfind(|record| record.key_text() == mailbox.id.to_string()).expect("it had state")
}

fn said(record: &Record) -> Option<Value> {
    record.value.as_deref().map(|value| events::to_json(value).unwrap())
}

async fn grow(house: &House) -> Value {
    let output = wait_for(LONG, "the partitions grow", || async {
        let mut grow = command(&house.place, &["topics", "grow", "--partitions", "7", "--yes", "--json"]);
        grow.envs(house.settings()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = grow.output().await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        // The killed poller is a member of its group for a while yet.
        assert!(output.status.success() || said.contains("stop every poller"), "{said}");
        output.status.success().then_some(output.stdout)
    })
    .await;
    serde_json::from_slice(&output).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn i3_a_command_that_comes_again_after_a_deletion_begins_no_job_anew() {
    let house = House::new("graves").await;
    house.create_topics().await;
    let (deleted, _living) = (house.mailbox("a").await, house.mailbox("b").await);
    let asking = Asking { house: &house, producer: Producer::new(&house.kafka("tests"), "tests").unwrap() };
    let mut poller = house.process("poller", "poller");
    poller.start();
    let [first, second, third, last_one] = std::array::from_fn(|_| Uuid::new_v4());
    for mailbox in house.mailboxes() {
        let job = if mailbox.id == deleted.id { first } else { Uuid::new_v4() };
        asking.sync(&mailbox, job).await;
        asking.ends(job, "succeeded").await;
    }
    // One that runs has a token yet, and so does not notice.
    poller.kill();
    connections::delete(&house.store, house.organisation, deleted.id, now()).await.unwrap().unwrap();
    poller.start();
    asking.sync(&deleted, second).await;
    asking.ends(second, "failed").await;
    let was = told(&house).await;
    let grave = last(&house, &deleted).await;
    let state = said(&grave).expect("a grave is left");
    assert_eq!((&state["heads"], &state["jobs"]), (&json!([]), &json!([])), "{state}");
    let decays_at: i64 = grave.header("decays").expect("it says until when").parse().unwrap();
    assert!(decays_at > (now() + domain::Duration::from_days(7)).as_millis());

    // All of it comes again, to the next owner and to the one after. A new job is none that ended.
    poller.kill();
    let again = async |asking: &Asking<'_>| {
        asking.sync(&deleted, second).await;
        asking.forget(&deleted).await;
        asking.cancel(&deleted, first).await;
        asking.sync(&deleted, first).await;
        asking.sync(&deleted, second).await;
    };
    again(&asking).await;
    poller.start();
    asking.sync(&deleted, third).await;
    asking.ends(third, "failed").await;
    again(&asking).await;
    poller.kill();

    // Nor does it matter that its partition is another one.
    let grown = grow(&house).await;
    assert_eq!(grown["mailboxes"], 1, "a grave is no mailbox: {grown}");
    poller.start();
    // A producer that knew the topic before would go on with as many partitions as it had for minutes.
    let asking = Asking { house: &house, producer: Producer::new(&house.kafka("tests"), "tests").unwrap() };
    again(&asking).await;
    asking.sync(&deleted, third).await;
    asking.sync(&deleted, last_one).await;
    asking.ends(last_one, "failed").await;
    let is = told(&house).await;
    assert_eq!((&is[&first], &is[&second]), (&was[&first], &was[&second]));
    assert_eq!(was[&first].last().unwrap(), "succeeded");
    for job in [second, third, last_one] {
        let ends = is[&job].iter().filter(|state| ["succeeded", "failed", "cancelled"].contains(&state.as_str()));
        assert_eq!(ends.count(), 1, "{job}: {:?}", is[&job]);
    }

    // When its time has come it goes, though nobody asks for the mailbox.
    assert_eq!(poller.stop(), 0);
    let ended_at = now() - domain::Duration::from_days(9);
    let minute = i32::try_from(ended_at.as_millis() / 60_000).unwrap();
    let aged = MailboxState {
        ended: Tail {
            ids: Bytes::copy_from_slice(first.as_bytes()),
            minutes: Bytes::copy_from_slice(&minute.to_be_bytes()),
        },
        decays_at: Some(now() - domain::Duration::from_hours(1)),
        ..domain::mailbox::Mailbox::new(deleted.id, house.organisation).state(7, 0)
    };
    let record = poller::moving::state(house.topics().name(Topic::State), &aged, false);
    asking.producer.send(&record).await.unwrap();
    poller.start();
    wait_until(LONG, "the grave goes", || async { said(&last(&house, &deleted).await).is_none() }).await;
    assert_eq!(poller.stop(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn i2_a_deleted_mailbox_is_not_listed_again_with_a_token_that_still_lives() {
    let house = House::new("graves-token").await;
    house.create_topics().await;
    let mailbox = house.mailbox("a").await;
    mailbox.deliver(5);
    let asking = Asking { house: &house, producer: Producer::new(&house.kafka("tests"), "tests").unwrap() };
    let mut poller = house.process("poller", "poller");
    poller.start();
    let [first, late] = std::array::from_fn(|_| Uuid::new_v4());
    asking.sync(&mailbox, first).await;
    asking.ends(first, "succeeded").await;
    // Google is away, so that the grant, and the token that the poller has, live on.
    connections::delete(&house.store, house.organisation, mailbox.id, now()).await.unwrap().unwrap();
    asking.forget(&mailbox).await;
    // A scheduler's plan knows the connection for minutes yet.
    asking.sync(&mailbox, late).await;
    asking.ends(late, "failed").await;
    assert_eq!(poller.stop(), 0);
    assert_eq!(house.evidence(false).await.discovered.len(), 5);
}
