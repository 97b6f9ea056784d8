//! What can be set about pushes.

use std::time::Duration;

use gmail::oidc::{Expected, GOOGLE_KEYS};
use runtime::settings::Source;
use url::Url;

/// Settings of `POST /push/gmail`. Without audience and service account there is no such path.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whose tokens are taken; none: no pushes are.
    pub expected: Option<Expected>,
    /// A mailbox's pushes become at most one command in this time; those between wait for the next.
    pub spacing: Duration,
    /// How long a job of a push may take.
    pub job_deadline: Duration,
}

impl Settings {
    /// Reads `push.*`.
    pub fn read(source: &mut Source) -> Self {
        let audience: Option<String> =
            source.read_opt("push.audience", "The audience of the subscription's tokens; none: no pushes are taken");
        let email: Option<String> =
            source.read_opt("push.service_account", "The service account that the subscription signs its pushes as");
        let google = Url::parse(GOOGLE_KEYS).expect("Google's address is a URL");
        let keys = source.read("push.jwks_url", google, "Where the keys are that pushes are signed with");
        let settings = Self {
            expected: match (audience.clone(), email.clone()) {
                (Some(audience), Some(email)) => Some(Expected { audience, email, keys }),
                _ => None,
            },
            spacing: source.duration(
                "push.spacing",
                Duration::from_secs(1),
                "A mailbox's pushes become at most one command in this time",
            ),
            job_deadline: source.duration(
                "push.job_deadline",
                Duration::from_secs(15 * 60),
                "How long a job of a push may take",
            ),
        };
        match (audience, email) {
            (Some(_), None) => source.error("push.service_account", "must be set where push.audience is"),
            (None, Some(_)) => source.error("push.audience", "must be set where push.service_account is"),
            _ => {}
        }
        if settings.expected.as_ref().is_some_and(|expected| !matches!(expected.keys.scheme(), "http" | "https")) {
            source.error("push.jwks_url", "must be an http or https URL");
        }
        // Whoever waits for the next command must be answered before the request's time is over.
        if settings.spacing > Duration::from_secs(3) {
            source.error("push.spacing", "must be at most 3s: a push is answered once its command is written");
        }
        if settings.job_deadline < Duration::from_secs(1) {
            source.error("push.job_deadline", "must be at least 1s");
        }
        settings
    }
}
