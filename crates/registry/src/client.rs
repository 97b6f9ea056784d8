//! The few calls of a schema registry that are needed
//! (<https://docs.confluent.io/platform/current/schema-registry/develop/api.html>).

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Certificate, Method, RequestBuilder, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use url::Url;

use crate::error::{Error, cut};
use crate::settings::Settings;

/// What a registry speaks.
const MEDIA_TYPE: &str = "application/vnd.schemaregistry.v1+json";

/// No answer to a call of ours is larger, in bytes.
const MAX_ANSWER: usize = 4 << 20;

/// What became of a registration.
pub(crate) enum Registered {
    /// It has this id, and may have had it before.
    As(u32),
    /// It does not go with what is registered, or another registers at the same moment: the registry's words.
    Conflict(String),
}

/// Speaks to one registry.
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
    user: Option<(String, SecretString)>,
}

/// An answer of any status.
struct Answer {
    tried: String,
    status: StatusCode,
    body: Vec<u8>,
}

/// How registries put a refusal.
#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    error_code: Option<u32>,
    message: Option<String>,
}

impl Client {
    /// A client for the registry in the settings; none where none is set.
    pub(crate) fn new(settings: &Settings) -> Result<Option<Self>, Error> {
        let Some(url) = &settings.url else { return Ok(None) };
        let mut http = reqwest::Client::builder()
            .user_agent(concat!("mailtide/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .timeout(settings.timeout);
        if is_loopback(url) {
            http = http.no_proxy();
        }
        if let Some(file) = &settings.ca_file {
            let wrong = |why: &dyn std::fmt::Display| Error::Setup(format!("{}: {why}", file.display()));
            let pem = std::fs::read(file).map_err(|error| wrong(&error))?;
            let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| wrong(&error))?;
            if certificates.is_empty() {
                return Err(wrong(&"there is no certificate in it; it must be in PEM"));
            }
            http = certificates.into_iter().fold(http, reqwest::ClientBuilder::add_root_certificate);
        }
        let http = http.build().map_err(|error| Error::Setup(words(&error)))?;
        let user = settings.user.clone().zip(settings.password.clone());
        Ok(Some(Self { http, base: url.as_str().trim_end_matches('/').to_owned(), user }))
    }

    /// Which registry this is.
    pub(crate) fn place(&self) -> String {
        self.base.clone()
    }

    /// The numbers of a subject's versions; none when there is no such subject.
    pub(crate) async fn versions(&self, subject: &str) -> Result<Vec<u32>, Error> {
        let answer = self.call(Method::GET, "reading the versions", subject, "/versions", None).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(Vec::new());
        }
        self.parsed(&answer)
    }

    /// The schema of one version.
    pub(crate) async fn schema(&self, subject: &str, version: u32) -> Result<String, Error> {
        #[derive(Deserialize)]
        struct Version {
            schema: String,
        }
        let answer =
            self.call(Method::GET, "reading a version", subject, &format!("/versions/{version}"), None).await?;
        self.parsed(&answer).map(|Version { schema }| schema)
    }

    /// Registers a schema, which is the same as looking it up where it is registered already.
    pub(crate) async fn register(&self, subject: &str, schema: &str) -> Result<Registered, Error> {
        let body = json!({ "schema": schema });
        let answer = self.call(Method::POST, "registering a schema", subject, "/versions", Some(&body)).await?;
        if answer.status == StatusCode::CONFLICT {
            return Ok(Registered::Conflict(said(&answer.body)));
        }
        self.parsed(&answer).map(|Id { id }| Registered::As(id))
    }

    /// The id of a schema; none when it is not registered under the subject.
    pub(crate) async fn look_up(&self, subject: &str, schema: &str) -> Result<Option<u32>, Error> {
        let body = json!({ "schema": schema });
        let answer = self.call(Method::POST, "looking up a schema", subject, "", Some(&body)).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        self.parsed(&answer).map(|Id { id }| Some(id))
    }

