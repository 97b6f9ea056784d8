//! Everything there is: accounts with their mailboxes and grants, the clock, what lags, what was spent.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::clock::Clock;
use crate::consent::Consents;
use crate::faults::Faults;
use crate::grant::Grants;
use crate::jwt::Keys;
use crate::mailbox::{Birth, Mailbox};
use crate::push::Pushes;
use crate::quota::{self, Exceeded, Limits, Method, MinuteWindow, Project, Tariff};
use crate::seed::mix;
use crate::settings::{Behaviour, Settings};
use crate::watch::Watch;

/// All of it.
#[derive(Debug)]
pub(crate) struct World {
    /// The time.
    pub(crate) clock: Clock,
    /// What all randomness comes from.
    pub(crate) seed: u64,
    accounts: RwLock<Accounts>,
    behaviour: RwLock<Behaviour>,
    tariff: RwLock<(Tariff, Limits)>,
    project: Mutex<Project>,
    /// What goes wrong.
    pub(crate) faults: Faults,
    /// Clients, codes, service accounts.
    pub(crate) consents: Consents,
    /// The keys that Google signs with.
    pub(crate) keys: Keys,
    /// Where pushes go.
    pub(crate) pushes: Pushes,
    auto_approve: AtomicBool,
    /// Requests to the token endpoint.
    pub(crate) token_requests: AtomicU64,
}

#[derive(Debug, Default)]
struct Accounts {
    by_email: HashMap<Arc<str>, Arc<Account>>,
    in_order: Vec<Arc<Account>>,
}

/// One Google account.
#[derive(Debug)]
pub(crate) struct Account {
    /// Its number, which its tokens carry.
    pub(crate) number: u32,
    /// Its address, as it was given.
    pub(crate) email: Arc<str>,
    /// Its mailbox.
    /// Many read it at a time, as Gmail's own front ends do.
    mailbox: RwLock<Mailbox>,
    /// What it granted to clients.
    grants: Mutex<Grants>,
    /// Its own behaviour, where it differs from the others'.
    behaviour: Mutex<Option<Behaviour>>,
    watch: Mutex<Option<Watch>>,
    minute: Mutex<MinuteWindow>,
    in_flight: AtomicU32,
    /// Told to wait until then, ms since the epoch.
    barred_until_ms: AtomicI64,
    /// What was asked of it.
    pub(crate) usage: Usage,
}

/// Calls and units of one account.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    /// Calls by method, also those that were refused.
    pub(crate) calls: [AtomicU64; Method::ALL.len()],
    /// Units charged.
    pub(crate) units: AtomicU64,
    /// Calls refused for a quota or for concurrency.
    pub(crate) throttled: AtomicU64,
    /// The most requests at the same time.
    pub(crate) most_at_once: AtomicU32,
}

/// Why a mailbox could not be made.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("The mailbox {0} exists already")]
pub struct Exists(pub String);

