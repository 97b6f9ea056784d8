//! The API's own description: OpenAPI 3.1, generated from the handlers, committed as `openapi.json`, and served.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName};
use axum::response::Response;
use std::sync::Arc;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, SchemaType, Type};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, SecurityScheme};
use utoipa::openapi::{Content, Ref, RefOr, Required, ResponseBuilder, Schema, Server};
use utoipa::{IntoParams, OpenApi, PartialSchema, ToSchema};

use crate::reference::Reference;

/// What a refusal or failure looks like (RFC 9457), with the schema that the API's owner published for it.
pub(super) struct ProblemDetails;

impl PartialSchema for ProblemDetails {
    fn schema() -> RefOr<Schema> {
        let text = || ObjectBuilder::new().schema_type(SchemaType::Array(vec![Type::Null, Type::String]));
        let status = ObjectBuilder::new()
            .schema_type(SchemaType::Array(vec![Type::Null, Type::Integer, Type::String]))
            .pattern(Some(r"^-?(?:0|[1-9]\d*)$"))
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int32)));
        ObjectBuilder::new()
            .property("type", text())
            .property("title", text())
            .property("status", status)
            .property("detail", text())
            .property("instance", text())
            .into()
    }
}

impl ToSchema for ProblemDetails {}

/// The answer to a request that started a job, with the schema that the API's owner published for it.
pub(super) struct SyncStartedResponse;

impl PartialSchema for SyncStartedResponse {
    fn schema() -> RefOr<Schema> {
        let id =
            ObjectBuilder::new().schema_type(Type::String).format(Some(SchemaFormat::KnownFormat(KnownFormat::Uuid)));
        ObjectBuilder::new().required("jobId").property("jobId", id).into()
    }
}

impl ToSchema for SyncStartedResponse {}

/// What is in a file: bytes of any type, which no schema describes.
pub(super) struct File;

impl PartialSchema for File {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(SchemaType::AnyValue)
            .description(Some("Bytes, of the type that the header says"))
            .into()
    }
}

impl ToSchema for File {}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Mailtide",
        description = "Starts syncs of Gmail mailboxes and tells how they fare. Authenticate with the API key of your organisation.",
        version = "v1",
    ),
    paths(
        super::consent::connect, super::consent::callback,
        super::connections::list, super::connections::read, super::connections::change, super::connections::delete,
        super::sync::sync, super::backfill::backfill, super::list::of_connection,
        super::attachments::read, super::list::all, super::jobs::job, super::cancel::cancel, super::stream::events,
        openapi,
    ),
    tags((name = "Gmail", description = "Connected mailboxes"), (name = "Jobs", description = "What was asked for, and how far it is")),
)]
struct Document;

/// The header `Idempotency-Key`, for calls that take it.
pub(super) struct IdempotencyKey;

impl IntoParams for IdempotencyKey {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let key = ObjectBuilder::new()
            .schema_type(Type::String)
            .pattern(Some("^[!-~]+$"))
            .min_length(Some(1))
            .max_length(Some(255));
        let key = ParameterBuilder::new()
            .name("Idempotency-Key")
            .parameter_in(ParameterIn::Header)
            .required(Required::False)
            .description(Some(
                "Names the request: sent again within 24 hours with the same key it is answered the same, and nothing \
                 more comes of it. Another request with the same key is refused.",
            ))
            .schema(Some(key));
        vec![key.build()]
    }
}

/// Refusals and failures that many calls share: name, status, codes.
const SHARED: [(&str, &str, &str); 9] = [
    ("Unauthorized", "401", "Auth.ApiKeyMissing, Auth.ApiKeyInvalid"),
    (
        "Forbidden",
        "403",
        "Auth.ScopeMissing — the key lacks the scope that the call needs: `read` to look, `write` to change",
    ),
    ("BodyTooSlow", "408", "Request.BodyTooSlow"),
    ("BodyTooLarge", "413", "Request.BodyTooLarge"),
    ("MediaTypeUnsupported", "415", "Request.MediaTypeUnsupported"),
    ("IdempotencyKeyReused", "422", "Request.IdempotencyKeyReused — the key was sent before with another request"),
    ("RateLimited", "429", "Request.RateLimited — ask again after Retry-After"),
    ("Internal", "500", "Server.Internal"),
    (
        "Unavailable",
        "503",
        "Server.BrokerUnavailable, Server.DatabaseUnavailable, Server.Overloaded, Server.TimedOut — nothing was promised; ask again after Retry-After",
    ),
];

