//! Every refusal and failure as RFC 9457 `application/problem+json`.
//!
//! A handler answers with a [`Problem`]; the outermost layer ([`finish`]) writes the body, because only there the path
//! (`instance`) is known for every response, and because there the framework's own plain-text refusals pass too.

use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// What there is to say of a code.
pub(crate) struct Entry {
    /// The status of the answer.
    pub(crate) status: StatusCode,
    /// The dotted code: the `title`.
    pub(crate) title: &'static str,
    /// What happened, in a sentence.
    pub(crate) meaning: &'static str,
    /// What to do about it, in a sentence.
    pub(crate) remedy: &'static str,
    /// Both.
    pub(crate) detail: &'static str,
    /// After how many seconds the same request may do better.
    pub(crate) retry_after: Option<u16>,
}

/// One line for each code, from which all else about it follows: its name, its status, `after N` where the same request
/// may do better N seconds later, its title, what it means, and what to do.
macro_rules! codes {
    ($($name:ident = $status:ident $(after $retry:literal)?, $title:literal, $meaning:literal, $remedy:literal;)+) => {
        /// Everything that the API refuses or fails with. Its `title` is part of the contract.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Code {
            $(#[doc = $meaning] $name,)+
            /// Any other refusal of the framework.
            Refused(StatusCode),
        }

        impl Code {
            /// All that have a line of their own.
            pub(crate) const ALL: &[Self] = &[$(Self::$name),+];

            /// What there is to say of it.
            pub(crate) const fn entry(self) -> Entry {
                match self {
                    $(Self::$name => Entry {
                        status: StatusCode::$status,
                        title: $title,
                        meaning: $meaning,
                        remedy: $remedy,
                        detail: concat!($meaning, " ", $remedy),
                        retry_after: codes!(@after $($retry)?),
                    },)+
                    Self::Refused(status) => Entry {
                        status,
                        title: "Request.Refused",
                        meaning: "The request was refused before it reached a call of this API.",
                        remedy: "See the status.",
                        detail: "The request was refused before it reached a call of this API; see the status.",
                        retry_after: None,
                    },
                }
            }
        }
    };
    (@after) => { None };
    (@after $seconds:literal) => { Some($seconds) };
}

