//! The outermost layer of every request: at most so many at once, at most so long, and never an answer that is not ours.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request};
use axum::response::{IntoResponse, Response};
use events::headers::TRACE_PARENT;
use futures_util::FutureExt;
use runtime::trace::{self, Beginning, Kind, Parent, Span};
use tokio::sync::Semaphore;
use tower::ServiceExt;

use crate::metrics;
use crate::problem::{self, Code};

/// The calls, and what a request may take.
///
/// Around the router and not a layer inside it: a layer costs every request a boxed future and a clone of all below.
#[derive(Debug, Clone)]
pub(crate) struct Guarded {
    router: Router,
    slots: Arc<Semaphore>,
    in_flight: usize,
    timeout: Duration,
    /// The same for an attachment, which may have to wait for its quota.
    patience: Duration,
}

impl Guarded {
    /// At most `in_flight` requests at once, each for at most `timeout`.
    pub(crate) fn new(router: Router, in_flight: usize, timeout: Duration) -> Self {
        Self { router, slots: Arc::new(Semaphore::new(in_flight)), in_flight, timeout, patience: timeout }
    }

    /// At most `patience` until an attachment begins.
    pub(crate) const fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Answers one request.
    pub(crate) async fn answer<B>(&self, request: Request<B>) -> Response
    where
        B: http_body::Body<Data = bytes::Bytes, Error: Into<axum::BoxError>> + Send + 'static,
    {
        let begun = Instant::now();
        let uri = request.uri().clone();
        let span = if trace::is_on() { span_of(&request) } else { Span::default() };
        let response = match self.slots.try_acquire() {
            Err(_) => Code::Overloaded.into_response(),
            Ok(_slot) => {
                metrics::in_flight(self.in_flight - self.slots.available_permits());
                let answered = AssertUnwindSafe(self.router.clone().oneshot(request.map(Body::new))).catch_unwind();
                let answered = span.scope(answered);
                let timeout = if metrics::is_attachment(uri.path()) { self.patience } else { self.timeout };
                match tokio::time::timeout(timeout, answered).await {
                    Ok(Ok(Ok(response))) => response,
                    Ok(Ok(Err(never))) => match never {},
                    Ok(Err(_)) => {
                        tracing::error!(path = uri.path(), "A request panicked");
                        Code::Internal.into_response()
                    }
                    Err(_) => Code::TimedOut.into_response(),
                }
            }
        };
        metrics::in_flight(self.in_flight - self.slots.available_permits());
        metrics::answered(uri.path(), response.status(), begun.elapsed());
        span.set("http.response.status_code", i64::from(response.status().as_u16()));
        // What the caller did wrong is not ours to mend (semantic conventions, "HTTP server").
        if response.status().is_server_error() {
            span.fail(response.status().as_str().to_owned());
        }
        problem::finish(response, uri.path())
    }
}

/// The span of a request, a part of its caller's trace. Of the path only the route is told.
fn span_of<B>(request: &Request<B>) -> Span {
    // What a client makes up must not become a name of ours.
    let method = match request.method() {
        method @ (&Method::GET
        | &Method::POST
        | &Method::PUT
        | &Method::PATCH
        | &Method::DELETE
        | &Method::HEAD
        | &Method::OPTIONS) => method.as_str(),
        _ => "_OTHER",
    };
    let route = metrics::route(request.uri().path());
    let name = match route {
        Some(route) => format!("{method} {route}"),
        None => method.to_owned(),
    };
    let parent = request.headers().get(TRACE_PARENT).and_then(|value| value.to_str().ok());
    let parent = Parent::Remote(parent);
    let span = Span::with(Beginning { kind: Kind::Server, name: name.into(), parent, at: None, links: Vec::new() });
    span.set("http.request.method", method.to_owned());
    span.set("url.scheme", "http");
    if let Some(route) = route {
        span.set("http.route", route);
    }
    span
}

#[cfg(test)]
mod tests {
    use axum::http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
    use axum::http::{Method, StatusCode};
    use axum::routing::{get, post};
    use serde_json::Value;
    use tokio::sync::Notify;

