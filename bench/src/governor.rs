//! How much of a quota is used under more load than there is quota for, against a simulated Gmail that counts as Gmail
//! does and refuses what is too much: for more than a minute, so that every unit is in a full window.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use domain::mailbox::reply::{Call, CallId, Request};
use domain::{ConnectionId, Lane, OrganisationId, Timestamp, TokenVersion, Window};
use futures_util::future::{BoxFuture, try_join_all};
use gmail::gate::Holding;
use gmail::{
    Account, Client, Credential, Gate, Grant, Mailbox, Quota, Service, Settings, Tariff, TokenSource, TokenSourceError,
};
use simulator::{NewMailbox, Running};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::progress::Progress;
use crate::report::Outcome;

/// How long the quota is spent before it is measured. A budget is careful in its first minutes: whoever had it before may
/// have spent some of it just then.
pub(crate) const WARM_UP: Duration = Duration::from_secs(130);

/// How long it is measured: longer than a minute, so that no minute counts for half.
pub(crate) const TIME: Duration = Duration::from_secs(70);

/// How long the rest is watched after one instance has gone and the others have its partitions.
const AFTER: Duration = Duration::from_secs(40);

/// The project's minute where it is the bound; else it is the account's.
const PROJECT_MINUTE: u64 = 60_000;

/// Mailboxes where the project's minute is the bound, each on a partition of its own.
const MAILBOXES: usize = 24;

/// What is measured.
struct Scenario {
    name: &'static str,
    ours: Tariff,
    theirs: simulator::Tariff,
    instances: usize,
}

const SCENARIOS: [Scenario; 4] = [
    Scenario {
        name: "quota used, one mailbox, 2026-05",
        ours: Tariff::SINCE_2026_05,
        theirs: simulator::Tariff::New,
        instances: 1,
    },
    Scenario {
        name: "quota used, one mailbox, before",
        ours: Tariff::BEFORE_2026_05,
        theirs: simulator::Tariff::Old,
        instances: 1,
    },
    Scenario {
        name: "quota used, three instances, 2026-05",
        ours: Tariff::SINCE_2026_05,
        theirs: simulator::Tariff::New,
        instances: 3,
    },
    Scenario {
        name: "quota used, three instances, before",
        ours: Tariff::BEFORE_2026_05,
        theirs: simulator::Tariff::Old,
        instances: 3,
    },
];

/// Refresh tokens of the simulator's mailboxes.
struct Consents(Vec<(Mailbox, String, String)>);

impl TokenSource for Consents {
    fn refresh_token(&self, mailbox: Mailbox) -> BoxFuture<'_, Result<Grant, TokenSourceError>> {
        let found = self.0.iter().find(|(one, ..)| *one == mailbox);
        let grant = found.map(|(_, address, token)| Grant {
            account: Account::new(address),
            shares: 1,
            token_version: TokenVersion(1),
            credential: Credential::RefreshToken(token.clone().into()),
        });
        Box::pin(async move { grant.ok_or(TokenSourceError::Gone) })
    }
}

/// A process that calls Gmail.
struct Instance {
    client: Client,
    holding: Holding,
    load: JoinSet<()>,
}

impl Instance {
    fn start(settings: &Settings, consents: &Arc<Consents>, partitions: usize) -> anyhow::Result<Self> {
        let gate = Gate::by_partitions(settings, Service::Poller);
        let holding = gate.holding();
        holding.set(partitions, MAILBOXES);
        Ok(Self { client: Client::new(settings, consents.clone(), gate)?, holding, load: JoinSet::new() })
    }

    /// Lists this mailbox without a pause, at every priority.
    fn load(&mut self, mailbox: Mailbox) {
        for lane in [Lane::Live, Lane::CatchUp, Lane::Backfill, Lane::Audit] {
            let client = self.client.clone();
            self.load.spawn(async move {
                let window = Window { since: Timestamp::from_millis(0), until: Timestamp::from_millis(1_000) };
                let request = Request::List { window, held_only: false, token: None, max: 10 };
                let version = TokenVersion(1);
                let call = Call { id: CallId(1), lane, request, deadline: None, token_version: version, trace: None };
                loop {
                    // What is refused shows in the simulator's count.
                    let _ = client.call(mailbox, &call).await;
                }
            });
        }
    }
}

