//! A server that plays Gmail and the token endpoint by scripts, and the token source beside it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::post;
use domain::{ConnectionId, OrganisationId, TokenVersion};
use futures_util::future::BoxFuture;
use futures_util::stream;
use tower_http::compression::CompressionLayer;
use uuid::Uuid;

use super::EMPTY;
use crate::token::{Account, Credential, Grant, TokenSource, TokenSourceError};
use crate::{Client, Gate, Mailbox, Quota, Service, Settings};

/// What to answer one request with.
#[derive(Debug, Clone)]
pub(super) enum Script {
    Whole {
        status: u16,
        body: String,
        headers: Vec<(&'static str, String)>,
        after: Duration,
    },
    /// The beginning of a body, then the connection is cut.
    BreakOff(&'static str),
    Hang,
}

impl Script {
    pub(super) fn json(status: u16, body: &str) -> Self {
        Self::Whole { status, body: body.to_owned(), headers: Vec::new(), after: Duration::ZERO }
    }

    pub(super) fn token(access_token: &str, expires_in: u64) -> Self {
        Self::json(
            200,
            &format!(r#"{{"access_token":"{access_token}","expires_in":{expires_in},"token_type":"Bearer"}}"#),
        )
    }

    pub(super) fn with_header(mut self, name: &'static str, value: &str) -> Self {
        if let Self::Whole { headers, .. } = &mut self {
            headers.push((name, value.to_owned()));
        }
        self
    }

    pub(super) fn after(mut self, delay: Duration) -> Self {
        if let Self::Whole { after, .. } = &mut self {
            *after = delay;
        }
        self
    }

    async fn play(self) -> Response {
        match self {
            Self::Whole { status, body, headers, after } => {
                tokio::time::sleep(after).await;
                let mut response = Response::builder().status(status);
                if headers.iter().all(|(name, _)| *name != "content-type") {
                    response = response.header("content-type", "application/json");
                }
                for (name, value) in headers {
                    response = response.header(name, value);
                }
                response.body(body.into()).unwrap()
            }
            Self::BreakOff(start) => {
                let parts = [Ok(start), Err(std::io::Error::other("cut"))];
                Response::new(Body::from_stream(stream::iter(parts)))
            }
            Self::Hang => std::future::pending().await,
        }
    }
}

/// A request as it came.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) path: String,
    pub(super) query: String,
    pub(super) authorization: String,
    pub(super) user_agent: String,
    pub(super) accept_encoding: String,
    pub(super) body: String,
}

pub(super) struct Fake {
    pub(super) mailbox: Mailbox,
    address: std::net::SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Scripts for the API; when there are none, a page without records.
    api: Mutex<VecDeque<Script>>,
    /// Scripts for the token endpoint; when there are none, token after token.
    token: Mutex<VecDeque<Script>>,
    seen: Mutex<Vec<Seen>>,
    /// An authorization that is answered with 401.
    refused: Mutex<Option<String>>,
    refreshes: AtomicUsize,
    asked: AtomicUsize,
    packed: AtomicUsize,
    grant: Mutex<Option<Result<TokenVersion, TokenSourceError>>>,
}

impl Fake {
    pub(super) async fn start() -> Self {
        let shared = Arc::new(Shared::default());
        let router = Router::new()
            .route("/token", post(token))
            .fallback(api)
            .with_state(Arc::clone(&shared))
            .layer(CompressionLayer::new())
            .layer(axum::middleware::map_response_with_state(Arc::clone(&shared), note_packing));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        let mailbox = Mailbox {
            organisation_id: OrganisationId::from_uuid(Uuid::from_u128(1)),
            connection_id: ConnectionId::from_uuid(Uuid::from_u128(2)),
        };
        Self { mailbox, address, shared }
    }

    pub(super) fn settings(&self) -> Settings {
        Settings {
            api_url: format!("http://{}/", self.address).parse().unwrap(),
            token_url: format!("http://{}/token", self.address).parse().unwrap(),
            client_id: "client".to_owned(),
            client_secret: Some("client secret".into()),
            call_timeout: Duration::from_secs(20),
            max_body: 1024 * 1024,
            // The fake has none of Gmail's limits.
            quota: Quota {
                user_minute: Some(10_000_000),
                project_day: Some(1_000_000_000),
                concurrency: 100,
                ..Quota::default()
            },
            ..Settings::default()
        }
    }

    pub(super) fn client(&self) -> Client {
        self.client_with(&self.settings())
    }

    pub(super) fn client_with(&self, settings: &Settings) -> Client {
        let source: Arc<dyn TokenSource> = Arc::clone(&self.shared) as _;
        Client::new(settings, source, Gate::new(settings, Service::Poller)).unwrap()
    }

    pub(super) fn api(&self, script: Script) {
        self.shared.api.lock().unwrap().push_back(script);
    }

    pub(super) fn token(&self, script: Script) {
        self.shared.token.lock().unwrap().push_back(script);
    }

    pub(super) fn grant(&self, grant: Result<TokenVersion, TokenSourceError>) {
        *self.shared.grant.lock().unwrap() = Some(grant);
    }

    pub(super) fn refuse(&self, authorization: &str) {
        *self.shared.refused.lock().unwrap() = Some(authorization.to_owned());
    }

    /// Requests to the API.
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// Requests to the token endpoint.
    pub(super) fn refreshes(&self) -> usize {
        self.shared.refreshes.load(Ordering::SeqCst)
    }

    /// Times the token source was asked.
    pub(super) fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::SeqCst)
    }

