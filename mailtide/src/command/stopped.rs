//! Services that have to be stopped first.

use anyhow::bail;
use kafka::groups;

/// A service's consumer group.
pub(crate) fn group(kafka: &kafka::Settings, service: &str) -> String {
    format!("{}{service}", kafka.topic_prefix)
}

/// Refuses while a poller or a fetcher is in its group.
///
/// # Errors
/// When one is, or the brokers do not answer.
pub(crate) async fn refuse_while_running(kafka: &kafka::Settings) -> anyhow::Result<()> {
    for service in ["poller", "fetcher"] {
        let group = group(kafka, service);
        let known = groups::find(kafka, &group).await?;
        if let Some(members) = known.map(|known| known.members).filter(|members| *members > 0) {
            bail!(
                "the group {group} has {members} members: stop every {service}, and ingress and scheduler too; one that was \
                 killed is a member until its session times out"
            );
        }
    }
    Ok(())
}
