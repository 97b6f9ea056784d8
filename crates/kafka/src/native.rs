//! What librdkafka can do and its binding does not ask for.

use std::ffi::{CStr, CString, c_void};
use std::time::Duration;

use rdkafka::bindings as native;
use rdkafka::client::{Client, ClientContext, OAuthToken};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::producer::{BaseProducer, Producer, ProducerContext};

/// The member id of a group consumer; none while it is no member of its group.
///
/// Group metadata taken while this is empty carries no generation, and a transaction commits offsets with it as if
/// there were no group: nothing is fenced.
#[allow(unsafe_code, reason = "the binding does not offer the member id")]
pub(crate) fn member_id<C: ConsumerContext>(consumer: &BaseConsumer<C>) -> Option<String> {
    let client = consumer.client().native_ptr();
    // SAFETY: the consumer keeps its client alive; librdkafka returns null or a C string of its own that we free.
    unsafe {
        let text = native::rd_kafka_memberid(client);
        if text.is_null() {
            return None;
        }
        let id = CStr::from_ptr(text).to_string_lossy().into_owned();
        native::rd_kafka_mem_free(client, text.cast::<c_void>());
        (!id.is_empty()).then_some(id)
    }
}

/// The end of a partition's log as of the last fetch, without asking the broker; none if it is not known yet.
#[allow(unsafe_code, reason = "the binding only offers to ask the broker, which blocks")]
pub(crate) fn known_end<C: ConsumerContext>(consumer: &BaseConsumer<C>, topic: &str, partition: i32) -> Option<i64> {
    let topic = CString::new(topic).ok()?;
    let (mut low, mut high) = (-1_i64, -1_i64);
    let client = consumer.client().native_ptr();
    // SAFETY: the consumer keeps its client alive, and both numbers outlive the call.
    let code =
        unsafe { native::rd_kafka_get_watermark_offsets(client, topic.as_ptr(), partition, &mut low, &mut high) };
    (code == native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0).then_some(high)
}

/// Waits until nothing is in flight, at most for `timeout`, and tells whether that is so. Whoever calls it must serve
/// the reports of failed records; those of the others must be off (`delivery.report.only.error`).
///
/// The binding's `flush` waits in slices of 100 ms, and its `poll` spins through the last millisecond of its timeout:
/// a loop around that burns a whole core while it waits. This sleeps, and wakes with the last acknowledgement.
#[allow(unsafe_code, reason = "the binding waits in slices of 100 ms, or spins")]
pub(crate) fn is_drained<C: ProducerContext>(producer: &BaseProducer<C>, timeout: Duration) -> bool {
    let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the producer keeps its client alive.
    let code = unsafe { native::rd_kafka_flush(producer.client().native_ptr(), millis) };
    code == native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
}

/// Gives the system back what librdkafka has freed.
///
/// librdkafka's memory is the C library's, not the binary's allocator's. What a restore fetches ahead passes through it by
/// the hundred megabytes, and where glibc has kept some of it in use, it keeps all around it, too, until it is told.
#[allow(unsafe_code, reason = "no binding offers it")]
pub(crate) fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        unsafe extern "C" {
            fn malloc_trim(pad: usize) -> std::ffi::c_int;
        }
        // SAFETY: it takes a number, may be called from any thread, and touches only memory that is free.
        unsafe { malloc_trim(0) };
    }
}

/// Gives a client the token that it shows to brokers from now on.
#[allow(unsafe_code, reason = "the binding gives one only to clients that are polled")]
pub(crate) fn set_token<C: ClientContext>(client: &Client<C>, token: &OAuthToken) -> Result<(), String> {
    let (Ok(value), Ok(principal)) = (CString::new(&*token.token), CString::new(&*token.principal_name)) else {
        return Err("it or its owner's name has a null character".to_owned());
    };
    let mut said = [0_u8; 512];
    // SAFETY: the client lives, both texts end with a null and outlive the call, there are no extensions, and what is
    // said fits in what is given for it.
    let code = unsafe {
        native::rd_kafka_oauthbearer_set_token(
            client.native_ptr(),
            value.as_ptr(),
            token.lifetime_ms,
            principal.as_ptr(),
            std::ptr::null_mut(),
            0,
            said.as_mut_ptr().cast(),
            said.len(),
        )
    };
    if code == native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
        return Ok(());
    }
    Err(CStr::from_bytes_until_nul(&said).unwrap_or_default().to_string_lossy().into_owned())
}