/// A request under way, counted against the account's concurrency while it lives.
#[derive(Debug)]
pub(crate) struct InFlight {
    account: Arc<Account>,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.account.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl World {
    /// A world without accounts.
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            clock: Clock::default(),
            seed: settings.seed,
            accounts: RwLock::default(),
            behaviour: RwLock::new(settings.behaviour.clone()),
            tariff: RwLock::new((settings.tariff, settings.limits())),
            project: Mutex::default(),
            faults: Faults::new(settings.seed),
            consents: Consents::default(),
            keys: Keys::default(),
            pushes: Pushes::default(),
            auto_approve: AtomicBool::new(settings.auto_approve),
            token_requests: AtomicU64::new(0),
        }
    }

    /// Makes an account with an empty mailbox.
    pub(crate) fn create(&self, email: &str, first_history_id: Option<u64>) -> Result<Arc<Account>, Exists> {
        let mut accounts = self.accounts.write().unwrap_or_else(PoisonError::into_inner);
        let key = email.to_lowercase();
        if accounts.by_email.contains_key(key.as_str()) {
            return Err(Exists(email.to_owned()));
        }
        let number = u32::try_from(accounts.in_order.len()).expect("there are fewer than 2³² accounts");
        let seed = mix(self.seed ^ mix(u64::from(number)));
        let birth = Birth {
            seed,
            first_history_id: first_history_id.unwrap_or(1_000 + seed % 9_000_000),
            max_history_gap: self.behaviour().max_history_gap,
        };
        let account = Arc::new(Account {
            number,
            email: email.into(),
            mailbox: RwLock::new(Mailbox::new(&birth)),
            grants: Mutex::default(),
            behaviour: Mutex::default(),
            watch: Mutex::default(),
            minute: Mutex::default(),
            in_flight: AtomicU32::new(0),
            barred_until_ms: AtomicI64::new(0),
            usage: Usage::default(),
        });
        accounts.by_email.insert(key.into(), Arc::clone(&account));
        accounts.in_order.push(Arc::clone(&account));
        Ok(account)
    }

    /// The account of that address, in any letter case.
    pub(crate) fn account(&self, email: &str) -> Option<Arc<Account>> {
        let accounts = self.accounts.read().unwrap_or_else(PoisonError::into_inner);
        accounts.by_email.get(email.to_lowercase().as_str()).cloned()
    }

    /// The account of that number.
    pub(crate) fn account_numbered(&self, number: u32) -> Option<Arc<Account>> {
        let accounts = self.accounts.read().unwrap_or_else(PoisonError::into_inner);
        accounts.in_order.get(usize::try_from(number).ok()?).cloned()
    }

    /// All accounts, in the order in which they were made.
    pub(crate) fn accounts(&self) -> Vec<Arc<Account>> {
        self.accounts.read().unwrap_or_else(PoisonError::into_inner).in_order.clone()
    }

    /// Whether consent is given without asking.
    pub(crate) fn auto_approve(&self) -> bool {
        self.auto_approve.load(Ordering::Relaxed)
    }

    /// Whether consent is given without asking, from now on.
    pub(crate) fn set_auto_approve(&self, auto_approve: bool) {
        self.auto_approve.store(auto_approve, Ordering::Relaxed);
    }

    /// How accounts behave that have no behaviour of their own.
    pub(crate) fn behaviour(&self) -> Behaviour {
        self.behaviour.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes how accounts behave from now on.
    pub(crate) fn set_behaviour(&self, behaviour: Behaviour) {
        *self.behaviour.write().unwrap_or_else(PoisonError::into_inner) = behaviour;
    }

    /// The price list and the limits.
    pub(crate) fn tariff(&self) -> (Tariff, Limits) {
        *self.tariff.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the price list and the limits.
    pub(crate) fn set_tariff(&self, tariff: Tariff, limits: Limits) {
        *self.tariff.write().unwrap_or_else(PoisonError::into_inner) = (tariff, limits);
    }

    /// How `account` behaves.
    pub(crate) fn behaviour_of(&self, account: &Account) -> Behaviour {
        let own = account.behaviour.lock().unwrap_or_else(PoisonError::into_inner).clone();
        own.unwrap_or_else(|| self.behaviour())
    }

    /// Charges one call and counts it.
    pub(crate) fn charge(&self, account: &Account, method: Method, now_ms: i64) -> Result<(), Exceeded> {
        let (tariff, limits) = self.tariff();
        let units = tariff.price(method);
        let outcome = {
            let mut minute = account.minute.lock().unwrap_or_else(PoisonError::into_inner);
            let mut project = self.project.lock().unwrap_or_else(PoisonError::into_inner);
            quota::charge(&mut minute, &mut project, &limits, units, now_ms)
        };
        let counter = if outcome.is_ok() { &account.usage.units } else { &account.usage.throttled };
        counter.fetch_add(if outcome.is_ok() { u64::from(units) } else { 1 }, Ordering::Relaxed);
        outcome
    }
}

impl Account {
    /// The mailbox, for as long as the guard lives. One lock per mailbox, shared by those that read: no other waits.
    pub(crate) fn mailbox(&self) -> RwLockReadGuard<'_, Mailbox> {
        self.mailbox.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its mail, to be changed.
    pub(crate) fn mailbox_mut(&self) -> RwLockWriteGuard<'_, Mailbox> {
        self.mailbox.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The account's id at Google, which stays when its address changes: 21 digits.
    pub(crate) fn subject(&self) -> String {
        format!("1{:020}", mix(u64::from(self.number)))
    }

    /// What the account granted.
    pub(crate) fn grants(&self) -> MutexGuard<'_, Grants> {
        self.grants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the account a behaviour of its own, or takes it away.
    pub(crate) fn set_behaviour(&self, behaviour: Option<Behaviour>) {
        *self.behaviour.lock().unwrap_or_else(PoisonError::into_inner) = behaviour;
    }

    /// Its watch, live or lapsed.
    pub(crate) fn watch(&self) -> MutexGuard<'_, Option<Watch>> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the user to wait so long.
    pub(crate) fn bar(&self, now_ms: i64, wait_ms: i64) {
        self.barred_until_ms.store(now_ms.saturating_add(wait_ms), Ordering::Relaxed);
    }

    /// Whether the user was told to wait and does not: each early try counts as refused and pushes the time out.
    pub(crate) fn barred(&self, now_ms: i64, wait_ms: i64) -> bool {
        let barred = now_ms < self.barred_until_ms.load(Ordering::Relaxed);
        if barred {
            self.usage.throttled.fetch_add(1, Ordering::Relaxed);
            self.bar(now_ms, wait_ms);
        }
        barred
    }

    /// Counts a request as under way; `None` when there are too many.
    pub(crate) fn enter(self: &Arc<Self>, limit: u32) -> Option<InFlight> {
        let before = self.in_flight.fetch_add(1, Ordering::Relaxed);
        let entered = InFlight { account: Arc::clone(self) };
        if before >= limit {
            self.usage.throttled.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        self.usage.most_at_once.fetch_max(before + 1, Ordering::Relaxed);
        Some(entered)
    }
}
