//! `/control`: what [`Control`] does, over HTTP. JSON in and out; errors are `{"error": "…"}`.

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::{HeaderMap, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;

use super::api::Shared;
use crate::control::{Control, Delivery, Error, Mails, NewMailbox};
use crate::faults::Rule;
use crate::grant::Cause;
use crate::quota::{Limits, Tariff};
use crate::settings::Behaviour;
use crate::world::World;

/// Control requests answer with this.
type Answer = Result<Response, Refused>;

/// A control request that could not be done.
struct Refused(StatusCode, String);

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        let status = match &error {
            Error::NoSuchMailbox(_) | Error::NoSuchMessage(_) => StatusCode::NOT_FOUND,
            Error::Exists(_) => StatusCode::CONFLICT,
            Error::Label(_) | Error::Import(_) | Error::Key(_) | Error::NotAnId(_) => StatusCode::BAD_REQUEST,
        };
        Self(status, error.to_string())
    }
}

impl From<serde_json::Error> for Refused {
    fn from(error: serde_json::Error) -> Self {
        Self(StatusCode::BAD_REQUEST, format!("The body is not what this path takes: {error}"))
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}

/// The routes under `/control`.
pub(super) fn router() -> Router<Arc<World>> {
    Router::new()
        .route("/mailboxes", get(list).post(create))
        .route("/mailboxes/{email}/messages", get(messages))
        .route("/mailboxes/{email}/deliver", post(deliver))
        .route("/mailboxes/{email}/drafts", post(save_draft))
        .route("/mailboxes/{email}/drafts/{draft}/send", post(send_draft))
        .route("/mailboxes/{email}/grants", post(grant))
        .route("/mailboxes/{email}/behaviour", get(behaviour_of).patch(set_behaviour_of))
        .route("/mailboxes/{email}/{action}", post(act))
        .route("/usage", get(usage))
        .route("/faults", get(faults).post(add_faults).delete(clear_faults))
        .route("/clients", post(add_client))
        .route("/service-accounts", post(add_service_account))
        .route("/consent", post(set_consent))
        .route("/push", get(push).put(set_push).delete(no_push))
        .route("/clock", get(clock).post(set_clock))
        .route("/behaviour", get(behaviour).patch(set_behaviour))
        .route("/tariff", get(tariff).post(set_tariff))
}

fn control(world: Shared) -> Control {
    Control::new(world.0)
}

fn done(value: impl Serialize) -> Answer {
    Ok(Json(value).into_response())
}

fn body<'de, T: Deserialize<'de>>(bytes: &'de Bytes) -> Result<T, Refused> {
    let bytes: &[u8] = if bytes.is_empty() { b"{}" } else { bytes };
    Ok(serde_json::from_slice(bytes)?)
}

/// Mailboxes by name, or many at once.
#[derive(Deserialize)]
#[serde(untagged)]
enum Create {
    Many(Many),
    One(NewMailbox),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Many {
    /// How many.
    count: usize,
    /// Their addresses, with `{}` where the number (from 0) goes.
    template: String,
    /// Synthetic mails in each, dated now.
    #[serde(default)]
    messages: usize,
    #[serde(default)]
    client_id: Option<String>,
}

async fn create(world: Shared, bytes: Bytes) -> Answer {
    let control = control(world);
    match body(&bytes)? {
        Create::One(new) => done(control.create(&new)?),
        Create::Many(many) => {
            let mut created = Vec::with_capacity(many.count.min(1 << 20));
            for number in 0..many.count {
                let email = many.template.replace("{}", &number.to_string());
                let client_id = many.client_id.clone();
                let mailbox = control.create(&NewMailbox { email, client_id, ..NewMailbox::default() })?;
                control.fill(&mailbox.email, many.messages, &Delivery::default())?;
                created.push(mailbox);
            }
            done(json!({ "mailboxes": created }))
        }
    }
}

async fn list(world: Shared) -> Answer {
    done(json!({ "mailboxes": control(world).mailboxes() }))
}

async fn messages(world: Shared, Path(email): Path<String>) -> Answer {
    done(json!({ "messages": control(world).messages(&email)? }))
}

/// How to deliver: in the query, because the body may be mail.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct How {
    /// Parted by commas.
    labels: Option<String>,
    /// ms since the epoch.
    internal_date: Option<i64>,
    /// ms between one mail and the next.
    #[serde(default)]
    step: i64,
    /// Synthetic mails, when there is no body.
    n: Option<usize>,
    /// Answer with a count instead of the messages.
    #[serde(default)]
    quiet: bool,
}

async fn deliver(
    world: Shared,
    Path(email): Path<String>,
    Query(how): Query<How>,
    head: HeaderMap,
    bytes: Bytes,
) -> Answer {
    let control = control(world);
    let delivery = Delivery {
        labels: how.labels.map(|text| text.split(',').filter(|label| !label.is_empty()).map(str::to_owned).collect()),
        internal_ms: how.internal_date,
        step_ms: how.step,
    };
    let kind = head.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mails = match kind.split(';').next().unwrap_or_default().trim() {
        "message/rfc822" => Mails::Raw(bytes.to_vec()),
        "application/mbox" => Mails::Mbox(bytes.to_vec()),
        _ if bytes.is_empty() => Mails::Synthetic(how.n.unwrap_or(1)),
        other => {
            let message =
                format!("Content type {other:?}: send message/rfc822 or application/mbox, or no body and ?n=");
            return Err(Refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
        }
    };
    if let (true, Mails::Synthetic(n)) = (how.quiet, &mails) {
        control.fill(&email, *n, &delivery)?;
        return done(json!({ "count": n }));
    }
    let delivered = control.deliver(&email, mails, &delivery)?;
    done(if how.quiet { json!({ "count": delivered.len() }) } else { json!({ "messages": delivered }) })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Draft {
    draft_id: Option<String>,
}

async fn save_draft(world: Shared, Path(email): Path<String>, bytes: Bytes) -> Answer {
    let draft: Draft = body(&bytes)?;
    let (id, message) = control(world).save_draft(&email, draft.draft_id.as_deref())?;
    done(json!({ "draftId": id, "message": message }))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Send {
    #[serde(default)]
    to_self: bool,
}

async fn send_draft(world: Shared, Path((email, draft)): Path<(String, String)>, bytes: Bytes) -> Answer {
    let send: Send = body(&bytes)?;
    done(json!({ "message": control(world).send_draft(&email, &draft, send.to_self)? }))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Grant {
    client_id: Option<String>,
    scopes: Option<String>,
    ends_ms: Option<i64>,
}

async fn grant(world: Shared, Path(email): Path<String>, bytes: Bytes) -> Answer {
    let grant: Grant = body(&bytes)?;
    let token = control(world).grant(&email, grant.client_id.as_deref(), grant.scopes.as_deref(), grant.ends_ms)?;
    done(json!({ "refreshToken": token }))
}

/// What an action takes; each looks at its own part.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Act {
    #[serde(default)]
    ids: Vec<String>,
    #[serde(default)]
    add: Vec<String>,
    #[serde(default)]
    remove: Vec<String>,
    cause: Option<Cause>,
}

async fn act(world: Shared, Path((email, action)): Path<(String, String)>, bytes: Bytes) -> Answer {
    let act: Act = body(&bytes)?;
    let control = control(world);
    let text = |list: &'_ [String]| -> Vec<String> { list.to_vec() };
    let (ids, add, remove) = (text(&act.ids), text(&act.add), text(&act.remove));
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    match action.as_str() {
        "trash" => control.trash(&email, &ids)?,
        "untrash" => control.untrash(&email, &ids)?,
        "spam" => control.spam(&email, &ids)?,
        "unspam" => control.unspam(&email, &ids)?,
        "delete" => control.delete(&email, &ids)?,
        "label" => {
            let add: Vec<&str> = add.iter().map(String::as_str).collect();
            let remove: Vec<&str> = remove.iter().map(String::as_str).collect();
            control.relabel(&email, &ids, &add, &remove)?;
        }
        "chat" => {
            let how = Delivery { labels: Some(vec!["CHAT".to_owned()]), ..Delivery::default() };
            return done(json!({ "messages": control.deliver(&email, Mails::Synthetic(1), &how)? }));
        }
        "expire" => control.expire_history(&email)?,
        "revoke" => control.end_grants(&email, act.cause.unwrap_or(Cause::Revoked))?,
        "expire-access-tokens" => control.expire_access_tokens(&email)?,
        other => return Err(Refused(StatusCode::NOT_FOUND, format!("Nothing is called {other:?} here"))),
    }
    done(json!({}))
}

async fn add_client(world: Shared, bytes: Bytes) -> Answer {
    control(world).add_client(body(&bytes)?);
    done(json!({}))
}

async fn add_service_account(world: Shared, bytes: Bytes) -> Answer {
    control(world).add_service_account(body(&bytes)?)?;
    done(json!({}))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Consent {
    auto_approve: bool,
}

async fn set_consent(world: Shared, bytes: Bytes) -> Answer {
    let consent: Consent = body(&bytes)?;
    control(world).set_auto_approve(consent.auto_approve);
    done(json!({}))
}

async fn push(world: Shared) -> Answer {
    done(json!({ "target": control(world).push_target() }))
}

async fn set_push(world: Shared, bytes: Bytes) -> Answer {
    control(world).set_push_target(Some(body(&bytes)?));
    done(json!({}))
}

async fn no_push(world: Shared) -> Answer {
    control(world).set_push_target(None);
    done(json!({}))
}

async fn usage(world: Shared) -> Answer {
    done(control(world).usage())
}

/// One rule or several.
#[derive(Deserialize)]
#[serde(untagged)]
enum Rules {
    Several(Vec<Rule>),
    One(Box<Rule>),
}

async fn faults(world: Shared) -> Answer {
    let rules = control(world).faults();
    let rules: Vec<Value> = rules.iter().map(|(rule, hits)| json!({ "rule": rule, "hits": hits })).collect();
    done(json!({ "faults": rules }))
}

async fn add_faults(world: Shared, bytes: Bytes) -> Answer {
    let control = control(world);
    match body(&bytes)? {
        Rules::Several(rules) => rules.into_iter().for_each(|rule| control.add_fault(rule)),
        Rules::One(rule) => control.add_fault(*rule),
    }
    done(json!({}))
}

async fn clear_faults(world: Shared) -> Answer {
    control(world).clear_faults();
    done(json!({}))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
enum Move {
    /// Stop at this time, ms since the epoch.
    StandAt(i64),
    /// Run on from this time, ms since the epoch.
    RunFrom(i64),
    /// Move by this many ms.
    Advance(i64),
    /// Run with the machine's time again.
    Machine {},
}

async fn clock(State(world): Shared) -> Answer {
    done(json!({ "nowMs": world.clock.now_ms(), "stands": world.clock.stands() }))
}

async fn set_clock(State(world): Shared, bytes: Bytes) -> Answer {
    match body(&bytes)? {
        Move::StandAt(ms) => world.clock.stand_at(ms),
        Move::RunFrom(ms) => world.clock.run_from(ms),
        Move::Advance(ms) => world.clock.advance(ms),
        Move::Machine {} => world.clock.run_from_machine(),
    }
    clock(State(world)).await
}

async fn behaviour(world: Shared) -> Answer {
    done(control(world).behaviour(None)?)
}

async fn behaviour_of(world: Shared, Path(email): Path<String>) -> Answer {
    done(control(world).behaviour(Some(&email))?)
}

async fn set_behaviour(world: Shared, bytes: Bytes) -> Answer {
    patch_behaviour(&control(world), None, &bytes)
}

async fn set_behaviour_of(world: Shared, Path(email): Path<String>, bytes: Bytes) -> Answer {
    patch_behaviour(&control(world), Some(&email), &bytes)
}

/// Changes the members that the body names, and no others.
fn patch_behaviour(control: &Control, email: Option<&str>, bytes: &Bytes) -> Answer {
    let changes: serde_json::Map<String, Value> = body(bytes)?;
    let mut merged = serde_json::to_value(control.behaviour(email)?)?;
    if let Value::Object(members) = &mut merged {
        members.extend(changes);
    }
    let behaviour: Behaviour = serde_json::from_value(merged)?;
    control.set_behaviour(email, behaviour.clone())?;
    done(behaviour)
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Prices {
    tariff: Tariff,
    /// The tariff's own, when absent.
    limits: Option<Limits>,
}

async fn tariff(world: Shared) -> Answer {
    let (tariff, limits) = control(world).tariff();
    done(Prices { tariff, limits: Some(limits) })
}

async fn set_tariff(world: Shared, bytes: Bytes) -> Answer {
    let prices: Prices = body(&bytes)?;
    control(world).set_tariff(prices.tariff, prices.limits.unwrap_or_else(|| prices.tariff.limits()));
    done(json!({}))
}
