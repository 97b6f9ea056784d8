//! What callers get that always want more.

use std::collections::VecDeque;
use std::time::Duration;

use domain::ConnectionId;
use tokio::time::Instant;
use uuid::Uuid;

use super::world::{LANES, MINUTE};
use crate::gate::Admission;
use crate::gate::budget::{Service, Terms};
use crate::gate::desk::{Decision, Desk, Held};
use crate::token::Account;
use crate::{Quota, Settings, Tariff};

/// Every caller asks again as soon as it is let through. What each of them got in `time` that begins after `warm`, in
/// units.
pub(super) fn saturate(
    quota: &Quota,
    tariff: Tariff,
    callers: &[(&str, u32, usize, u32)],
    warm: Duration,
    time: Duration,
) -> Vec<u64> {
    let settings = Settings { quota: quota.clone(), tariff, ..Settings::default() };
    let begin = Instant::now();
    let mut desk = Desk::new(Terms::new(&settings, Service::Poller, 1.0), begin);
    let accounts: Vec<_> = callers.iter().map(|(name, ..)| Account::new(name)).collect();
    let mut got = vec![0; callers.len()];
    let mut decisions: Vec<Decision<usize>> = Vec::new();
    let mut ends: VecDeque<(Instant, Held)> = VecDeque::new();
    let end = begin + warm + time;
    let mut now = begin;
    let ask = |desk: &mut Desk<usize>, now, caller: usize, decisions: &mut Vec<Decision<usize>>| {
        let (_, shares, lane, units) = callers[caller];
        let account = &accounts[caller];
        let deadline = end + MINUTE;
        // Connections of one account are told apart, unless it has but one.
        let number = if shares == 1 { 0 } else { caller as u128 };
        let connection = Some(ConnectionId::from_uuid(Uuid::from_u128(number)));
        let admission = Admission { account, connection, shares, lane: LANES[lane], units, parts: 1, deadline };
        let ticket = desk.ask(now, &admission, caller).expect("it is not too dear");
        desk.queued(now, ticket, decisions);
    };
    // Two each, so that one always waits.
    for caller in (0..callers.len()).chain(0..callers.len()) {
        ask(&mut desk, now, caller, &mut decisions);
    }
    while now < end {
        while let Some((_, held)) = ends.pop_front_if(|(at, _)| *at <= now) {
            desk.finish(now, held, true, &mut decisions);
        }
        desk.decide(now, &mut decisions);
        if decisions.is_empty() {
            let next = [desk.wake_at(), ends.front().map(|(at, _)| *at)].into_iter().flatten().min();
            now = next.expect("somebody waits").max(now);
            continue;
        }
        for (caller, decision) in std::mem::take(&mut decisions) {
            let held = decision.expect("nobody is refused");
            if now >= begin + warm {
                got[caller] += u64::from(callers[caller].3);
            }
            ends.push_back((now + Duration::from_millis(120), held));
            ask(&mut desk, now, caller, &mut decisions);
        }
    }
    got
}
