//! Which budgets there are, and what this process may have of them.

use std::time::Duration;

use domain::ConnectionId;
use tokio::time::Instant;

use super::bucket::{Amount, Bucket, lump, reserve};
use crate::{Quota, Settings};

/// The user's and the project's minute.
const MINUTE: Duration = Duration::from_secs(60);
/// The project's day. Google's begins at midnight in California; no 24 hours whatever exceed ours.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A service that calls Gmail. Each has its part of every budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// Walks histories and lists mailboxes.
    Poller,
    /// Reads messages.
    Fetcher,
    /// Asks for a profile when a mailbox is connected, and reads attachments.
    Ingress,
    /// An operator's command, of which one at a time runs.
    Tools,
}

impl Service {
    /// Its part of each budget, in each of its instances that is not told of partitions.
    fn part(self, quota: &Quota) -> f64 {
        match self {
            Self::Poller => quota.poller,
            Self::Fetcher => quota.fetcher,
            // Any of them may be asked about any account.
            Self::Ingress => quota.ingress / f64::from(quota.ingress_instances.max(1)),
            Self::Tools => quota.tools,
        }
    }

    /// Whether an account's connections may be on different instances, so that each has a part of the account's budget
    /// alone. Otherwise an instance is asked about all of them, and they share its part of the budget: what is divided
    /// by many is soon less than one call.
    const fn is_divided(self) -> bool {
        match self {
            Self::Poller | Self::Fetcher => true,
            Self::Ingress | Self::Tools => false,
        }
    }
}

/// What one process may spend.
#[derive(Debug, Clone)]
pub(super) struct Terms {
    user_minute: u64,
    project_minute: u64,
    project_day: Option<u64>,
    /// The service's part of each budget.
    service: f64,
    /// Whether an account's budget is divided among its connections.
    is_divided: bool,
    /// The process's part of the service's: of the project's budgets, since an account's mailboxes are on one instance.
    pub(super) part: f64,
    /// The dearest call there is.
    dearest: Amount,
    /// Calls of one account at a time.
    pub(super) concurrency: u32,
    /// Calls of the process at a time.
    pub(super) places: usize,
}

impl Terms {
    pub(super) fn new(settings: &Settings, service: Service, part: f64) -> Self {
        let (quota, tariff) = (&settings.quota, &settings.tariff);
        Self {
            user_minute: quota.user_minute.unwrap_or(tariff.user_minute),
            project_minute: quota.project_minute.unwrap_or(tariff.project_minute),
            project_day: quota.project_day.or(tariff.project_day),
            service: service.part(quota),
            is_divided: service.is_divided(),
            part,
            dearest: Amount::units(tariff.dearest()),
            concurrency: u32::from(quota.concurrency),
            places: usize::from(settings.max_in_flight.max(1)),
        }
    }

    /// Whose line a connection's calls wait in, and how many such lines share the account's budget. None: the account's.
    pub(super) fn line_of(&self, connection: Option<ConnectionId>, shares: u32) -> (Option<ConnectionId>, u32) {
        if self.is_divided { (connection, shares.max(1)) } else { (None, 1) }
    }

    pub(super) fn user_limit(&self, shares: u32) -> Amount {
        Amount::part_of(self.user_minute, self.service / f64::from(shares.max(1)))
    }

    pub(super) fn user(&self, shares: u32, born: Instant) -> Bucket {
        Bucket::new(self.user_limit(shares), MINUTE, self.dearest, born)
    }

    pub(super) fn project_minute_limit(&self) -> Amount {
        Amount::part_of(self.project_minute, self.service * self.part)
    }

    pub(super) fn project_minute(&self, born: Instant) -> Bucket {
        Bucket::new(self.project_minute_limit(), MINUTE, self.dearest, born)
    }

    pub(super) fn project_day_limit(&self) -> Option<Amount> {
        Some(Amount::part_of(self.project_day?, self.service * self.part))
    }

    pub(super) fn project_day(&self, born: Instant) -> Option<Bucket> {
        Some(Bucket::new(self.project_day_limit()?, DAY, self.dearest, born))
    }

    /// The most that one admission may cost.
    pub(super) fn most(&self, shares: u32) -> Amount {
        self.least(shares, |limit| lump(limit, self.dearest))
    }

    /// What a batch is best worth: half of the smallest reserve.
    pub(super) fn batch(&self, shares: u32) -> Amount {
        self.least(shares, |limit| reserve(limit).half())
    }

    /// The least of what `of` says of each budget that a call is paid from.
    fn least(&self, shares: u32, of: impl Fn(Amount) -> Amount) -> Amount {
        // Without a part it waits for one.
        let project = (self.part > 0.0).then(|| self.project_minute_limit());
        let project = [project, self.project_day_limit().filter(|_| self.part > 0.0)];
        project.into_iter().flatten().map(&of).fold(of(self.user_limit(shares)), Amount::min)
    }

    /// Calls at a time that are not live and no catch-up: those find a quarter of the places free.
    pub(super) fn patient_places(&self) -> usize {
        (self.places - self.places / 4).max(1)
    }
}
