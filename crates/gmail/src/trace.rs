//! Spans of calls to Google, where traces are told.
//!
//! A call has a span for itself, its wait at the gate included, and within it one for each HTTP request, as OpenTelemetry's
//! semantic conventions for HTTP clients name it. Of an address only host and path are told, and no id from the path.

use std::future::Future;

use reqwest::Request;
use runtime::trace::{Beginning, Kind, Parent, Span, is_on};

use crate::client::Mailbox;
use crate::tariff::Method;
use crate::transport::Failure;

/// The span of a call, from asking for it to what came of it.
pub(crate) fn of(method: Method, mailbox: Mailbox, parent: Parent<'_>) -> Span {
    let name = match method {
        Method::Profile => "gmail users.getProfile",
        Method::HistoryList => "gmail users.history.list",
        Method::MessagesList => "gmail users.messages.list",
        Method::MessagesGet => "gmail users.messages.get",
        Method::AttachmentsGet => "gmail users.messages.attachments.get",
        Method::LabelsList => "gmail users.labels.list",
        Method::Watch => "gmail users.watch",
        Method::Stop => "gmail users.stop",
    };
    let span = Span::begin(Kind::Internal, name, parent);
    span.set_with("mailtide.connection.id", || mailbox.connection_id.to_string());
    span.set_with("mailtide.organisation.id", || mailbox.organisation_id.to_string());
    span
}

/// Waits at the gate, in a span of its own.
pub(crate) async fn admitted<T, E>(admission: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let span = Span::begin(Kind::Internal, "gate", Parent::Within);
    admission.await.inspect_err(|_| span.fail("not_admitted"))
}

/// A request on its way. One that is given up before it was answered has failed.
pub(crate) struct Asked {
    span: Span,
    is_answered: bool,
}

impl Asked {
    pub(crate) fn new(request: &Request) -> Self {
        Self { span: if is_on() { begin(request) } else { Span::default() }, is_answered: false }
    }

    /// A request that cannot be made is none.
    pub(crate) fn none() -> Self {
        Self { span: Span::default(), is_answered: true }
    }

    /// The head of the answer is there.
    pub(crate) fn answered(&mut self, status: http::StatusCode) {
        self.is_answered = true;
        self.span.set("http.response.status_code", i64::from(status.as_u16()));
        if status.is_client_error() || status.is_server_error() {
            self.span.fail(status.as_str().to_owned());
        }
    }

    /// There is no answer, or not a whole one.
    pub(crate) fn failed(&mut self, failure: &Failure) {
        self.is_answered = true;
        self.span.fail(match failure {
            Failure::Connect(_) => "connect",
            Failure::BrokeOff(_) => "broke_off",
            Failure::TooLarge { .. } => "too_large",
        });
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if !self.is_answered {
            self.span.fail("given_up");
        }
    }
}

fn begin(request: &Request) -> Span {
    let (method, url) = (request.method().as_str(), request.url());
    let template = template(url.path());
    let name = format!("{method} {template}").into();
    let span = Span::with(Beginning { kind: Kind::Client, name, parent: Parent::Within, at: None, links: Vec::new() });
    span.set("http.request.method", method.to_owned());
    span.set("url.template", template);
    span.set_with("server.address", || url.host_str().unwrap_or_default().to_owned());
    span.set_with("server.port", || i64::from(url.port_or_known_default().unwrap_or_default()));
    span
}

/// The path with names in the place of ids.
fn template(path: &str) -> String {
    let mut before = "";
    let parts = path.split('/').map(|part| {
        let shown = match before {
            "messages" => "{id}",
            "attachments" => "{attachmentId}",
            _ => part,
        };
        before = part;
        shown
    });
    parts.collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_id_is_told_of_a_path() {
        for (path, is) in [
            ("/gmail/v1/users/me/history", "/gmail/v1/users/me/history"),
            ("/gmail/v1/users/me/messages", "/gmail/v1/users/me/messages"),
            (
                "/gmail/v1/users/me/messages/18c/attachments/ANGj",
                "/gmail/v1/users/me/messages/{id}/attachments/{attachmentId}",
            ),
            ("/batch/gmail/v1", "/batch/gmail/v1"),
            ("/token", "/token"),
        ] {
            assert_eq!(template(path), is);
        }
    }
}
