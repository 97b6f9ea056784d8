//! The proof that a count after kill -9 under load can fail: with one protection off it finds the damage, and with it on
//! there is none. What every kind of fault does to a whole installation is `tests/chaos`.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kafka::{Fault, Faults, Point};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use simulator::Behaviour;

use crate::house::{House, Mailbox, session};
use crate::support::{LONG, Service, wait_until};
use chaos::checker::Findings;

/// How rough it gets.
struct Plan {
    name: &'static str,
    seed: u64,
    /// Protections that are off, as the variable for processes under test has them.
    faults: &'static str,
}

const MAILBOXES: usize = 40;

/// Pollers killed. Ingress and projector are killed, and pollers hung, in between.
const KILLS: usize = 8;

/// How many ask for syncs, one after the other, and how many milliseconds each waits in between.
const CALLERS: u64 = 4;
const PAUSE: Range<u64> = 5..60;

/// Records of history show only after up to so long in some mailboxes.
const LAG: Duration = Duration::from_millis(800);

/// How long a poller is held when it is hung, beyond its session: its partitions are taken from it, but its
/// transactions live on, so that it comes back with one that it could commit.
const HUNG: Duration = Duration::from_millis(1_000);

/// Two runs that differ in one protection. In both each transaction takes long, so that a kill is likely to hit one.
#[tokio::test(flavor = "multi_thread")]
async fn kill_9_does_damage_only_where_offsets_are_committed_outside_the_transaction() {
    /// No kill is bound to hit a transaction.
    const ROUNDS: usize = 6;
    let plan = |name, faults| Plan { name, seed: rand::random(), faults };
    let sound = plan("sound", "dawdle");
    let findings = run(&sound).await;
    assert!(findings.is_clean(), "seed {}: {findings}", sound.seed);
    for _ in 0..ROUNDS {
        let findings = run(&plan("harm", "dawdle,offsets-outside")).await;
        if !findings.lost.is_empty() || !findings.twice.is_empty() {
            return;
        }
    }
    panic!("{ROUNDS} times {KILLS} kills did no harm that the count finds");
}

/// The processes, by name.
struct Processes {
    house: Arc<House>,
    ingress: Service,
    projector: Service,
    pollers: Vec<Service>,
    killed: BTreeMap<&'static str, usize>,
}

/// Whether the load goes on.
type Going = Arc<AtomicBool>;

async fn run(plan: &Plan) -> Findings {
    let begun = Instant::now();
    let say = |text: &str| eprintln!("{:>6.1} s  {}: {text}", begun.elapsed().as_secs_f64(), plan.name);
    say(&format!("seed {}, {KILLS} kills, {MAILBOXES} mailboxes", plan.seed));
    let mut random = StdRng::seed_from_u64(plan.seed);
    let house = House::with(plan.name, &[("MAILTIDE_KAFKA_PARTITIONS", "8")]).await;
    house.create_topics().await;
    for number in 0..MAILBOXES {
        let mailbox = house.mailbox(&format!("m{number}")).await;
        if number % 4 == 0 {
            let lag = i64::try_from(LAG.as_millis()).unwrap();
            mailbox.behave(Behaviour { history_lag_ms: lag, ..Behaviour::default() });
        }
        mailbox.deliver(random.random_range(0..20));
    }
    let mut processes = Processes::start(&house, plan).await;
    say("all is up");

    let going = Going::new(AtomicBool::new(true));
    let mut load = vec![tokio::spawn(mail(house.mailboxes(), going.clone(), random.random()))];
    for _ in 0..CALLERS {
        load.push(tokio::spawn(syncs(house.clone(), going.clone(), random.random())));
    }
    for kill in 1..=KILLS {
        processes.strike(kill, &mut random).await;
        say(&format!("{kill} of {KILLS} kills; {} syncs accepted", house.accepted()));
    }
    going.store(false, Ordering::Relaxed);
    for task in load {
        task.await.unwrap();
    }
    let last_mail = Instant::now();
    say(&format!("the load ended; killed and hung: {:?}", processes.killed));

    // The last sync of each mailbox stands behind all others in its partition: when it has ended, so must they have.
    wait_until(LONG, "all mail shows in history", || std::future::ready(last_mail.elapsed() > LAG)).await;
    let mut jobs = Vec::new();
    for mailbox in house.mailboxes() {
        jobs.push(house.ask_until_accepted(&mailbox).await);
    }
    for job in &jobs {
        house.ended(job).await;
    }
    say("the dust has settled");
    let findings = house.settled().await;
    say(&findings.to_string());
    processes.stop();
    findings
}

