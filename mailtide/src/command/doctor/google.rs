//! Google: whether it can be reached, knows us, and has our time.

use domain::Timestamp;
use gmail::probe::{self, Heard, Trouble};

use super::finding::Finding;
use crate::command::now;
use crate::settings::Settings;

const AREA: &str = "google";

/// Clocks that differ by more are worth a word, in milliseconds; a `Date` is to the second.
const ODD: i64 = 3_000;

/// By more, and assertions, deadlines and the schedule are wrong, in milliseconds.
const WRONG: i64 = 30_000;

/// Asks the token endpoint and the API.
pub(super) async fn look(settings: &Settings) -> Vec<Finding> {
    let gmail = &settings.gmail;
    let has_client = !gmail.client_id.is_empty() && gmail.client_secret.is_some();
    let (client, account, api) = tokio::join!(
        async { if has_client { Some(timed(probe::oauth_client(gmail)).await) } else { None } },
        probe::service_account(gmail),
        timed(probe::api(gmail)),
    );
    let mut findings = Vec::new();
    match &client {
        Some((Ok(_), _)) => {
            findings.push(Finding::ok(AREA, "OAuth client", "the token endpoint knows it and its secret"))
        }
        Some((Err(trouble), _)) => findings.push(told(
            "OAuth client",
            trouble,
            "set gmail.client_id and gmail.client_secret to those of the client that the mailboxes consented to",
        )),
        None if gmail.service_account_file.is_some() => {
            findings.push(Finding::ok(AREA, "OAuth client", "none is set: mailboxes are read by delegation alone"));
        }
        None => findings.push(Finding::fail(
            AREA,
            "OAuth client",
            "gmail.client_id or gmail.client_secret is not set: no mailbox can be connected or read",
            "set both as the Google console has them under APIs & Services, Credentials",
        )),
    }
    match &account {
        Ok(None) => {}
        Ok(Some(_)) => {
            findings.push(Finding::ok(AREA, "service account", "its key signs, and the token endpoint knows it"))
        }
        Err(trouble) => findings.push(told(
            "service account",
            trouble,
            "set gmail.service_account_file to the JSON key that Google gave out for the account",
        )),
    }
    match &api {
        (Ok(_), _) => findings.push(Finding::ok(AREA, "Gmail API", format!("{} answers", gmail.api_url))),
        (Err(trouble), _) => findings.push(told("Gmail API", trouble, "set gmail.api_url right")),
    }
    let clock = [Some(&api), client.as_ref()]
        .into_iter()
        .flatten()
        .find_map(|(heard, at)| Some((heard.as_ref().ok()?.clock?, *at)));
    findings.extend(clock.map(|(clock, at)| of_clock("Google", clock, at)));
    findings
}

/// With our clock when the answer came.
async fn timed(asked: impl Future<Output = Result<Heard, Trouble>>) -> (Result<Heard, Trouble>, Timestamp) {
    let heard = asked.await;
    (heard, now())
}

fn told(check: &'static str, trouble: &Trouble, remedy: &'static str) -> Finding {
    let remedy = match trouble {
        Trouble::Away { .. } => {
            "see whether this host reaches it: names, routes, proxies, certificates; mailboxes wait meanwhile"
        }
        Trouble::Refused { .. } | Trouble::Settings(_) => remedy,
    };
    Finding::fail(AREA, check, trouble.to_string(), remedy)
}

/// Compares a clock with ours.
pub(super) fn of_clock(whose: &'static str, theirs: Timestamp, ours: Timestamp) -> Finding {
    let apart = theirs.as_millis() - ours.as_millis();
    let found = format!("{} ms {} {whose}'s", apart.abs(), if apart > 0 { "behind" } else { "ahead of" });
    let remedy = "set the clocks by NTP: chronyd or systemd-timesyncd on every host";
    match apart.abs() {
        0..=ODD => Finding::ok("clock", format!("against {whose}"), found),
        apart if apart <= WRONG => Finding::warn("clock", format!("against {whose}"), found, remedy),
        _ => Finding::fail("clock", format!("against {whose}"), found, remedy),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::*;

    #[test]
    fn clocks_are_compared_both_ways() {
        let at = |millis: i64| Timestamp::from_millis(1_000_000_000 + millis);
        for (theirs, state) in [(0, State::Ok), (-2_999, State::Ok), (10_000, State::Warn), (-31_000, State::Fail)] {
            assert_eq!(of_clock("Google", at(theirs), at(0)).state, state, "{theirs}");
        }
        assert_eq!(of_clock("Google", at(5_000), at(0)).found, "5000 ms behind Google's");
    }
}
