//! What the calls do, behind the HTTP.

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use domain::{ConnectionId, JobId, OrganisationId, PollGmailConnection, Timestamp, TokenVersion, Trigger, Window};
use events::TraceParent;
use events::headers::{Envelope, TRACE_PARENT};
use http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use kafka::{OutRecord, Producer};
use runtime::trace::Parent;
use sha2::{Digest, Sha256};
use store::Store;
use store::keys::{KeyIdentity, Scope};

use crate::Settings;
use crate::claims::Claims;
use crate::idempotency::Keyed;
use crate::known::Known;
use crate::limits::{Bucket, Buckets};
use crate::outage::Outage;
use crate::problem::{Code, Problem};
use crate::rows::{Answer, Rows};
use crate::streams::Streams;
use crate::upkeep::Uses;

/// What every call needs.
pub(crate) struct App {
    api_key_header: HeaderName,
    pub(crate) job_deadline: domain::Duration,
    pub(crate) backfill_deadline: domain::Duration,
    commands: Arc<str>,
    producer: Producer,
    pub(crate) store: Store,
    pub(crate) rows: Rows,
    pub(crate) claims: Claims,
    /// By the hash of the key's text: the text itself stays in no memory of ours.
    keys: Known<[u8; 32], Arc<Caller>>,
    buckets: Buckets,
    uses: Arc<Uses>,
    connections: Known<(OrganisationId, ConnectionId), TokenVersion>,
    /// Whether Postgres is away.
    pub(crate) outage: Arc<Outage>,
    pub(crate) streams: Arc<Streams>,
    pub(crate) stream_limits: StreamLimits,
}

/// How long a stream of events may go on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StreamLimits {
    /// Between two signs of life.
    pub(crate) heartbeat: std::time::Duration,
    /// From its beginning to its end.
    pub(crate) age: std::time::Duration,
}

/// Whoever has a living key.
struct Caller {
    key: KeyIdentity,
    /// How much the key has asked for: the same bucket however often the key is looked up.
    bucket: Arc<Bucket>,
}

/// A job that is to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    /// What asks for it.
    pub(crate) trigger: Trigger,
    /// What is to be listed, for a backfill.
    pub(crate) window: Option<Window>,
}

impl App {
    /// Puts the parts together; starts the task that inserts rows.
    pub(crate) fn new(settings: &Settings, producer: Producer, commands: Arc<str>, store: Store) -> Self {
        let millis = |span: std::time::Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        let outage = Arc::new(Outage::new());
        Self {
            api_key_header: settings.api_key_header.clone(),
            job_deadline: domain::Duration::from_millis(millis(settings.job_deadline)),
            backfill_deadline: domain::Duration::from_millis(millis(settings.backfill_deadline)),
            commands,
            producer,
            rows: Rows::start(store.clone(), Arc::clone(&outage), settings.max_in_flight, settings.outage_rows),
            claims: Claims::start(store.clone(), settings.max_in_flight),
            keys: Known::new(settings.cache_entries, settings.cache_ttl, settings.outage_grace, Arc::clone(&outage)),
            buckets: Buckets::new(settings.rate_limit, settings.rate_burst, settings.cache_entries),
            uses: Arc::default(),
            connections: Known::new(
                settings.cache_entries,
                settings.cache_ttl,
                settings.outage_grace,
                Arc::clone(&outage),
            ),
            outage,
            streams: Arc::new(Streams::new(settings.streams, settings.streams_per_key)),
            stream_limits: StreamLimits { heartbeat: settings.stream_heartbeat, age: settings.stream_age },
            store,
        }
    }

    /// The organisation that the request's API key speaks for, if the key may do this, now.
    pub(crate) async fn authenticate(&self, headers: &HeaderMap, needed: Scope) -> Result<OrganisationId, Problem> {
        Ok(self.caller_of(headers, needed).await?.key.organisation_id)
    }

    /// The request's API key, if it may do this, now.
    pub(crate) async fn identify(&self, headers: &HeaderMap, needed: Scope) -> Result<KeyIdentity, Problem> {
        Ok(self.caller_of(headers, needed).await?.key.clone())
    }

