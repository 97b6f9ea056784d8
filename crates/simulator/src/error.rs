//! Errors as Gmail sends them, field by field.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};

use crate::fields::Mask;
use crate::json::Writer;

/// An error of the API. Boxed: results that carry it stay small.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError(Box<Envelope>);

/// What an error says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Envelope {
    /// The HTTP status.
    pub(crate) status: StatusCode,
    /// `error.message`.
    pub(crate) message: String,
    /// `errors[0]`; left out at the level of a batch.
    pub(crate) entry: Option<Entry>,
    /// `error.status`, the canonical name; old documented forms lack it.
    pub(crate) canonical: Option<&'static str>,
    /// `error.details`.
    pub(crate) details: Vec<Detail>,
    /// Header `WWW-Authenticate`.
    pub(crate) challenge: Option<&'static str>,
}

/// The only entry of `errors`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its own message, when it differs from the outer one.
    pub(crate) message: Option<&'static str>,
    /// `domain`.
    pub(crate) domain: Option<&'static str>,
    /// `reason`.
    pub(crate) reason: &'static str,
    /// `location` and `locationType`.
    pub(crate) location: Option<(&'static str, &'static str)>,
}

/// An entry of `details`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Detail {
    /// `google.rpc.BadRequest` with one violation.
    BadRequest {
        /// The field in the proto's spelling.
        field: String,
        /// What is wrong with it.
        description: String,
    },
    /// `google.rpc.ErrorInfo`.
    Info {
        /// `reason`.
        reason: &'static str,
        /// `metadata`.
        metadata: Vec<(&'static str, String)>,
    },
    /// `google.rpc.Help` with one link.
    Help {
        /// What the link is for.
        description: &'static str,
        /// Where it leads.
        url: &'static str,
    },
}

/// `error.message` of a 401, after its first sentence.
const CREDENTIALS_HELP: &str = "Expected OAuth 2 access token, login cookie or other valid authentication credential. \
     See https://developers.google.com/identity/sign-in/web/devconsole-project.";

impl std::ops::Deref for ApiError {
    type Target = Envelope;

    fn deref(&self) -> &Envelope {
        &self.0
    }
}

impl std::ops::DerefMut for ApiError {
    fn deref_mut(&mut self) -> &mut Envelope {
        &mut self.0
    }
}

impl ApiError {
    fn new(status: StatusCode, canonical: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        let entry = Entry { message: None, domain: Some("global"), reason, location: None };
        Self(Box::new(Envelope {
            status,
            message: message.into(),
            entry: Some(entry),
            canonical: Some(canonical),
            details: Vec::new(),
            challenge: None,
        }))
    }

    /// 400 for a value that is of the right type and wrong.
    pub(crate) fn invalid_argument(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", "invalidArgument", message)
    }

    /// 400 of the proto layer: a value that is not of the field's type.
    pub(crate) fn invalid_type(field: &str, kind: &str, value: &str) -> Self {
        let message = format!("Invalid value at '{field}' ({kind}), \"{value}\"");
        let mut error = Self::new(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", "invalid", message.clone());
        error.entry = Some(Entry { message: None, domain: None, reason: "invalid", location: None });
        error.details = vec![Detail::BadRequest { field: field.to_owned(), description: message }];
        error
    }

    /// 400 for a `fields` mask that names nothing.
    pub(crate) fn invalid_fields(path: &str) -> Self {
        let mut error = Self::invalid_argument("Request contains an invalid argument.");
        let description = format!("Error expanding 'fields' parameter. Cannot find matching fields for path '{path}'.");
        error.details = vec![Detail::BadRequest { field: path.to_owned(), description }];
        error
    }

    /// 400 `failedPrecondition`.
    pub(crate) fn failed_precondition(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "FAILED_PRECONDITION", "failedPrecondition", message)
    }

    /// 401 for a token that is not, or no longer, good.
    pub(crate) fn bad_token() -> Self {
        let message = format!("Request had invalid authentication credentials. {CREDENTIALS_HELP}");
        let mut error = Self::new(StatusCode::UNAUTHORIZED, "UNAUTHENTICATED", "authError", message);
        error.entry = Some(Entry {
            message: Some("Invalid Credentials"),
            domain: Some("global"),
            reason: "authError",
            location: Some(("Authorization", "header")),
        });
        error.challenge = Some("Bearer realm=\"https://accounts.google.com/\", error=\"invalid_token\"");
        error
    }

