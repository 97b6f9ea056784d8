//! The settings of all services: each is right by itself, else no command runs; what is missing is told here.

use runtime::settings::Origin;

use super::finding::Finding;
use crate::settings::Settings;

const AREA: &str = "settings";

/// Looks for what services need and nobody set.
pub(super) fn look(settings: &Settings) -> Vec<Finding> {
    let entries = settings.effective.entries();
    let changed = entries.iter().filter(|entry| entry.origin != Origin::Default).count();
    let found = format!("{} settings are known, {changed} of them set; `mailtide settings` shows all", entries.len());
    let mut findings = vec![Finding::ok(AREA, "all services", found)];
    if settings.store.token_keys.is_none() {
        findings.push(Finding::fail(
            AREA,
            "store.token_key",
            "no key for refresh tokens is set, and poller, fetcher and ingress can neither keep nor read one",
            "set it to the key that the tokens lie under; for a new installation make one: \
             MAILTIDE_STORE_TOKEN_KEY=\"k1:$(head -c 32 /dev/urandom | base64)\"",
        ));
    }
    if settings.is_set("push.audience") != settings.is_set("push.service_account") {
        findings.push(Finding::warn(
            AREA,
            "push",
            "push.audience and push.service_account go together, and only one is set: whose pushes are ours is not known",
            "set both as the Pub/Sub subscription has them, or none",
        ));
    }
    if settings.gmail.watch_topic.is_some() && !settings.is_set("push.audience") {
        findings.push(Finding::warn(
            AREA,
            "push",
            "mailboxes are watched (gmail.watch_topic), but no push is taken (push.audience)",
            "set push.audience and push.service_account as the subscription has them, or unset gmail.watch_topic",
        ));
    }
    if !settings.is_set("ingress.public_url") {
        findings.push(Finding::warn(
            AREA,
            "ingress.public_url",
            "not set: Google sends browsers back to where the API listens, which only this host may reach",
            "set it to how the API is reached from outside, and register it with the OAuth client",
        ));
    }
    if !settings.is_set("kafka.instance") {
        findings.push(Finding::warn(
            AREA,
            "kafka.instance",
            format!("not set: the host's name, {}, which a container may change with each start", settings.kafka.instance),
            "set it for each poller and fetcher, different for those that live at the same time and the same after a restart",
        ));
    }
    findings
}