    async fn caller_of(&self, headers: &HeaderMap, needed: Scope) -> Result<Arc<Caller>, Problem> {
        let key = headers.get(&self.api_key_header).ok_or_else(|| self.challenge(Code::ApiKeyMissing))?;
        // A key is ASCII; what is not can be no key.
        let text = key.to_str().map_err(|_| self.challenge(Code::ApiKeyInvalid))?;
        let hash: [u8; 32] = Sha256::digest(text.as_bytes()).into();
        let ask = async { Ok(store::keys::authenticate(&self.store, text).await?.map(|key| self.caller(key))) };
        let caller =
            self.keys.get(hash, ask, store::Error::is_unavailable).await.map_err(|error| database_problem(&error))?;
        let caller = caller.ok_or_else(|| self.challenge(Code::ApiKeyInvalid))?;
        self.buckets.take(&caller.bucket).map_err(|wait| {
            let seconds = u32::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u32::MAX);
            Problem::from(Code::RateLimited).with_header(RETRY_AFTER, seconds.into())
        })?;
        if !caller.key.scopes.contains(&needed) {
            return Err(Code::ScopeMissing.into());
        }
        Ok(caller)
    }

    fn caller(&self, key: KeyIdentity) -> Arc<Caller> {
        self.uses.note(&key, now());
        Arc::new(Caller { bucket: self.buckets.of(key.key_id), key })
    }

    /// The uses of keys, for the task that writes them.
    pub(crate) fn uses(&self) -> Arc<Uses> {
        Arc::clone(&self.uses)
    }

    /// A 401 names the way to authenticate (RFC 9110 §15.5.2).
    fn challenge(&self, code: Code) -> Problem {
        let challenge = format!("ApiKey header=\"{}\"", self.api_key_header);
        let challenge = HeaderValue::try_from(challenge).expect("a header's name is visible ASCII");
        Problem::from(code).with_header(WWW_AUTHENTICATE, challenge)
    }

    /// Asks for a job: ends when Kafka has acknowledged the command and the job's row is there.
    ///
    /// The command goes first. A crash between the two leaves a command whose row the projector will write; the other
    /// order would leave a row whose job never runs.
    ///
    /// With a key the job's id is claimed before that, so that the request sent again asks for the same job. Where the
    /// row is not there yet the command is written again: the mailbox takes a job's second command for none.
    pub(crate) async fn start_job(
        &self,
        organisation_id: OrganisationId,
        connection_id: ConnectionId,
        wanted: Wanted,
        keyed: Option<Keyed>,
        headers: &HeaderMap,
    ) -> Result<JobId, Problem> {
        let requested_at = now();
        let Some(token_version) = self.connection(organisation_id, connection_id).await? else {
            // What was answered once is answered the same, though the connection is gone.
            let before = match keyed {
                Some(keyed) => self.recall(organisation_id, &keyed, requested_at).await?,
                None => None,
            };
            let started = before.filter(|before| before.is_a_job).ok_or(Code::ConnectionNotFound)?;
            return Ok(JobId::from_uuid(started.made_id));
        };
        let mut job_id = new_job_id(requested_at);
        if let Some(keyed) = keyed {
            let same = self.claim(organisation_id, &keyed, *job_id.as_uuid()).await?;
            job_id = JobId::from_uuid(same.made_id);
            if same.is_a_job {
                return Ok(job_id);
            }
        }
        let command = PollGmailConnection {
            job_id,
            organisation_id,
            connection_id,
            trigger: wanted.trigger,
            window: wanted.window,
            token_version,
            requested_at,
            deadline: requested_at + if wanted.window.is_some() { self.backfill_deadline } else { self.job_deadline },
        };
        self.produce(&command, connection_id, requested_at, trace(headers)).await?;
        // What was promised to be answered the same again has to be known before it is answered.
        let answer = if keyed.is_some() { Answer::WithRow } else { Answer::Anyhow };
        self.rows.insert(command, answer).await.map_err(|_| Code::DatabaseUnavailable)?;
        Ok(job_id)
    }

    /// Writes a command to a connection; ends when all in-sync replicas have it.
    pub(crate) async fn produce<T: events::Event>(
        &self,
        command: &T,
        connection: ConnectionId,
        at: Timestamp,
        trace: TraceParent,
    ) -> Result<(), Problem> {
        let span = kafka::trace::send(&self.commands, Parent::Current);
        span.set_with("messaging.kafka.message.key", || connection.to_string());
        let trace = span.traceparent().and_then(|span| span.parse().ok()).unwrap_or(trace);
        let frame = events::encode(command);
        let headers = Envelope::new("urn:mailtide:ingress", at, trace).headers(command, &frame);
        let record = OutRecord::new(&self.commands, connection.to_string(), frame, headers.into());
        // It waits at most for `kafka.delivery_timeout`.
        self.producer.send(&record).await.map(drop).map_err(|error| {
            span.fail("not_acknowledged");
            tracing::warn!(%error, "Cannot write a command");
            Code::BrokerUnavailable.into()
        })
    }

    /// The token version of the organisation's living connection.
    pub(crate) async fn connection(
        &self,
        organisation: OrganisationId,
        connection: ConnectionId,
    ) -> Result<Option<TokenVersion>, Problem> {
        let ask = async {
            let found = store::connections::find(&self.store, organisation, connection).await?;
            Ok(found.map(|found| found.token_version))
        };
        let known = self.connections.get((organisation, connection), ask, store::Error::is_unavailable).await;
        known.map_err(|error| database_problem(&error))
    }

    /// Drops what is remembered of a connection, which has changed.
    pub(crate) async fn connection_changed(&self, organisation: OrganisationId, connection: ConnectionId) {
        self.connections.forget(&(organisation, connection)).await;
    }

    /// Whether the organisation has this connection, and it lives.
    pub(crate) async fn is_connected(
        &self,
        organisation: OrganisationId,
        connection: ConnectionId,
    ) -> Result<bool, Problem> {
        Ok(self.connection(organisation, connection).await?.is_some())
    }

    /// A page of the organisation's jobs.
    pub(crate) async fn jobs(
        &self,
        organisation: OrganisationId,
        filter: &store::jobs::Filter,
        after: Option<(Timestamp, JobId)>,
        limit: u32,
    ) -> Result<store::jobs::Page, Problem> {
        let page = store::jobs::list(&self.store, organisation, filter, after, limit).await;
        page.map_err(|error| database_problem(&error))
    }

    /// The organisation's job. One whose row may be on its way, after an outage, is not said not to exist.
    pub(crate) async fn job(
        &self,
        organisation: OrganisationId,
        job: JobId,
    ) -> Result<Option<store::jobs::Job>, Problem> {
        let found = store::jobs::find(&self.store, organisation, job).await.map_err(|error| {
            if error.is_unavailable() {
                self.outage.went_on();
            }
            database_problem(&error)
        })?;
        if found.is_none() && self.outage.may_hide(job) {
            return Err(Code::DatabaseUnavailable.into());
        }
        Ok(found)
    }
}