    /// 401 for a request without a token.
    pub(crate) fn no_token() -> Self {
        let message = format!("Request is missing required authentication credential. {CREDENTIALS_HELP}");
        let mut error = Self::new(StatusCode::UNAUTHORIZED, "UNAUTHENTICATED", "required", message);
        error.entry = Some(Entry {
            message: Some("Login Required."),
            domain: Some("global"),
            reason: "required",
            location: Some(("Authorization", "header")),
        });
        error.challenge = Some("Bearer realm=\"https://accounts.google.com/\"");
        error
    }

    /// 403 for a token whose scopes do not allow `method`.
    pub(crate) fn insufficient_scope(method: &'static str) -> Self {
        let message = "Request had insufficient authentication scopes.";
        let mut error = Self::new(StatusCode::FORBIDDEN, "PERMISSION_DENIED", "insufficientPermissions", message);
        error.entry = Some(Entry {
            message: Some("Insufficient Permission"),
            domain: Some("global"),
            reason: "insufficientPermissions",
            location: None,
        });
        let metadata = vec![
            ("service", "gmail.googleapis.com".to_owned()),
            ("method", format!("caribou.api.proto.MailboxService.{method}")),
        ];
        error.details = vec![Detail::Info { reason: "ACCESS_TOKEN_SCOPE_INSUFFICIENT", metadata }];
        error
    }

    /// 403 `forbidden`: another's mailbox, or what the metadata scope does not allow.
    pub(crate) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "PERMISSION_DENIED", "forbidden", message)
    }

    /// 404, the same for a message that is gone and for a history id that is expired.
    pub(crate) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "NOT_FOUND", "notFound", "Requested entity was not found.")
    }

    /// 429 for too many requests of one user at once.
    pub(crate) fn concurrency() -> Self {
        Self::resource_exhausted("Too many concurrent requests for user.")
    }

    /// 429 `rateLimitExceeded`.
    pub(crate) fn resource_exhausted(message: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "RESOURCE_EXHAUSTED", "rateLimitExceeded", message)
    }

    /// 429 or 403 whose message says when to come again, with two spaces before `Retry`.
    pub(crate) fn user_rate(status: StatusCode, until_ms: i64) -> Self {
        let until = crate::clock::rfc3339(until_ms);
        let message = format!("User-rate limit exceeded.  Retry after {until}");
        let canonical = if status == StatusCode::FORBIDDEN { "PERMISSION_DENIED" } else { "RESOURCE_EXHAUSTED" };
        let mut error = Self::new(status, canonical, "userRateLimitExceeded", message);
        if status == StatusCode::TOO_MANY_REQUESTS {
            error.entry = error.entry.take().map(|entry| Entry { reason: "rateLimitExceeded", ..entry });
        } else {
            error.entry = error.entry.take().map(|entry| Entry { domain: Some("usageLimits"), ..entry });
        }
        error
    }

    /// 403 of a quota by the minute; `limit` is its name in the console, `quota_limit` its id.
    pub(crate) fn quota(limit: &str, quota_limit: &'static str, value: u64) -> Self {
        let message = format!(
            "Quota exceeded for quota metric 'Queries' and limit '{limit}' of service 'gmail.googleapis.com' for \
             consumer 'project_number:123'."
        );
        let mut error = Self::new(StatusCode::FORBIDDEN, "PERMISSION_DENIED", "rateLimitExceeded", message);
        error.entry = error.entry.take().map(|entry| Entry { domain: Some("usageLimits"), ..entry });
        let metadata = vec![
            ("service", "gmail.googleapis.com".to_owned()),
            ("consumer", "projects/123".to_owned()),
            ("quota_metric", "gmail.googleapis.com/default".to_owned()),
            ("quota_limit", quota_limit.to_owned()),
            ("quota_limit_value", value.to_string()),
            ("quota_location", "global".to_owned()),
        ];
        error.details = vec![
            Detail::Info { reason: "RATE_LIMIT_EXCEEDED", metadata },
            Detail::Help {
                description: "Request a higher quota limit.",
                url: "https://cloud.google.com/docs/quotas/help/request_increase",
            },
        ];
        error
    }

    /// The short forms that the documentation lists: 403 without `status`.
    pub(crate) fn documented(domain: &'static str, reason: &'static str, message: &str) -> Self {
        let mut error = Self::new(StatusCode::FORBIDDEN, "PERMISSION_DENIED", reason, message);
        error.entry = error.entry.take().map(|entry| Entry { domain: Some(domain), ..entry });
        error.canonical = None;
        error
    }

    /// 500, 502, 503 or 504 with reason `backendError`.
    pub(crate) fn backend(status: StatusCode) -> Self {
        let (canonical, message) = match status {
            StatusCode::SERVICE_UNAVAILABLE => ("UNAVAILABLE", "The service is currently unavailable."),
            StatusCode::GATEWAY_TIMEOUT => ("DEADLINE_EXCEEDED", "Deadline expired before operation could complete."),
            StatusCode::BAD_GATEWAY => ("UNAVAILABLE", "Bad Gateway"),
            _ => ("INTERNAL", "Internal error encountered."),
        };
        Self::new(status, canonical, "backendError", message)
    }

    /// 400 of a batch as a whole, without `errors`.
    pub(crate) fn batch(message: impl Into<String>) -> Self {
        let mut error = Self::invalid_argument(message);
        error.entry = None;
        error
    }

    /// The body. Errors are always pretty-printed; `errors` is left out when `$.xgafv=2` was asked for.
    pub(crate) fn body(&self, legacy: bool) -> Vec<u8> {
        let mut writer = Writer::new(512, true, &Mask::All);
        writer.object(|outer| {
            outer.field("error", |writer| {
                writer.object(|error| {
                    error.int_field("code", self.status.as_u16());
                    error.text_field("message", &self.message);
                    if let Some(entry) = self.entry.as_ref().filter(|_| legacy) {
                        error.field("errors", |w| w.array([entry], |w, entry| self.write_entry(w, entry)));
                    }
                    if let Some(canonical) = self.canonical {
                        error.text_field("status", canonical);
                    }
                    if !self.details.is_empty() {
                        error.field("details", |w| w.array(&self.details, |w, detail| detail.write(w)));
                    }
                });
            });
        });
        writer.finish()
    }

    fn write_entry(&self, writer: &mut Writer<'_>, entry: &Entry) {
        writer.object(|o| {
            o.text_field("message", entry.message.unwrap_or(&self.message));
            if let Some(domain) = entry.domain {
                o.text_field("domain", domain);
            }
            o.text_field("reason", entry.reason);
            if let Some((location, kind)) = entry.location {
                o.text_field("location", location);
                o.text_field("locationType", kind);
            }
        });
    }

    /// The response; see [`Self::body`].
    pub(crate) fn response(&self, legacy: bool) -> Response {
        let mut response = json(self.status, self.body(legacy));
        if let Some(challenge) = self.challenge {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        response
    }
}