    /// Answers that went out packed.
    pub(super) fn packed(&self) -> usize {
        self.shared.packed.load(Ordering::SeqCst)
    }

    pub(super) async fn until(&self, condition: impl Fn() -> bool) {
        let wait = async {
            while !condition() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait).await.expect("the condition never came true");
    }
}

impl TokenSource for Shared {
    fn refresh_token(&self, _: Mailbox) -> BoxFuture<'_, Result<Grant, TokenSourceError>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let token_version = self.grant.lock().unwrap().clone().unwrap_or(Ok(TokenVersion(1)));
        Box::pin(async move {
            Ok(Grant {
                account: Account::new("somebody@example.com"),
                shares: 1,
                token_version: token_version?,
                credential: Credential::RefreshToken("1//refresh".into()),
            })
        })
    }
}

async fn token(State(shared): State<Arc<Shared>>, body: String) -> Response {
    let nth = shared.refreshes.fetch_add(1, Ordering::SeqCst) + 1;
    assert_eq!(
        body,
        "grant_type=refresh_token&client_id=client&refresh_token=1%2F%2Frefresh&client_secret=client+secret"
    );
    let script = shared.token.lock().unwrap().pop_front();
    script.unwrap_or_else(|| Script::token(&format!("access-{nth}"), 3_599)).play().await
}

async fn api(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (request, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let header = |name| request.headers.get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
    let seen = Seen {
        path: request.uri.path().to_owned(),
        query: request.uri.query().unwrap_or_default().to_owned(),
        authorization: header("authorization"),
        user_agent: header("user-agent"),
        accept_encoding: header("accept-encoding"),
        body: String::from_utf8(body.to_vec()).unwrap(),
    };
    let refused = shared.refused.lock().unwrap().as_deref() == Some(&seen.authorization);
    shared.seen.lock().unwrap().push(seen);
    if refused {
        return Script::json(401, "{}").play().await;
    }
    let script = shared.api.lock().unwrap().pop_front();
    script.unwrap_or_else(|| Script::json(200, EMPTY)).play().await
}

async fn note_packing(State(shared): State<Arc<Shared>>, response: Response) -> Response {
    if response.headers().contains_key("content-encoding") {
        shared.packed.fetch_add(1, Ordering::SeqCst);
    }
    response
}