/// Adds to every call what it shares with others, but for what it says itself.
fn share_responses(document: &mut utoipa::openapi::OpenApi) {
    let components = document.components.get_or_insert_default();
    for (name, status, codes) in SHARED {
        components.responses.insert(name.to_owned(), shared(status, codes).into());
    }
    for item in document.paths.paths.values_mut() {
        let operations = [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch];
        for operation in operations.into_iter().flatten() {
            let has_key = operation.security.is_some();
            let has_body = operation.request_body.is_some() || operation.responses.responses.contains_key("202");
            let is_idempotent = operation.parameters.iter().flatten().any(|parameter| match parameter {
                RefOr::T(parameter) => parameter.name == "Idempotency-Key",
                RefOr::Ref(_) => false,
            });
            for (name, status, _) in SHARED {
                let answers = match status {
                    "401" | "403" | "429" => has_key,
                    "408" | "413" | "415" => has_body,
                    "422" => is_idempotent,
                    _ => true,
                };
                if answers {
                    let response = Ref::from_response_name(name);
                    operation.responses.responses.entry(status.to_owned()).or_insert(RefOr::Ref(response));
                }
            }
        }
    }
}

/// A body that need not have a member need not be sent.
fn let_bodies_be_left_out(document: &mut utoipa::openapi::OpenApi) {
    let schemas = document.components.as_ref().map(|components| components.schemas.clone()).unwrap_or_default();
    let needs_nothing = |content: &RefOr<Content>| {
        let RefOr::T(Content { schema: Some(RefOr::Ref(reference)), .. }) = content else { return false };
        let name = reference.ref_location.rsplit('/').next().unwrap_or_default();
        matches!(schemas.get(name), Some(RefOr::T(Schema::Object(object))) if object.required.is_empty())
    };
    for item in document.paths.paths.values_mut() {
        for operation in [&mut item.post, &mut item.put, &mut item.patch].into_iter().flatten() {
            let Some(RefOr::T(body)) = &mut operation.request_body else { continue };
            if body.content.values().all(needs_nothing) {
                body.required = Some(Required::False);
            }
        }
    }
}

/// A problem document, with the headers that come with its status.
fn shared(status: &str, codes: &str) -> utoipa::openapi::Response {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("ProblemDetails"))).build();
    let header = |schema: ObjectBuilder, description: &str| {
        HeaderBuilder::new().schema(Some(schema)).description(Some(description)).build()
    };
    let response = ResponseBuilder::new().description(codes).content("application/problem+json", content);
    match status {
        "401" => {
            let text = ObjectBuilder::new().schema_type(Type::String);
            response.header("WWW-Authenticate", header(text, "Names the header that carries the key"))
        }
        "429" | "503" => {
            let seconds = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0));
            response.header("Retry-After", header(seconds, "Seconds to wait before asking again"))
        }
        _ => response,
    }
    .build()
}

/// The document, with `header` as the header of the API key.
pub(super) fn document(header: &HeaderName) -> utoipa::openapi::OpenApi {
    let mut document = Document::openapi();
    share_responses(&mut document);
    let_bodies_be_left_out(&mut document);
    super::links::add(&mut document);
    let about = document.info.description.unwrap_or_default();
    document.info.description = Some(format!("{about}\n\n## Codes\n\n{}", super::codes::table()));
    document.servers = Some(vec![Server::new("/")]);
    let key = ApiKeyValue::with_description(header.as_str(), "An API key of your organisation");
    document
        .components
        .get_or_insert_default()
        .add_security_scheme("ApiKey", SecurityScheme::ApiKey(ApiKey::Header(key)));
    document
}

