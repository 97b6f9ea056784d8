//! The reads of a schema registry (Confluent's REST interface), answered from what is compiled in: a stock deserialiser
//! pointed here decodes every topic, with no registry to run.
//!
//! It asks for no key: schemas are no secret, and stock clients send basic auth or nothing, never our header. It writes
//! nothing; a schema is published by a release.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use events::Registry;
use events::registry::Published;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::problem::Foreign;

/// What registries speak.
const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/vnd.schemaregistry.v1+json");

/// The rule that published versions follow.
const COMPATIBILITY: &str = "FULL_TRANSITIVE";

/// No schema that somebody asks after is larger, in bytes.
const MAX_BODY: usize = 256 * 1024;

/// All calls.
pub(super) fn router() -> Router {
    Router::new()
        .route("/schemas/ids/{id}", get(by_id))
        .route("/schemas/ids/{id}/schema", get(text_by_id))
        .route("/schemas/ids/{id}/versions", get(versions_of_id))
        .route("/schemas/ids/{id}/subjects", get(subjects_of_id))
        .route("/schemas/types", get(|| async { answer(&json!(["AVRO"])) }))
        .route("/subjects", get(subjects))
        .route("/subjects/{subject}", post(look_up))
        .route("/subjects/{subject}/versions", get(versions).post(register))
        .route("/subjects/{subject}/versions/{version}", get(version))
        .route("/subjects/{subject}/versions/{version}/schema", get(text_of_version))
        .route("/config", get(|| async { answer(&json!({ "compatibilityLevel": COMPATIBILITY })) }))
        .route("/config/{subject}", get(config))
        .method_not_allowed_fallback(|| async { Refusal::ReadOnly })
}

/// Refusals, with the codes that registries give them.
#[derive(Debug, Clone, Copy)]
enum Refusal {
    NoSubject,
    NoVersion,
    NoSchema,
    InvalidSchema,
    InvalidVersion,
    ReadOnly,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, code, message) = match self {
            Self::NoSubject => (StatusCode::NOT_FOUND, 40401, "Subject not found; GET /subjects names all"),
            Self::NoVersion => (StatusCode::NOT_FOUND, 40402, "Version not found"),
            Self::NoSchema => (StatusCode::NOT_FOUND, 40403, "Schema not found"),
            Self::InvalidSchema => {
                (StatusCode::UNPROCESSABLE_ENTITY, 42201, "Invalid schema: expected {\"schema\": \"…\"}")
            }
            Self::InvalidVersion => {
                (StatusCode::UNPROCESSABLE_ENTITY, 42202, "The version is neither a number from 1 on nor `latest`")
            }
            Self::ReadOnly => (
                StatusCode::UNPROCESSABLE_ENTITY,
                42205,
                "This registry is read-only: schemas are published by a release. Set auto.register.schemas=false, or \
                 register other schemas in a registry of your own",
            ),
        };
        let mut response = answer(&json!({ "error_code": code, "message": message }));
        *response.status_mut() = status;
        response.extensions_mut().insert(Foreign);
        response
    }
}

fn answer(body: &Value) -> Response {
    let mut response = Response::new(Body::from(body.to_string()));
    response.headers_mut().insert(CONTENT_TYPE, MEDIA_TYPE);
    response
}

/// A schema as its own JSON, not as text within JSON.
fn text(published: &'static Published) -> Response {
    let mut response = Response::new(Body::from(published.text.as_str()));
    response.headers_mut().insert(CONTENT_TYPE, MEDIA_TYPE);
    response
}

/// One version as the calls of subjects show it.
fn shown(published: &Published) -> Response {
    answer(&json!({
        "subject": published.subject,
        "version": published.version,
        "id": events::written_id(published),
        "schema": published.text,
    }))
}

/// The schema whose id stands in a frame, also when a registry gave it.
fn find_id(id: &str) -> Result<&'static Published, Refusal> {
    id.parse().ok().and_then(events::published).ok_or(Refusal::NoSchema)
}

fn find_version(subject: &str, version: &str) -> Result<&'static Published, Refusal> {
    let registry = Registry::built_in();
    let latest = registry.latest(subject).ok_or(Refusal::NoSubject)?;
    match version.parse::<i64>() {
        Ok(-1) => Ok(latest),
        Ok(number @ 1..) => {
            u32::try_from(number).ok().and_then(|number| registry.version(subject, number)).ok_or(Refusal::NoVersion)
        }
        Err(_) if version == "latest" => Ok(latest),
        Ok(_) | Err(_) => Err(Refusal::InvalidVersion),
    }
}