codes! {
    ApiKeyMissing = UNAUTHORIZED, "Auth.ApiKeyMissing",
        "The request carries no API key.",
        "Send it in the header that the API document names.";
    ApiKeyInvalid = UNAUTHORIZED, "Auth.ApiKeyInvalid",
        "The API key is unknown or was revoked.",
        "Use a living key of your organisation.";
    ScopeMissing = FORBIDDEN, "Auth.ScopeMissing",
        "The API key may not do this.",
        "Use a key with the scope that the call needs.";
    ConnectionNotFound = NOT_FOUND, "Gmail.ConnectionNotFound",
        "The Gmail connection does not exist.",
        "Check its id, and that the API key is of the organisation that connected it.";
    MessageNotFound = NOT_FOUND, "Gmail.MessageNotFound",
        "The mailbox has no such message, or has it no more.",
        "Check the id; nothing brings back what was deleted at Gmail.";
    AttachmentNotFound = NOT_FOUND, "Gmail.AttachmentNotFound",
        "The message has no such attachment.",
        "Use a `partId` of the message's event.";
    ReauthRequired = CONFLICT, "Gmail.ReauthRequired",
        "The mailbox's owner has revoked the consent, or it has expired.",
        "Connect the mailbox again with POST /gmail-connections.";
    GmailRefused = CONFLICT, "Gmail.Refused",
        "Gmail refuses the call for good.",
        "The detail says why; ask the mailbox's owner or the operator.";
    GmailThrottled = SERVICE_UNAVAILABLE after 10, "Gmail.Throttled",
        "Gmail, or the budget of its quota, takes no more calls for this mailbox just now.",
        "Ask again after the seconds of Retry-After; the operator can give more by gmail.quota.ingress.";
    GmailUnavailable = SERVICE_UNAVAILABLE after 5, "Gmail.Unavailable",
        "Gmail does not answer, or not as it should.",
        "Ask again after the seconds of Retry-After.";
    TooManyStreams = TOO_MANY_REQUESTS after 5, "Job.TooManyStreams",
        "The API key follows as many jobs at once as it may.",
        "Close a stream, or ask for the jobs one by one.";
    ConsentNotConfigured = SERVICE_UNAVAILABLE after 60, "Gmail.ConsentNotConfigured",
        "This installation has no OAuth client or no key for tokens, so no mailbox can be connected.",
        "The operator sets gmail.client_id, gmail.client_secret and store.token_key.";
    TooManyConsents = TOO_MANY_REQUESTS after 60, "Gmail.TooManyConsents",
        "The organisation has as many consents open as it may.",
        "Wait until some are given or have ended, ten minutes after they were asked for.";
    ConsentStateInvalid = BAD_REQUEST, "Gmail.ConsentStateInvalid",
        "The consent is unknown, was used before, or took longer than ten minutes.",
        "Ask for a new consent page with POST /gmail-connections.";
    RedirectHostNotAllowed = BAD_REQUEST, "Gmail.RedirectHostNotAllowed",
        "The host of `returnUrl` is not on your organisation's list.",
        "Use a host that is, or let the operator add this one with mailtide organisations allow.";
    JobAlreadyFinished = CONFLICT, "Job.AlreadyFinished",
        "The job has ended.",
        "Read it to see how; nothing is left to cancel.";
    JobNotFound = NOT_FOUND, "Job.NotFound",
        "The job does not exist.",
        "Check its id, and that the API key is of the organisation that asked for it.";
    BodyInvalid = BAD_REQUEST, "Request.BodyInvalid",
        "The body is not what this call takes.",
        "See the call in the API document.";
    BodyTooLarge = PAYLOAD_TOO_LARGE, "Request.BodyTooLarge",
        "The body is larger than this API takes.",
        "Send less than 16 KiB.";
    BodyTooSlow = REQUEST_TIMEOUT, "Request.BodyTooSlow",
        "The body did not come within three seconds of its head.",
        "Send it at once.";
    IdempotencyKeyInvalid = BAD_REQUEST, "Request.IdempotencyKeyInvalid",
        "The Idempotency-Key is not 1 to 255 visible ASCII characters, or was sent twice.",
        "Send one such as a UUID, new for each thing that is asked for.";
    IdempotencyKeyReused = UNPROCESSABLE_ENTITY, "Request.IdempotencyKeyReused",
        "The Idempotency-Key was sent before with another request.",
        "Send a new key for a new request, and the same request with the same key.";
    MediaTypeUnsupported = UNSUPPORTED_MEDIA_TYPE, "Request.MediaTypeUnsupported",
        "The body is not JSON.",
        "Send it as application/json.";
    MethodNotAllowed = METHOD_NOT_ALLOWED, "Request.MethodNotAllowed",
        "This path does not take this method.",
        "The header Allow names those it takes.";
    PathNotFound = NOT_FOUND, "Request.PathNotFound",
        "No call of this API has this path.",
        "See /openapi.json.";
    QueryInvalid = BAD_REQUEST, "Request.QueryInvalid",
        "A parameter of the query is not what this call takes.",
        "The detail names it; see the call in the API document.";
    PushKeysUnavailable = SERVICE_UNAVAILABLE after 10, "Push.KeysUnavailable",
        "The keys that Google signs its pushes with cannot be had.",
        "Push again later.";
    PushTokenInvalid = UNAUTHORIZED, "Push.TokenInvalid",
        "The push carries no token of the subscription's service account for this audience.",
        "Set up the subscription's authentication as push.audience and push.service_account say.";
    RateLimited = TOO_MANY_REQUESTS after 1, "Request.RateLimited",
        "The API key asks more often than it may.",
        "Ask again after the seconds of Retry-After, and less often.";
    BrokerUnavailable = SERVICE_UNAVAILABLE after 2, "Server.BrokerUnavailable",
        "The command could not be confirmed as written, so it may not run.",
        "Ask again; that is safe.";
    DatabaseUnavailable = SERVICE_UNAVAILABLE after 2, "Server.DatabaseUnavailable",
        "The database did not answer in time.",
        "Ask again; that is safe.";
    Internal = INTERNAL_SERVER_ERROR, "Server.Internal",
        "The server failed to answer this request; the failure was logged.",
        "Tell the operator when it was and what was asked.";
    Overloaded = SERVICE_UNAVAILABLE after 1, "Server.Overloaded",
        "The server has more requests than it takes at once.",
        "Ask again later.";
    TimedOut = SERVICE_UNAVAILABLE after 1, "Server.TimedOut",
        "The request took longer than the server allows.",
        "Ask again; that is safe.";
}

