//! Reading a record's headers without trusting them.
//!
//! The binding's own reader panics on a header whose name is not UTF-8, and a broker accepts any bytes there:
//! one foreign record could stop a lane for good. So the names are read here.

use std::borrow::Cow;
use std::ffi::{CStr, c_char, c_void};
use std::fmt;
use std::marker::PhantomData;
use std::ptr;

use bytes::Bytes;
use rdkafka::bindings as native;
use rdkafka::message::BorrowedMessage;

use crate::record::Headers;

/// The headers of a record that librdkafka owns.
#[derive(Clone, Copy)]
pub struct HeaderView<'a> {
    // Null if the record has none.
    list: *const native::rd_kafka_headers_t,
    message: PhantomData<&'a ()>,
}

impl<'a> HeaderView<'a> {
    /// No headers.
    pub const fn empty() -> Self {
        Self { list: ptr::null(), message: PhantomData }
    }

    #[allow(unsafe_code, reason = "the binding's reader panics on a name that is not UTF-8")]
    pub(crate) fn of(message: &'a BorrowedMessage<'_>) -> Self {
        let mut list: *mut native::rd_kafka_headers_t = ptr::null_mut();
        // SAFETY: the message outlives the call, and librdkafka parses the headers into memory that the message owns,
        // which `'a` keeps borrowed.
        let code = unsafe { native::rd_kafka_message_headers(message.ptr(), &mut list) };
        match code {
            native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => Self { list, message: PhantomData },
            _ => Self::empty(),
        }
    }

    /// The header at `index`: its name, with what is not UTF-8 replaced, and its value, if that is not null.
    #[allow(unsafe_code, reason = "the binding's reader panics on a name that is not UTF-8")]
    fn at(&self, index: usize) -> Option<(Cow<'a, str>, Option<&'a [u8]>)> {
        if self.list.is_null() {
            return None;
        }
        let mut name: *const c_char = ptr::null();
        let mut value: *const c_void = ptr::null();
        let mut size = 0;
        // SAFETY: the list lives as long as the message that `'a` borrows; librdkafka fills in all three or fails.
        let code = unsafe { native::rd_kafka_header_get_all(self.list, index, &mut name, &mut value, &mut size) };
        if code != native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return None;
        }
        // SAFETY: on success the name is a C string, and the value null or `size` bytes, both owned by the list.
        let (name, value) = unsafe {
            let name = CStr::from_ptr(name).to_string_lossy();
            let value = (!value.is_null()).then(|| std::slice::from_raw_parts(value.cast::<u8>(), size));
            (name, value)
        };
        Some((name, value))
    }

    /// All headers, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Cow<'a, str>, Option<&'a [u8]>)> {
        let view = *self;
        (0..).map_while(move |index| view.at(index))
    }

    /// The value of the first header of that name that is not null.
    pub fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.iter().find_map(|(known, value)| value.filter(|_| known == name))
    }

    /// The same header as text, if it is UTF-8.
    pub fn text(&self, name: &str) -> Option<&'a str> {
        self.get(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// A copy that outlives the record.
    pub fn to_headers(&self) -> Headers {
        let mut headers = Headers::new();
        for (name, value) in self.iter() {
            headers.push_nullable(name.into_owned(), value.map(Bytes::copy_from_slice));
        }
        headers
    }
}

impl fmt::Debug for HeaderView<'_> {
    /// Names only: values may carry what is no business of a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|(name, _)| name)).finish()
    }
}
