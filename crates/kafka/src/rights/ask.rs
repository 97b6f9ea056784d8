//! Asks the brokers what we are allowed. They tell, when asked to, with the description of a topic or a group.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, CString, c_char};
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::bindings as native;
use rdkafka::bindings::{rd_kafka_AclOperation_t as Granted, rd_kafka_resp_err_t as Code};
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, DeliveryResult, Producer, ProducerContext};

use super::{Error, Kind, Operation, Right};
use crate::client;
use crate::error::Cause;
use crate::oauth::{self, Tokens};
use crate::settings::Settings;

/// How long brokers that are away are waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long one wait for an answer takes before complaints are looked at.
const SLICE: Duration = Duration::from_millis(50);

/// Notes what the client complains of. What it logs comes as complaints, too.
struct Complaints {
    tokens: Option<Tokens>,
    last: Mutex<Option<(KafkaError, String)>>,
}

impl ClientContext for Complaints {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(facility, message, "Kafka client");
    }

    fn stats(&self, _: rdkafka::Statistics) {}

    fn error(&self, error: KafkaError, reason: &str) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        // That all are down says less than why one of them is.
        if last.is_none() || !matches!(error, KafkaError::Global(RDKafkaErrorCode::AllBrokersDown)) {
            *last = Some((error, reason.to_owned()));
        }
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        oauth::answer(self.tokens.as_ref()).inspect_err(|error| {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            *last = Some((KafkaError::Global(RDKafkaErrorCode::Authentication), error.to_string()));
        })
    }
}

impl ProducerContext for Complaints {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

/// What the brokers say of one topic or group.
enum Said {
    /// What we may do.
    May(BTreeSet<u32>),
    /// Nothing, not even see it.
    Nothing,
    /// It is not there, or they do not tell.
    Unknown,
}

/// Those of `needed` that we do not have.
pub(super) fn lacking(settings: &Settings, needed: &[Right]) -> Result<Vec<Right>, Error> {
    let context = Complaints { tokens: settings.security.tokens.clone(), last: Mutex::default() };
    let config = client::base(settings, "rights");
    let producer: BaseProducer<Complaints> = config.create_with_context(context).map_err(|error| Error::Client {
        bootstrap_servers: settings.bootstrap_servers.clone(),
        cause: error.into(),
    })?;
    let deadline = Instant::now() + PATIENCE;
    let mut lacking = Vec::new();
    for kind in [Kind::Topic, Kind::Group] {
        let named: BTreeSet<&str> =
            needed.iter().filter(|it| it.kind == kind && it.name != "*").map(|it| it.name.as_str()).collect();
        if named.is_empty() {
            continue;
        }
        let said = describe(settings, &producer, kind, &named, deadline)?;
        let is_lacking = |right: &&Right| match said.get(right.name.as_str()) {
            Some(Said::May(operations)) => !operations.contains(&number(right.operation)),
            Some(Said::Nothing) => true,
            Some(Said::Unknown) | None => false,
        };
        // To create a topic that is there takes no right, and of one that is not the brokers tell nothing.
        let asked = needed.iter().filter(|it| it.kind == kind && it.operation != Operation::Create);
        lacking.extend(asked.filter(is_lacking).cloned());
    }
    Ok(lacking)
}

const fn number(operation: Operation) -> u32 {
    let granted = match operation {
        Operation::Read => Granted::RD_KAFKA_ACL_OPERATION_READ,
        Operation::Write => Granted::RD_KAFKA_ACL_OPERATION_WRITE,
        Operation::Create => Granted::RD_KAFKA_ACL_OPERATION_CREATE,
        Operation::Alter => Granted::RD_KAFKA_ACL_OPERATION_ALTER,
        Operation::Describe => Granted::RD_KAFKA_ACL_OPERATION_DESCRIBE,
    };
    granted as u32
}

/// Owns what librdkafka gave, and gives it back.
struct Owned<T>(NonNull<T>, unsafe extern "C" fn(*mut T));

impl<T> Owned<T> {
    fn new(given: *mut T, give_back: unsafe extern "C" fn(*mut T)) -> Option<Self> {
        NonNull::new(given).map(|given| Self(given, give_back))
    }