    use super::*;

    fn guarded(in_flight: usize, router: Router) -> Guarded {
        let router = router
            .fallback(|| async { Code::PathNotFound })
            .method_not_allowed_fallback(|| async { Code::MethodNotAllowed });
        Guarded::new(router, in_flight, Duration::from_secs(60))
    }

    async fn ask(guarded: &Guarded, method: Method, path: &str) -> Response {
        guarded.answer(Request::builder().method(method).uri(path).body(Body::empty()).unwrap()).await
    }

    async fn assert_problem(response: Response, status: StatusCode, title: &str, instance: &str) {
        assert_eq!(response.status(), status);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        assert_eq!(response.headers().contains_key(RETRY_AFTER), status == StatusCode::SERVICE_UNAVAILABLE);
        let body = axum::body::to_bytes(response.into_body(), 4096).await.unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["title"], title);
        assert_eq!(body["status"], status.as_u16());
        assert_eq!(body["instance"], instance);
        assert!(body["type"].is_string() && body["detail"].is_string(), "{body}");
        assert_eq!(body.as_object().unwrap().len(), 5, "{body}");
    }

    #[tokio::test]
    async fn what_matches_no_call_is_a_problem() {
        let router = guarded(10, Router::new().route("/here", post(|| async { "ok" })));
        assert_problem(
            ask(&router, Method::GET, "/there?x=1").await,
            StatusCode::NOT_FOUND,
            "Request.PathNotFound",
            "/there",
        )
        .await;
        let response = ask(&router, Method::GET, "/here").await;
        assert_eq!(response.headers()[ALLOW], "POST");
        assert_problem(response, StatusCode::METHOD_NOT_ALLOWED, "Request.MethodNotAllowed", "/here").await;
        assert_eq!(ask(&router, Method::POST, "/here").await.status(), StatusCode::OK);
    }

    #[tokio::test]
    async fn what_the_framework_refuses_is_a_problem_too() {
        let refusing = get(|axum::Json(_): axum::Json<Value>| async { "ok" });
        let router = guarded(10, Router::new().route("/here", refusing));
        let response = ask(&router, Method::GET, "/here").await;
        assert_problem(response, StatusCode::UNSUPPORTED_MEDIA_TYPE, "Request.MediaTypeUnsupported", "/here").await;
    }

    #[tokio::test]
    async fn a_panic_is_answered_and_tells_nothing() {
        async fn broken() -> &'static str {
            panic!("a secret of ours")
        }
        let router = guarded(10, Router::new().route("/broken", get(broken)));
        let response = ask(&router, Method::GET, "/broken").await;
        assert_problem(response, StatusCode::INTERNAL_SERVER_ERROR, "Server.Internal", "/broken").await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_takes_too_long_is_answered() {
        let router = guarded(10, Router::new().route("/slow", get(std::future::pending::<&'static str>)));
        assert_problem(
            ask(&router, Method::GET, "/slow").await,
            StatusCode::SERVICE_UNAVAILABLE,
            "Server.TimedOut",
            "/slow",
        )
        .await;
    }

    #[tokio::test]
    async fn more_than_the_server_takes_are_shed_at_once() {
        let entered = Arc::new(Notify::new());
        let release = Arc::new(Notify::new());
        let slow = get({
            let (entered, release) = (Arc::clone(&entered), Arc::clone(&release));
            move || async move {
                entered.notify_one();
                release.notified().await;
                "ok"
            }
        });
        let router = guarded(1, Router::new().route("/slow", slow));
        let first = tokio::spawn({
            let router = router.clone();
            async move { ask(&router, Method::GET, "/slow").await }
        });
        entered.notified().await;
        let second = ask(&router, Method::GET, "/slow").await;
        assert_problem(second, StatusCode::SERVICE_UNAVAILABLE, "Server.Overloaded", "/slow").await;
        release.notify_one();
        assert_eq!(first.await.unwrap().status(), StatusCode::OK);
        release.notify_one();
        assert_eq!(ask(&router, Method::GET, "/slow").await.status(), StatusCode::OK);
    }
}