impl Processes {
    async fn start(house: &Arc<House>, plan: &Plan) -> Self {
        let poller = |name| house.process(name, "poller").set("KAFKA_FAULTS", plan.faults);
        let mut this = Self {
            house: house.clone(),
            ingress: house.process("ingress", "ingress"),
            projector: house.process("projector", "projector"),
            pollers: vec![poller("poller-a"), poller("poller-b")],
            killed: BTreeMap::new(),
        };
        this.start_ingress().await;
        this.projector.start();
        for poller in &mut this.pollers {
            poller.start();
        }
        this
    }

    async fn start_ingress(&mut self) {
        let address = self.ingress.start().logged("API open", "address").await;
        self.house.api_is_at(&address);
    }

    /// Kills a poller at some moment and starts it again after a while; now and then another service as well, or
    /// hangs the other poller.
    async fn strike(&mut self, kill: usize, random: &mut StdRng) {
        moment(random, 200..2_500).await;
        let victim = random.random_range(0..self.pollers.len());
        if kill % 7 == 3 {
            // It wakes up as a zombie: others have its partitions, and it does not know.
            self.count("poller hung");
            self.pollers[victim].pause();
            tokio::time::sleep(session() + HUNG).await;
            self.pollers[victim].resume();
            moment(random, 0..500).await;
        }
        self.count("poller killed");
        self.pollers[victim].kill();
        match kill % 10 {
            4 => {
                self.count("ingress killed");
                self.ingress.kill();
                moment(random, 0..500).await;
                self.start_ingress().await;
            }
            8 => {
                self.count("projector killed");
                self.projector.kill();
                moment(random, 0..500).await;
                self.projector.start();
            }
            _ => moment(random, 0..1_000).await,
        }
        self.pollers[victim].start();
    }

    fn count(&mut self, what: &'static str) {
        *self.killed.entry(what).or_default() += 1;
    }

    /// Stops them; whoever lived to the end must end well.
    fn stop(mut self) {
        let services = self.pollers.iter_mut().chain([&mut self.projector, &mut self.ingress]);
        for service in services {
            assert_eq!(service.stop(), 0, "{}", service.log());
        }
    }
}

/// Lets some time pass: the moment is what is random here, and no condition is waited for.
async fn moment(random: &mut StdRng, ms: Range<u64>) {
    tokio::time::sleep(Duration::from_millis(random.random_range(ms))).await;
}

/// Delivers mail: mostly a few, now and then more than a page.
async fn mail(mailboxes: Vec<Mailbox>, going: Going, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    while going.load(Ordering::Relaxed) {
        let mailbox = mailboxes.choose(&mut random).unwrap();
        let count = if random.random_ratio(1, 150) { 700 } else { random.random_range(1..4) };
        mailbox.deliver(count);
        moment(&mut random, 5..60).await;
    }
}

/// Asks for syncs; while ingress is dead, asks again.
async fn syncs(house: Arc<House>, going: Going, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mailboxes = house.mailboxes();
    while going.load(Ordering::Relaxed) {
        let mailbox = mailboxes.choose(&mut random).unwrap();
        // What is refused or breaks off promised nothing; what was accepted is noted by the house.
        let _ = house.try_sync(mailbox.id).await;
        moment(&mut random, PAUSE).await;
    }
}

/// A lane dies in its first transaction, which holds a command; the neighbour's sync behind it shows that it went on.
async fn dies_in_a_transaction(name: &str, faults: Faults) -> Findings {
    let house = House::new(name).await;
    let _ingress = house.ingress().await;
    let _projector = house.projector();
    let mailbox = house.mailbox("a").await;
    let neighbour = house.mailbox_beside(&mailbox, "b").await;
    mailbox.deliver(10);
    let died = Arc::new(AtomicBool::new(false));
    let (dies, mut kafka) = (died.clone(), house.kafka("one"));
    kafka.lane.faults = faults.holding(move |point| {
        assert!(point != Point::Checked || dies.swap(true, Ordering::Relaxed), "the test lets the lane die here");
    });
    let poller = house.poller_with(kafka);
    poller.ready().await;
    house.ask(&mailbox).await;
    wait_until(LONG, "the lane has died", || std::future::ready(died.load(Ordering::Relaxed))).await;
    house.sync(&neighbour).await;
    let findings = house.settled().await;
    poller.stop().await;
    findings
}

#[tokio::test(flavor = "multi_thread")]
async fn i2_none_lost_when_a_lane_dies_in_a_transaction() {
    let findings = dies_in_a_transaction("dies", Faults::default()).await;
    assert!(findings.is_clean(), "{findings}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_that_dies_loses_what_it_took_where_offsets_are_committed_outside_the_transaction() {
    let findings = dies_in_a_transaction("loses", Faults::default().with(Fault::OffsetsOutside)).await;
    assert_eq!(findings.lost.len(), 11, "ten messages and the job that was to find them: {findings}");
}