    const fn get(&self) -> *mut T {
        self.0.as_ptr()
    }
}

impl<T> Drop for Owned<T> {
    #[allow(unsafe_code, reason = "it is librdkafka's to free")]
    fn drop(&mut self) {
        // SAFETY: it was given to us, and nobody else gives it back.
        unsafe { (self.1)(self.0.as_ptr()) }
    }
}

/// Describes topics or groups of these names.
#[allow(unsafe_code, reason = "the binding describes neither with what is allowed")]
fn describe<'a>(
    settings: &Settings,
    producer: &BaseProducer<Complaints>,
    kind: Kind,
    names: &BTreeSet<&'a str>,
    deadline: Instant,
) -> Result<BTreeMap<&'a str, Said>, Error> {
    let client = producer.client().native_ptr();
    let texts: Vec<CString> = names.iter().filter_map(|name| CString::new(*name).ok()).collect();
    let mut pointers: Vec<*const c_char> = texts.iter().map(|text| text.as_ptr()).collect();
    let operation = match kind {
        Kind::Topic => native::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS,
        Kind::Group | Kind::TransactionalId => native::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS,
    };
    let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_secs(1));
    // SAFETY: the client outlives everything made here; each thing made is owned until it is given back; the names and
    // the pointers to them outlive the calls, which copy them.
    let queue = unsafe {
        let queue = Owned::new(native::rd_kafka_queue_new(client), native::rd_kafka_queue_destroy);
        let options =
            Owned::new(native::rd_kafka_AdminOptions_new(client, operation), native::rd_kafka_AdminOptions_destroy);
        let (Some(queue), Some(options)) = (queue, options) else { return Ok(BTreeMap::new()) };
        let mut said = [0 as c_char; 256];
        let millis = i32::try_from(left.as_millis()).unwrap_or(i32::MAX);
        native::rd_kafka_AdminOptions_set_request_timeout(options.get(), millis, said.as_mut_ptr(), said.len());
        let refused = native::rd_kafka_AdminOptions_set_include_authorized_operations(options.get(), 1);
        if !refused.is_null() {
            native::rd_kafka_error_destroy(refused);
        }
        match kind {
            Kind::Topic => {
                let topics = native::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
                let Some(topics) = Owned::new(topics, native::rd_kafka_TopicCollection_destroy) else {
                    return Ok(BTreeMap::new());
                };
                native::rd_kafka_DescribeTopics(client, topics.get(), options.get(), queue.get());
            }
            Kind::Group | Kind::TransactionalId => native::rd_kafka_DescribeConsumerGroups(
                client,
                pointers.as_mut_ptr(),
                pointers.len(),
                options.get(),
                queue.get(),
            ),
        }
        queue
    };
    let event = loop {
        let millis = i32::try_from(SLICE.as_millis()).expect("a slice is short");
        // SAFETY: the queue is ours; the event is until it is given back.
        let event = unsafe { native::rd_kafka_queue_poll(queue.get(), millis) };
        if let Some(event) = Owned::new(event, native::rd_kafka_event_destroy) {
            break event;
        }
        producer.poll(Duration::ZERO);
        complain(settings, producer, deadline)?;
    };
    // SAFETY: the event lives to the end of this function, and all that is read from it is its own.
    unsafe {
        let code = native::rd_kafka_event_error(event.get());
        if code != Code::RD_KAFKA_RESP_ERR_NO_ERROR {
            producer.poll(Duration::ZERO);
            complain(settings, producer, deadline)?;
            let cause = Cause::from(KafkaError::Global(code.into()));
            if cause.is_unreachable() {
                return Err(unreachable(settings, cause.to_string()));
            }
            // Brokers too old for the question, for one.
            tracing::debug!(%cause, "The brokers do not tell what we are allowed");
            return Ok(BTreeMap::new());
        }
        let mut count = 0;
        let mut said = BTreeMap::new();
        let mut note = |name: *const c_char, error: *const native::rd_kafka_error_t, allowed: &[Granted], tells| {
            let name = CStr::from_ptr(name).to_string_lossy();
            let Some(name) = names.get(name.as_ref()) else { return };
            let code =
                if error.is_null() { Code::RD_KAFKA_RESP_ERR_NO_ERROR } else { native::rd_kafka_error_code(error) };
            let heard = match code {
                Code::RD_KAFKA_RESP_ERR_NO_ERROR if tells => {
                    Said::May(allowed.iter().map(|operation| *operation as u32).collect())
                }
                Code::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED
                | Code::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED => Said::Nothing,
                _ => Said::Unknown,
            };
            said.insert(*name, heard);
        };
        match kind {
            Kind::Topic => {
                let result = native::rd_kafka_event_DescribeTopics_result(event.get());
                let all = native::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
                for index in 0..count {
                    let one = *all.add(index);
                    let mut n = 0;
                    let allowed = native::rd_kafka_TopicDescription_authorized_operations(one, &raw mut n);
                    let name = native::rd_kafka_TopicDescription_name(one);
                    note(name, native::rd_kafka_TopicDescription_error(one), slice(allowed, n), !allowed.is_null());
                }
            }
            Kind::Group | Kind::TransactionalId => {
                let result = native::rd_kafka_event_DescribeConsumerGroups_result(event.get());
                let all = native::rd_kafka_DescribeConsumerGroups_result_groups(result, &raw mut count);
                for index in 0..count {
                    let one = *all.add(index);
                    let mut n = 0;
                    let allowed = native::rd_kafka_ConsumerGroupDescription_authorized_operations(one, &raw mut n);
                    let name = native::rd_kafka_ConsumerGroupDescription_group_id(one);
                    let error = native::rd_kafka_ConsumerGroupDescription_error(one);
                    note(name, error, slice(allowed, n), !allowed.is_null());
                }
            }
        }
        Ok(said)
    }
}

/// What librdkafka points at; nothing where it points nowhere.
#[allow(unsafe_code, reason = "it is librdkafka's array")]
unsafe fn slice<'a, T>(first: *const T, count: usize) -> &'a [T] {
    // SAFETY: the caller got both from librdkafka, whose array is of that length.
    if first.is_null() || count == 0 { &[] } else { unsafe { std::slice::from_raw_parts(first, count) } }
}

/// Ends the wait when it is in vain, or has been long enough.
fn complain(settings: &Settings, producer: &BaseProducer<Complaints>, deadline: Instant) -> Result<(), Error> {
    let last = producer.context().last.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let bootstrap_servers = settings.bootstrap_servers.clone();
    if let Some((error, reason)) = &last
        && Cause::from(error.clone()).is_distrust()
    {
        let principal = settings.security.principal();
        return Err(Error::Unauthenticated { bootstrap_servers, principal, reason: reason.clone() });
    }
    if Instant::now() < deadline {
        return Ok(());
    }
    Err(unreachable(settings, last.map_or_else(|| "no reason is known".to_owned(), |(_, reason)| reason)))
}

fn unreachable(settings: &Settings, reason: String) -> Error {
    Error::Unreachable { bootstrap_servers: settings.bootstrap_servers.clone(), seconds: PATIENCE.as_secs(), reason }
}