/// The wall clock.
pub(crate) fn now() -> Timestamp {
    Timestamp::from_millis(jiff::Timestamp::now().as_millisecond())
}

/// An id by the time and at random (UUIDv7): rows of new jobs lie side by side in the index, and whoever may read the
/// job is told its time anyway. Not by `Uuid::now_v7`, whose counter is behind a lock.
pub(crate) fn new_job_id(now: Timestamp) -> JobId {
    let millis = u64::try_from(now.as_millis()).unwrap_or(0);
    JobId::from_uuid(uuid::Builder::from_unix_timestamp_millis(millis, &rand::random()).into_uuid())
}

/// The caller's trace, one span on; a trace of its own if it sent none that can be read.
pub(crate) fn trace(headers: &HeaderMap) -> TraceParent {
    match headers.get(TRACE_PARENT).map(|value| TraceParent::parse(value.as_bytes())) {
        Some(Ok(parent)) => parent.child(rand::random()),
        None | Some(Err(_)) => TraceParent::new(rand::random(), rand::random()),
    }
}

/// What the caller is told of a failure of the store; the log is told the rest.
pub(crate) fn database_problem(error: &store::Error) -> Problem {
    if error.is_unavailable() {
        tracing::warn!(%error, "The database does not answer");
        Code::DatabaseUnavailable.into()
    } else {
        tracing::error!(%error, source = ?std::error::Error::source(error), "The database refused");
        Code::Internal.into()
    }
}