/// Describes this API.
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "getOpenApi",
    summary = "Describe this API",
    responses(
        (status = 200, description = "This document", body = Object,
            headers(("ETag" = String, description = "Names this version of the document, for If-None-Match"))),
        (status = 304, description = "The version that If-None-Match names"),
    ),
)]
pub(super) async fn openapi(State(reference): State<Arc<Reference>>, headers: HeaderMap) -> Response {
    reference.document.answer(&headers)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// So that every call is counted by its name.
    #[test]
    fn every_path_has_its_metrics() {
        let ours = ours();
        let paths: Vec<_> = ours["paths"].as_object().unwrap().keys().map(String::as_str).collect();
        for path in paths {
            assert!(crate::metrics::ROUTES.contains(&path), "{path} is not among the routes of the metrics");
        }
    }

    const COMMITTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");

    fn ours() -> Value {
        serde_json::to_value(document(&HeaderName::from_static("x-dolfin-api-key"))).unwrap()
    }

    /// `UPDATE_GOLDEN=1 cargo test -p ingress` writes it anew.
    #[test]
    fn the_committed_document_is_what_the_handlers_say() {
        let ours = ours();
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(COMMITTED, serde_json::to_string_pretty(&ours).unwrap() + "\n").unwrap();
        }
        let committed: Value = serde_json::from_str(&std::fs::read_to_string(COMMITTED).unwrap()).unwrap();
        assert!(ours == committed, "openapi.json is not what the handlers say; write it anew with UPDATE_GOLDEN=1");
    }

    /// What the API's owner published for this call: every word of it is in our document.
    #[test]
    fn the_published_contract_stands_in_it() {
        let ours = ours();
        assert!(ours["openapi"].as_str().unwrap().starts_with("3.1."));
        let published = json!({
            "tags": ["Gmail"],
            "summary": "Trigger a Gmail sync",
            "description": "Publishes a PollGmailConnection message so the background consumer walks Gmail's history since LastHistoryId (or falls back to a 24-hour catch-up window). Same pipeline runs on the 12-hour scheduler.",
            "parameters": [{"name": "id", "in": "path", "required": true, "schema": {"type": "string", "format": "uuid"}}],
            "responses": {
                "202": {
                    "description": "Accepted",
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/SyncStartedResponse"}}},
                },
                "404": {
                    "description": "Gmail.ConnectionNotFound — connection does not exist",
                    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}},
                },
            },
        });
        // Arrays are compared whole, and the header Idempotency-Key comes after what was published.
        let mut ours = ours;
        ours["paths"]["/gmail-connections/{id}/sync"]["post"]["parameters"].as_array_mut().unwrap().truncate(1);
        assert_within(&published, &ours["paths"]["/gmail-connections/{id}/sync"]["post"], "post");
        let schemas = json!({
            "SyncStartedResponse": {
                "required": ["jobId"],
                "type": "object",
                "properties": {"jobId": {"type": "string", "format": "uuid"}},
            },
            "ProblemDetails": {
                "type": "object",
                "properties": {
                    "type": {"type": ["null", "string"]},
                    "title": {"type": ["null", "string"]},
                    "status": {
                        "pattern": "^-?(?:0|[1-9]\\d*)$",
                        "type": ["null", "integer", "string"],
                        "format": "int32",
                    },
                    "detail": {"type": ["null", "string"]},
                    "instance": {"type": ["null", "string"]},
                },
            },
        });
        for name in ["SyncStartedResponse", "ProblemDetails"] {
            assert_eq!(ours["components"]["schemas"][name], schemas[name], "{name}");
        }
    }

    /// Every member of `part` stands in `whole`; arrays and plain values are equal.
    fn assert_within(part: &Value, whole: &Value, at: &str) {
        match part {
            Value::Object(members) => {
                for (name, value) in members {
                    assert_within(value, &whole[name], &format!("{at}/{name}"));
                }
            }
            _ => assert_eq!(part, whole, "{at}"),
        }
    }
}
