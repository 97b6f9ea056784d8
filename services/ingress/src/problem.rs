//! Every refusal and failure as RFC 9457 `application/problem+json`.
//!
//! A handler answers with a [`Problem`]; the outermost layer ([`finish`]) writes the body, because only there the path
//! (`instance`) is known for every response, and because there the framework's own plain-text refusals pass too.

use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// Everything that the API refuses or fails with. The name is the `title` of the answer, and part of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    /// No API key was sent.
    ApiKeyMissing,
    /// The API key is unknown or revoked.
    ApiKeyInvalid,
    /// The API key may not do this.
    ScopeMissing,
    /// The connection does not exist, is not the caller's, or was revoked: one answer for all.
    ConnectionNotFound,
    /// The job does not exist or is not the caller's.
    JobNotFound,
    /// The body is not what the call takes.
    BodyInvalid,
    /// The body is larger than any call takes.
    BodyTooLarge,
    /// The body is not JSON.
    MediaTypeUnsupported,
    /// No call has this path.
    PathNotFound,
    /// The path has no such method; `Allow` names those it has.
    MethodNotAllowed,
    /// Any other refusal of the framework.
    Refused(StatusCode),
    /// A bug of ours.
    Internal,
    /// Kafka did not acknowledge in time.
    BrokerUnavailable,
    /// Postgres did not answer in time.
    DatabaseUnavailable,
    /// More requests at once than this instance takes.
    Overloaded,
    /// The request took longer than the server allows.
    TimedOut,
}

impl Code {
    /// The status of the answer.
    pub(crate) const fn status(self) -> StatusCode {
        match self {
            Self::ApiKeyMissing | Self::ApiKeyInvalid => StatusCode::UNAUTHORIZED,
            Self::ScopeMissing => StatusCode::FORBIDDEN,
            Self::ConnectionNotFound | Self::JobNotFound | Self::PathNotFound => StatusCode::NOT_FOUND,
            Self::BodyInvalid => StatusCode::BAD_REQUEST,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::MediaTypeUnsupported => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Refused(status) => status,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::BrokerUnavailable | Self::DatabaseUnavailable | Self::Overloaded | Self::TimedOut => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }

    /// The dotted code: the `title`.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::ApiKeyMissing => "Auth.ApiKeyMissing",
            Self::ApiKeyInvalid => "Auth.ApiKeyInvalid",
            Self::ScopeMissing => "Auth.ScopeMissing",
            Self::ConnectionNotFound => "Gmail.ConnectionNotFound",
            Self::JobNotFound => "Job.NotFound",
            Self::BodyInvalid => "Request.BodyInvalid",
            Self::BodyTooLarge => "Request.BodyTooLarge",
            Self::MediaTypeUnsupported => "Request.MediaTypeUnsupported",
            Self::PathNotFound => "Request.PathNotFound",
            Self::MethodNotAllowed => "Request.MethodNotAllowed",
            Self::Refused(_) => "Request.Refused",
            Self::Internal => "Server.Internal",
            Self::BrokerUnavailable => "Server.BrokerUnavailable",
            Self::DatabaseUnavailable => "Server.DatabaseUnavailable",
            Self::Overloaded => "Server.Overloaded",
            Self::TimedOut => "Server.TimedOut",
        }
    }

    /// One sentence on what happened and what to do.
    const fn detail(self) -> &'static str {
        match self {
            Self::ApiKeyMissing => "The request carries no API key; send it in the header that the API document names.",
            Self::ApiKeyInvalid => "The API key is unknown or was revoked; use a living key of your organisation.",
            Self::ScopeMissing => "The API key may not do this; use one with the scope that the call needs.",
            Self::ConnectionNotFound => "The Gmail connection does not exist.",
            Self::JobNotFound => "The job does not exist.",
            Self::BodyInvalid => "The body is not what this call takes; see the API document.",
            Self::BodyTooLarge => "The body is larger than this API takes.",
            Self::MediaTypeUnsupported => "The body is not JSON; send it as application/json.",
            Self::PathNotFound => "No call of this API has this path; see /openapi.json.",
            Self::MethodNotAllowed => "This path does not take this method; the header Allow names those it takes.",
            Self::Refused(_) => "The request was refused before it reached a call of this API.",
            Self::Internal => "The server failed to answer this request; the failure was logged.",
            Self::BrokerUnavailable => {
                "The command could not be confirmed as written; the sync may not run. Asking again is safe."
            }
            Self::DatabaseUnavailable => "The database did not answer in time. Asking again is safe.",
            Self::Overloaded => "The server has more requests than it takes at once; ask again later.",
            Self::TimedOut => "The request took longer than the server allows. Asking again is safe.",
        }
    }

    /// Where the status is defined: a `type` that resolves.
    const fn kind(self) -> &'static str {
        match self.status().as_u16() {
            400 => "https://www.rfc-editor.org/rfc/rfc9110#section-15.5.1",
            401 => "https://www.rfc-editor.org/rfc/rfc9110#section-15.5.2",
            403 => "https://www.rfc-editor.org/rfc/rfc9110#section-15.5.4",
            404 => "https://www.rfc-editor.org/rfc/rfc9110#section-15.5.5",
            405 => "https://www.rfc-editor.org/rfc/rfc9110#section-15.5.6",
            413 => "https://www.rfc-editor.org/rfc/rfc9110#section-15.5.14",
            415 => "https://www.rfc-editor.org/rfc/rfc9110#section-15.5.16",
            500 => "https://www.rfc-editor.org/rfc/rfc9110#section-15.6.1",
            503 => "https://www.rfc-editor.org/rfc/rfc9110#section-15.6.4",
            _ => "about:blank",
        }
    }

    /// After how many seconds the same request may do better.
    const fn retry_after(self) -> Option<u16> {
        match self {
            Self::BrokerUnavailable | Self::DatabaseUnavailable => Some(2),
            Self::Overloaded | Self::TimedOut => Some(1),
            Self::ApiKeyMissing
            | Self::ApiKeyInvalid
            | Self::ScopeMissing
            | Self::ConnectionNotFound
            | Self::JobNotFound
            | Self::BodyInvalid
            | Self::BodyTooLarge
            | Self::MediaTypeUnsupported
            | Self::PathNotFound
            | Self::MethodNotAllowed
            | Self::Refused(_)
            | Self::Internal => None,
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

/// The members in the order in which RFC 9457 §3.1 names them.
#[derive(Serialize)]
struct Document<'a> {
    r#type: &'a str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    instance: &'a str,
}

/// Gives every response with a 4xx or 5xx status its problem document; others pass untouched. Headers already set (such
/// as `Allow`) stay.
pub(crate) fn finish(mut response: Response, instance: &str) -> Response {
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let problem = response.extensions_mut().remove::<Problem>().unwrap_or_else(|| framework_refusal(status).into());
    let code = problem.code;
    let document = Document {
        r#type: code.kind(),
        title: code.title(),
        status: status.as_u16(),
        detail: problem.detail.as_deref().unwrap_or(code.detail()),
        instance,
    };
    let body = serde_json::to_vec(&document).expect("a flat struct of text and a number serialises");
    let headers = response.headers_mut();
    headers.remove(CONTENT_LENGTH);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if let Some(seconds) = code.retry_after() {
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