impl Detail {
    fn write(&self, writer: &mut Writer<'_>) {
        writer.object(|o| match self {
            Self::BadRequest { field, description } => {
                o.text_field("@type", "type.googleapis.com/google.rpc.BadRequest");
                o.field("fieldViolations", |w| {
                    w.array([()], |w, ()| {
                        w.object(|o| {
                            o.text_field("field", field);
                            o.text_field("description", description);
                        });
                    });
                });
            }
            Self::Info { reason, metadata } => {
                o.text_field("@type", "type.googleapis.com/google.rpc.ErrorInfo");
                o.text_field("reason", reason);
                o.text_field("domain", "googleapis.com");
                o.field("metadata", |w| {
                    w.object(|o| metadata.iter().for_each(|(name, value)| o.text_field(name, value)));
                });
            }
            Self::Help { description, url } => {
                o.text_field("@type", "type.googleapis.com/google.rpc.Help");
                o.field("links", |w| {
                    w.array([()], |w, ()| {
                        w.object(|o| {
                            o.text_field("description", description);
                            o.text_field("url", url);
                        });
                    });
                });
            }
        });
    }
}

/// A response with a JSON body as Google labels it.
pub(crate) fn json(status: StatusCode, body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=UTF-8"));
    response
}

/// The HTML that Google's front end sends where no API answers.
pub(crate) fn html(status: StatusCode) -> Response {
    let reason = status.canonical_reason().unwrap_or("Error");
    let code = status.as_u16();
    let page = format!(
        "<!DOCTYPE html>\n<html lang=en>\n  <meta charset=utf-8>\n  <title>Error {code} ({reason})!!1</title>\n  \
         <p><b>{code}.</b> <ins>That’s an error.</ins>\n  <p>The requested URL was not found on this server.  \
         <ins>That’s all we know.</ins>\n"
    );
    let kind = HeaderValue::from_static("text/html; charset=UTF-8");
    (status, [(header::CONTENT_TYPE, kind)], page).into_response()
}