async fn by_id(Path(id): Path<String>) -> Result<Response, Refusal> {
    Ok(answer(&json!({ "schema": find_id(&id)?.text })))
}

async fn text_by_id(Path(id): Path<String>) -> Result<Response, Refusal> {
    find_id(&id).map(text)
}

async fn versions_of_id(Path(id): Path<String>) -> Result<Response, Refusal> {
    let published = find_id(&id)?;
    Ok(answer(&json!([{ "subject": published.subject, "version": published.version }])))
}

async fn subjects_of_id(Path(id): Path<String>) -> Result<Response, Refusal> {
    Ok(answer(&json!([find_id(&id)?.subject])))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Subjects {
    #[serde(default)]
    subject_prefix: String,
}

async fn subjects(Query(asked): Query<Subjects>) -> Response {
    // Clients ask with the prefix of the default context for "any".
    let prefix = asked.subject_prefix.trim_start_matches(":*:");
    let subjects: Vec<&str> = Registry::built_in().subjects().filter(|subject| subject.starts_with(prefix)).collect();
    answer(&json!(subjects))
}

async fn versions(Path(subject): Path<String>) -> Result<Response, Refusal> {
    let versions = Registry::built_in().versions(&subject).ok_or(Refusal::NoSubject)?;
    Ok(answer(&json!(versions.map(|published| published.version).collect::<Vec<_>>())))
}

async fn version(Path((subject, version)): Path<(String, String)>) -> Result<Response, Refusal> {
    find_version(&subject, &version).map(shown)
}

async fn text_of_version(Path((subject, version)): Path<(String, String)>) -> Result<Response, Refusal> {
    find_version(&subject, &version).map(text)
}

async fn config(Path(subject): Path<String>) -> Result<Response, Refusal> {
    match Registry::built_in().latest(&subject) {
        Some(_) => Ok(answer(&json!({ "compatibilityLevel": COMPATIBILITY }))),
        None => Err(Refusal::NoSubject),
    }
}

/// Which version of a subject a schema is.
async fn look_up(Path(subject): Path<String>, body: Body) -> Result<Response, Refusal> {
    same(&subject, body).await.map(shown)
}

/// What is published already counts as registered, as stock serialisers want to have it; nothing else is taken.
async fn register(Path(subject): Path<String>, body: Body) -> Result<Response, Refusal> {
    match same(&subject, body).await {
        Ok(published) => Ok(answer(&json!({ "id": events::written_id(published) }))),
        Err(Refusal::NoSubject | Refusal::NoSchema) => Err(Refusal::ReadOnly),
        Err(refusal) => Err(refusal),
    }
}

/// The published version that says what the body's schema says, however it is laid out.
async fn same(subject: &str, body: Body) -> Result<&'static Published, Refusal> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Asked {
        schema: String,
        #[serde(default)]
        schema_type: Option<String>,
    }
    let bytes: Bytes = axum::body::to_bytes(body, MAX_BODY).await.map_err(|_| Refusal::InvalidSchema)?;
    let asked: Asked = serde_json::from_slice(&bytes).map_err(|_| Refusal::InvalidSchema)?;
    let schema: Value = serde_json::from_str(&asked.schema).map_err(|_| Refusal::InvalidSchema)?;
    let mut versions = Registry::built_in().versions(subject).ok_or(Refusal::NoSubject)?;
    if asked.schema_type.is_some_and(|kind| kind != "AVRO") {
        return Err(Refusal::NoSchema);
    }
    let is_same = |published: &&Published| serde_json::from_str::<Value>(&published.text).is_ok_and(|it| it == schema);
    versions.rfind(is_same).ok_or(Refusal::NoSchema)
}

#[cfg(test)]
mod tests {
    use axum::http::Request;
    use events::Record;
    use tower::ServiceExt;

    use super::*;

    async fn ask(method: &str, path: &str, body: &str) -> (StatusCode, Value) {
        let request = Request::builder().method(method).uri(path).body(Body::from(body.to_owned())).unwrap();
        let response = router().oneshot(request).await.unwrap();
        assert!(
            crate::metrics::is_known(path.split('?').next().unwrap()),
            "{path} is not among the routes of the metrics"
        );
        let status = response.status();
        assert_eq!(response.headers()[CONTENT_TYPE], MEDIA_TYPE, "{path}");
        let response = crate::problem::finish(response, path);
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }

