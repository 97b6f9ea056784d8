//! What the calls do, behind the HTTP.

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use domain::{ConnectionId, JobId, OrganisationId, PollGmailConnection, Timestamp, TokenVersion, Trigger};
use events::TraceParent;
use events::headers::{Envelope, TRACE_PARENT};
use http::header::WWW_AUTHENTICATE;
use kafka::{OutRecord, Producer};
use sha2::{Digest, Sha256};
use store::Store;
use store::keys::{KeyIdentity, Scope};

use crate::Settings;
use crate::known::Known;
use crate::problem::{Code, Problem};
use crate::rows::Rows;

/// What every call needs.
pub(crate) struct App {
    api_key_header: HeaderName,
    job_deadline: domain::Duration,
    commands: Arc<str>,
    producer: Producer,
    store: Store,
    rows: Rows,
    /// By the hash of the key's text: the text itself stays in no memory of ours.
    keys: Known<[u8; 32], Arc<KeyIdentity>>,
    connections: Known<(OrganisationId, ConnectionId), TokenVersion>,
}

impl App {
    /// Puts the parts together; starts the task that inserts rows.
    pub(crate) fn new(settings: &Settings, producer: Producer, commands: Arc<str>, store: Store) -> Self {
        let job_deadline = i64::try_from(settings.job_deadline.as_millis()).unwrap_or(i64::MAX);
        Self {
            api_key_header: settings.api_key_header.clone(),
            job_deadline: domain::Duration::from_millis(job_deadline),
            commands,
            producer,
            rows: Rows::start(store.clone(), settings.max_in_flight),
            keys: Known::new(settings.cache_entries, settings.cache_ttl),
            connections: Known::new(settings.cache_entries, settings.cache_ttl),
            store,
        }
    }

    /// The organisation that the request's API key speaks for, if the key may do this.
    pub(crate) async fn authenticate(&self, headers: &HeaderMap, needed: Scope) -> Result<OrganisationId, Problem> {
        let key = headers.get(&self.api_key_header).ok_or_else(|| self.challenge(Code::ApiKeyMissing))?;
        // A key is ASCII; what is not can be no key.
        let text = key.to_str().map_err(|_| self.challenge(Code::ApiKeyInvalid))?;
        let hash: [u8; 32] = Sha256::digest(text.as_bytes()).into();
        let ask = async { Ok(store::keys::authenticate(&self.store, text).await?.map(Arc::new)) };
        let identity = self.keys.get(hash, ask).await.map_err(|error| database_problem(&error))?;
        let identity = identity.ok_or_else(|| self.challenge(Code::ApiKeyInvalid))?;
        if !identity.scopes.contains(&needed) {
            return Err(Code::ScopeMissing.into());
        }
        Ok(identity.organisation_id)
    }

    /// A 401 names the way to authenticate (RFC 9110 §15.5.2).
    fn challenge(&self, code: Code) -> Problem {
        let challenge = format!("ApiKey header=\"{}\"", self.api_key_header);
        let challenge = HeaderValue::try_from(challenge).expect("a header's name is visible ASCII");
        Problem::from(code).with_header(WWW_AUTHENTICATE, challenge)
    }

    /// Asks for a sync: ends when Kafka has acknowledged the command and the job's row is there.
    ///
    /// The command goes first. A crash between the two leaves a command whose row the projector will write; the other
    /// order would leave a row whose job never runs.
    pub(crate) async fn start_sync(
        &self,
        organisation_id: OrganisationId,
        connection_id: ConnectionId,
        headers: &HeaderMap,
    ) -> Result<JobId, Problem> {
        let token_version = self.connection(organisation_id, connection_id).await?.ok_or(Code::ConnectionNotFound)?;
        let now = jiff::Timestamp::now().as_millisecond();
        let requested_at = Timestamp::from_millis(now);
        let command = PollGmailConnection {
            job_id: new_job_id(now),
            organisation_id,
            connection_id,
            trigger: Trigger::Api,
            window: None,
            token_version,
            requested_at,
            deadline: requested_at + self.job_deadline,
        };
        self.produce(&command, trace(headers)).await?;
        self.rows.insert(command.clone()).await.map_err(|_| Code::DatabaseUnavailable)?;
        Ok(command.job_id)
    }

    /// Writes the command; ends when all in-sync replicas have it.
    async fn produce(&self, command: &PollGmailConnection, trace: TraceParent) -> Result<(), Problem> {
        let frame = events::encode(command);
        let headers = Envelope::new("urn:mailtide:ingress", command.requested_at, trace).headers(command, &frame);
        let key = command.connection_id.to_string();
        let record = OutRecord::new(&self.commands, key, frame, headers.into());
        // It waits at most for `kafka.delivery_timeout`.
        self.producer.send(&record).await.map(drop).map_err(|error| {
            tracing::warn!(%error, "Cannot write a command");
            Code::BrokerUnavailable.into()
        })
    }

    /// The token version of the organisation's living connection.
    async fn connection(
        &self,
        organisation: OrganisationId,
        connection: ConnectionId,
    ) -> Result<Option<TokenVersion>, Problem> {
        let ask = async {
            let found = store::connections::find(&self.store, organisation, connection).await?;
            Ok(found.map(|found| found.token_version))
        };
        self.connections.get((organisation, connection), ask).await.map_err(|error| database_problem(&error))
    }

    /// The organisation's job.
    pub(crate) async fn job(
        &self,
        organisation: OrganisationId,
        job: JobId,
    ) -> Result<Option<store::jobs::Job>, Problem> {
        store::jobs::find(&self.store, organisation, job).await.map_err(|error| database_problem(&error))
    }
}

/// An id by the time and at random (UUIDv7): rows of new jobs lie side by side in the index, and whoever may read the
/// job is told its time anyway. Not by `Uuid::now_v7`, whose counter is behind a lock.
fn new_job_id(now_ms: i64) -> JobId {
    let millis = u64::try_from(now_ms).unwrap_or(0);
    JobId::from_uuid(uuid::Builder::from_unix_timestamp_millis(millis, &rand::random()).into_uuid())
}

/// The caller's trace, one span on; a trace of its own if it sent none that can be read.
fn trace(headers: &HeaderMap) -> TraceParent {
    match headers.get(TRACE_PARENT).map(|value| TraceParent::parse(value.as_bytes())) {
        Some(Ok(parent)) => parent.child(rand::random()),
        None | Some(Err(_)) => TraceParent::new(rand::random(), rand::random()),
    }
}

/// What the caller is told of a failure of the store; the log is told the rest.
fn database_problem(error: &store::Error) -> Problem {
    if error.is_unavailable() {
        tracing::warn!(%error, "The database does not answer");
        Code::DatabaseUnavailable.into()
    } else {
        tracing::error!(%error, source = ?std::error::Error::source(error), "The database refused");
        Code::Internal.into()
    }
}