/// Units spent in a second, and those that the quota has.
async fn measure(scenario: &Scenario) -> anyhow::Result<(f64, f64)> {
    let is_one = scenario.instances == 1;
    let project_minute = if is_one { scenario.ours.project_minute } else { PROJECT_MINUTE };
    let settings = simulator::Settings {
        tariff: scenario.theirs,
        project_minute: Some(project_minute),
        ..simulator::Settings::default()
    };
    let simulator = simulator::start(settings).await?;
    let consents = Arc::new(Consents(connect(&simulator, if is_one { 1 } else { MAILBOXES })?));
    let settings = Settings {
        api_url: simulator.base_url.parse()?,
        token_url: format!("{}/token", simulator.base_url).parse()?,
        client_id: "client".to_owned(),
        client_secret: Some("secret".into()),
        tariff: scenario.ours,
        quota: Quota {
            project_minute: Some(project_minute),
            project_day: Some(1_000_000_000),
            poller: 1.0,
            fetcher: 0.0,
            ingress: 0.0,
            ..Quota::default()
        },
        ..Settings::default()
    };
    let n = scenario.instances;
    let mut instances: Vec<_> =
        (0..n).map(|_| Instance::start(&settings, &consents, MAILBOXES / n)).collect::<Result<_, _>>()?;
    for (number, (mailbox, ..)) in consents.0.iter().enumerate() {
        instances[number % n].load(*mailbox);
    }
    tokio::time::sleep(WARM_UP).await;
    let spent = || simulator.control().usage().total.units;
    let (before, began) = (spent(), Instant::now());
    tokio::time::sleep(TIME).await;
    let (units, took) = (spent() - before, began.elapsed());
    if !is_one {
        // One goes, and the others have its partitions.
        let gone = instances.pop();
        drop(gone.map(|gone| (gone.load, gone.holding)));
        for instance in &instances {
            instance.holding.set(MAILBOXES / (n - 1), MAILBOXES);
        }
        for (number, (mailbox, ..)) in consents.0.iter().enumerate().filter(|(number, _)| number % n == n - 1) {
            instances[number / n % (n - 1)].load(*mailbox);
        }
        tokio::time::sleep(AFTER).await;
    }
    let throttled = simulator.control().usage().total.throttled;
    ensure!(throttled == 0, "{}: Gmail refused {throttled} calls", scenario.name);
    let limit = if is_one { scenario.ours.user_minute } else { project_minute };
    Ok((units as f64 / took.as_secs_f64(), limit as f64 / 60.0))
}

fn connect(simulator: &Running, n: usize) -> anyhow::Result<Vec<(Mailbox, String, String)>> {
    let one = |number: usize| {
        let email = format!("{number}@example.com");
        let created = simulator.control().create(&NewMailbox { email, ..NewMailbox::default() })?;
        let organisation_id = OrganisationId::from_uuid(Uuid::new_v4());
        let mailbox = Mailbox { organisation_id, connection_id: ConnectionId::from_uuid(Uuid::new_v4()) };
        Ok((mailbox, created.email, created.refresh_token))
    };
    (0..n).map(one).collect()
}

/// All scenarios side by side: none of them is busy.
pub(crate) async fn run() -> anyhow::Result<Vec<Outcome>> {
    let progress = Progress::start("governor");
    progress.say(&format!("spending quotas for {} s", (WARM_UP + TIME + AFTER).as_secs()));
    let measured = try_join_all(SCENARIOS.iter().map(measure)).await?;
    let outcome =
        |(scenario, rates): (&Scenario, (f64, f64))| Outcome::of_rates(scenario.name, "units/s", &[rates], 0.98);
    Ok(SCENARIOS.iter().zip(measured).map(outcome).collect())
}