    async fn read(path: &str) -> Value {
        let (status, body) = ask("GET", path, "").await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        body
    }

    #[tokio::test]
    async fn every_published_schema_is_found_by_every_call() {
        let subjects = read("/subjects").await;
        for published in Registry::built_in().all() {
            let Published { id, subject, version, text, .. } = published;
            assert!(subjects.as_array().unwrap().contains(&json!(subject)));
            let schema: Value = serde_json::from_str(text).unwrap();
            assert_eq!(read(&format!("/schemas/ids/{id}?subject=anything")).await, json!({ "schema": text }));
            assert_eq!(read(&format!("/schemas/ids/{id}/schema")).await, schema);
            let name = json!([{ "subject": subject, "version": version }]);
            assert_eq!(read(&format!("/schemas/ids/{id}/versions")).await, name);
            assert_eq!(read(&format!("/schemas/ids/{id}/subjects")).await, json!([subject]));
            assert!(read(&format!("/subjects/{subject}/versions")).await.as_array().unwrap().contains(&json!(version)));
            let whole = json!({ "subject": subject, "version": version, "id": id, "schema": text });
            assert_eq!(read(&format!("/subjects/{subject}/versions/{version}")).await, whole);
            assert_eq!(read(&format!("/subjects/{subject}/versions/{version}/schema")).await, schema);
            assert_eq!(read(&format!("/config/{subject}")).await["compatibilityLevel"], COMPATIBILITY);
            // However it is laid out.
            let compact = json!({ "schema": schema.to_string() }).to_string();
            assert_eq!(ask("POST", &format!("/subjects/{subject}"), &compact).await, (StatusCode::OK, whole));
            let registered = ask("POST", &format!("/subjects/{subject}/versions"), &compact).await;
            assert_eq!(registered, (StatusCode::OK, json!({ "id": id })));
        }
        let newest = Registry::built_in().versions_of(Record::GmailJobStatusChanged).next_back().unwrap();
        for latest in ["latest", "-1"] {
            let found = read(&format!("/subjects/{}/versions/{latest}", newest.subject)).await;
            assert_eq!(found["version"], newest.version);
        }
        assert_eq!(read("/subjects?subjectPrefix=mailtide.gmail.Cancel").await, json!(["mailtide.gmail.CancelJob"]));
        assert_eq!(read("/schemas/types").await, json!(["AVRO"]));
        assert_eq!(read("/config").await["compatibilityLevel"], COMPATIBILITY);
    }

    #[tokio::test]
    async fn what_is_not_there_and_what_writes_is_refused_as_registries_do() {
        let subject = "/subjects/mailtide.gmail.CancelJob";
        let other = json!({ "schema": "\"string\"" }).to_string();
        for (method, path, body, status, code) in [
            ("GET", "/schemas/ids/7", "", 404, 40403),
            ("GET", "/schemas/ids/x/schema", "", 404, 40403),
            ("GET", "/subjects/nobody/versions", "", 404, 40401),
            ("GET", "/subjects/nobody/versions/1", "", 404, 40401),
            ("GET", &format!("{subject}/versions/99"), "", 404, 40402),
            ("GET", &format!("{subject}/versions/0"), "", 422, 42202),
            ("GET", &format!("{subject}/versions/newest"), "", 422, 42202),
            ("GET", "/config/nobody", "", 404, 40401),
            ("POST", "/subjects/nobody", &other, 404, 40401),
            ("POST", subject, &other, 404, 40403),
            ("POST", subject, "no JSON", 422, 42201),
            ("POST", &format!("{subject}/versions"), &other, 422, 42205),
            ("POST", "/subjects/nobody/versions", &other, 422, 42205),
            ("DELETE", subject, "", 422, 42205),
            ("DELETE", &format!("{subject}/versions/1"), "", 422, 42205),
            ("PUT", "/config", r#"{"compatibility":"NONE"}"#, 422, 42205),
        ] {
            let (answered, said) = ask(method, path, body).await;
            assert_eq!(
                (answered.as_u16(), said["error_code"].as_i64()),
                (status, Some(code)),
                "{method} {path}: {said}"
            );
            assert!(said["message"].as_str().is_some_and(|message| !message.is_empty()));
        }
    }
}