impl Code {
    /// The status of the answer.
    pub(crate) const fn status(self) -> StatusCode {
        self.entry().status
    }

    /// Where the status is defined: a `type` that resolves.
    const fn kind(self) -> &'static str {
        match self.status().as_u16() {
            400 => "https://www.rfc-editor.org/rfc/rfc9110#section-15.5.1",
            401 => "https://www.rfc-editor.org/rfc/rfc9110#section-15.5.2",
            403 => "https://www.rfc-editor.org/rfc/rfc9110#section-15.5.4",
            404 => "https://www.rfc-editor.org/rfc/rfc9110#section-15.5.5",
            405 => "https://www.rfc-editor.org/rfc/rfc9110#section-15.5.6",
            408 => "https://www.rfc-editor.org/rfc/rfc9110#section-15.5.9",
            409 => "https://www.rfc-editor.org/rfc/rfc9110#section-15.5.10",
            413 => "https://www.rfc-editor.org/rfc/rfc9110#section-15.5.14",
            415 => "https://www.rfc-editor.org/rfc/rfc9110#section-15.5.16",
            422 => "https://www.rfc-editor.org/rfc/rfc9110#section-15.5.21",
            429 => "https://www.rfc-editor.org/rfc/rfc6585#section-4",
            500 => "https://www.rfc-editor.org/rfc/rfc9110#section-15.6.1",
            503 => "https://www.rfc-editor.org/rfc/rfc9110#section-15.6.4",
            _ => "about:blank",
        }
    }
}

/// A refusal or failure on its way out. Its text is for the caller: nothing of our insides belongs in it.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    code: Code,
    detail: Option<String>,
    header: Option<(HeaderName, HeaderValue)>,
}

impl Problem {
    /// What it is.
    #[cfg(test)]
    pub(crate) const fn code(&self) -> Code {
        self.code
    }

    /// Says more than the code's own sentence.
    pub(crate) fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds a header to the answer.
    pub(crate) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.header = Some((name, value));
        self
    }
}

impl From<Code> for Problem {
    fn from(code: Code) -> Self {
        Self { code, detail: None, header: None }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.code.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl IntoResponse for Code {
    fn into_response(self) -> Response {
        Problem::from(self).into_response()
    }
}

/// Marks a refusal in the form of somebody else's interface, which is no problem document and stays as it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Foreign;

/// The members in the order in which RFC 9457 §3.1 names them.
#[derive(Serialize)]
struct Document<'a> {
    r#type: &'a str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    instance: &'a str,
}

/// Gives every response with a 4xx or 5xx status its problem document, but for those that are [`Foreign`]; others pass
/// untouched. Headers already set (such
/// as `Allow`) stay.
pub(crate) fn finish(mut response: Response, instance: &str) -> Response {
    let status = response.status();
    let is_refusal = status.is_client_error() || status.is_server_error();
    if !is_refusal || response.extensions().get::<Foreign>().is_some() {
        return response;
    }
    let problem = response.extensions_mut().remove::<Problem>().unwrap_or_else(|| framework_refusal(status).into());
    let code = problem.code;
    let entry = code.entry();
    let document = Document {
        r#type: code.kind(),
        title: entry.title,
        status: status.as_u16(),
        detail: problem.detail.as_deref().unwrap_or(entry.detail),
        instance,
    };
    let body = serde_json::to_vec(&document).expect("a flat struct of text and a number serialises");
    let headers = response.headers_mut();
    headers.remove(CONTENT_LENGTH);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if let Some(seconds) = entry.retry_after {
        headers.insert(RETRY_AFTER, seconds.into());
    }
    if let Some((name, value)) = problem.header {
        headers.insert(name, value);
    }
    *response.body_mut() = Body::from(body);
    response
}

/// The code of a refusal that no handler of ours made.
const fn framework_refusal(status: StatusCode) -> Code {
    match status {
        StatusCode::NOT_FOUND => Code::PathNotFound,
        StatusCode::METHOD_NOT_ALLOWED => Code::MethodNotAllowed,
        StatusCode::PAYLOAD_TOO_LARGE => Code::BodyTooLarge,
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Code::MediaTypeUnsupported,
        StatusCode::BAD_REQUEST => Code::BodyInvalid,
        StatusCode::INTERNAL_SERVER_ERROR => Code::Internal,
        other => Code::Refused(other),
    }
}