    /// Puts a subject under a rule of compatibility, unless it is under it.
    pub(crate) async fn rule(&self, subject: &str, level: &str) -> Result<(), Error> {
        let path = format!("{}/config/{}", self.base, utf8_percent_encode(subject, NON_ALPHANUMERIC));
        let tried = format!("reading the compatibility of {subject}");
        let current = self.send(self.http.request(Method::GET, &path), tried).await?;
        // A subject without a rule of its own is answered with 404.
        if current.status != StatusCode::NOT_FOUND {
            let rule: Value = self.parsed(&current)?;
            if rule["compatibilityLevel"] == level {
                return Ok(());
            }
        }
        let request = self.http.request(Method::PUT, &path).body(json!({ "compatibility": level }).to_string());
        let answer = self.send(request, format!("setting the compatibility of {subject} to {level}")).await?;
        self.parsed::<Value>(&answer).map(drop)
    }

    async fn call(
        &self,
        method: Method,
        what: &str,
        subject: &str,
        below: &str,
        body: Option<&Value>,
    ) -> Result<Answer, Error> {
        let subject_in_path = utf8_percent_encode(subject, NON_ALPHANUMERIC);
        let request = self.http.request(method, format!("{}/subjects/{subject_in_path}{below}", self.base));
        let request = match body {
            Some(body) => request.body(body.to_string()),
            None => request,
        };
        self.send(request, format!("{what} of {subject}")).await
    }

    async fn send(&self, request: RequestBuilder, tried: String) -> Result<Answer, Error> {
        let request = match &self.user {
            Some((user, password)) => request.basic_auth(user, Some(password.expose_secret())),
            None => request,
        };
        let request = request.header(ACCEPT, MEDIA_TYPE).header(CONTENT_TYPE, MEDIA_TYPE);
        let away = |why: String| Error::Away { tried: tried.clone(), registry: self.place(), why };
        let mut response = request.send().await.map_err(|error| away(words(&error)))?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| away(words(&error)))? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_ANSWER {
                let why = format!("more than {MAX_ANSWER} bytes");
                return Err(Error::Unreadable { tried, registry: self.place(), why });
            }
        }
        if status.is_server_error() || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT) {
            return Err(away(format!("answered {status}: {}", said(&body))));
        }
        Ok(Answer { tried, status, body })
    }

    /// What an answer of status 200 says; any other is a refusal.
    fn parsed<T: DeserializeOwned>(&self, answer: &Answer) -> Result<T, Error> {
        let Answer { tried, status, body } = answer;
        if !status.is_success() {
            let remedy = match *status {
                StatusCode::UNAUTHORIZED => "check registry.user and registry.password",
                StatusCode::FORBIDDEN => "the user of registry.user needs the right to read and write our subjects",
                StatusCode::NOT_FOUND => "check the path of registry.url",
                _ => "see the registry's own log",
            };
            let (tried, status, said) = (tried.clone(), status.as_u16(), said(body));
            return Err(Error::Refused { tried, registry: self.place(), status, said, remedy });
        }
        serde_json::from_slice(body).map_err(|error| Error::Unreadable {
            tried: tried.clone(),
            registry: self.place(),
            why: format!("{error}: {}", cut(&String::from_utf8_lossy(body))),
        })
    }
}

#[derive(Deserialize)]
struct Id {
    id: u32,
}

/// The words of a refusal with its code, or whatever was sent in their place.
fn said(body: &[u8]) -> String {
    match serde_json::from_slice::<Refusal>(body) {
        Ok(Refusal { error_code: Some(code), message: Some(message) }) => cut(&format!("{code} {message}")),
        Ok(Refusal { message: Some(message), .. }) => cut(&message),
        _ if body.is_empty() => "(nothing)".to_owned(),
        _ => cut(&String::from_utf8_lossy(body)),
    }
}

/// A local registry is not asked for through a proxy.
fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// An error with its causes.
fn words(error: &reqwest::Error) -> String {
    let mut words = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        words = format!("{words}: {error}");
        cause = error.source();
    }
    words
}
