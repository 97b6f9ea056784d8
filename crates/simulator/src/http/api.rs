//! The methods of the API.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use http::StatusCode;

use super::asked::{Asked, answer};
use super::history;
use super::params::{Params, message_id};
use super::render::{self, Attachments, Format, Taken};
use crate::error::ApiError;
use crate::fields;
use crate::json::Writer;
use crate::label::{self, SYSTEM};
use crate::mailbox::history::{Kind, View, Walk};
use crate::mailbox::listing::Listing;
use crate::query::{self, Query, Subject};
use crate::quota::Method;
use crate::seed::mix;
use crate::world::World;

/// What every handler is given.
pub(crate) type Shared = State<Arc<World>>;

/// GET profile
pub(crate) async fn profile(world: Shared, Path(user): Path<String>, asked: Asked) -> Response {
    answer(&world, Method::GetProfile, &user, &asked, |call| {
        let mask = call.params.mask(&fields::PROFILE)?;
        let mailbox = call.account.mailbox();
        let mut writer = Writer::new(256, call.params.pretty(), &mask);
        writer.object(|o| {
            o.text_field("emailAddress", &call.account.email);
            o.int_field("messagesTotal", mailbox.messages_total());
            o.int_field("threadsTotal", mailbox.threads_total());
            o.long_field("historyId", mailbox.head().saturating_sub(call.head_behind));
        });
        Ok(writer.finish())
    })
    .await
}

/// GET history
pub(crate) async fn history(world: Shared, Path(user): Path<String>, asked: Asked) -> Response {
    answer(&world, Method::ListHistory, &user, &asked, |call| {
        let params = &call.params;
        let mask = params.mask(&fields::HISTORY_LIST)?;
        let after = params.page_token()?;
        let max = params.max_results()?;
        let start = start_history_id(params)?;
        let kinds = history_kinds(params)?;
        let mailbox = call.account.mailbox();
        let label = match params.last("labelId").filter(|text| !text.is_empty()) {
            Some(text) => Some(mailbox.labels.find(text).ok_or_else(|| invalid_label(text))?),
            None => None,
        };
        let view = View {
            now_ms: call.now_ms,
            lag_ms: call.behaviour.history_lag_ms,
            retention_ms: call.behaviour.history_retention_ms,
            ahead: call.behaviour.ahead,
        };
        let walk = Walk { start, kinds, label, bare: call.behaviour.bare_records, max, after, view };
        let mut page = mailbox.history(&walk).map_err(|_| ApiError::not_found())?;
        page.head = page.head.saturating_sub(call.head_behind);
        let is_poisoned = |id: u64| call.poisoned.contains(&id);
        let mut named = page.records.iter().flat_map(|record| mailbox.wanted_changes(&walk, record.clone()));
        if !call.poisoned.is_empty() && named.any(|change| is_poisoned(mailbox.message(change.message).id)) {
            return Err(ApiError::backend(StatusCode::INTERNAL_SERVER_ERROR));
        }
        let mut writer = Writer::new(256 + page.records.len() * 192, params.pretty(), &mask);
        history::write(&mut writer, &mailbox, &walk, &page, !call.behaviour.history_without_labels);
        Ok(writer.finish())
    })
    .await
}

/// GET messages
pub(crate) async fn messages(world: Shared, Path(user): Path<String>, asked: Asked) -> Response {
    answer(&world, Method::ListMessages, &user, &asked, |call| {
        let params = &call.params;
        let mask = params.mask(&fields::MESSAGE_LIST)?;
        if call.scopes.has_metadata() && params.last("q").is_some() {
            return Err(ApiError::forbidden("Metadata scope does not support 'q' parameter"));
        }
        let offset = params.page_token()?.unwrap_or(0);
        let max = params.max_results()?;
        let with_spam_and_trash = params.flag("includeSpamTrash", "include_spam_trash")?;
        let text = params.last("q").unwrap_or_default();
        let mut mailbox = call.account.mailbox_mut();
        let query = match text.trim() {
            "" => Query::everything(),
            text => query::parse(text, &mailbox.labels, call.now_ms),
        };
        if !query.unknown.is_empty() {
            // What was searched for may be private; what is not understood of it is not.
            tracing::error!(
                unknown = ?query.unknown,
                "The simulator does not understand a part of this search, so it matches nothing"
            );
        }
        let mut labels = Vec::new();
        for id in params.all("labelIds").filter(|id| !id.is_empty()) {
            labels.push(mailbox.labels.find(id).ok_or_else(|| invalid_label(id))?);
        }
        let hidden = if with_spam_and_trash || query.asks_for_spam_or_trash() { 0 } else { label::SPAM | label::TRASH };
        let indexed = call.now_ms.saturating_sub(call.behaviour.index_lag_ms);
        let lags = call.behaviour.index_lag_ms > 0;
        // Relative dates move with the clock, and what lags appears without a change: such pages are not resumed.
        let resumable = !lags && !text.contains("_than");
        let key = labels.iter().fold(hash(text) ^ u64::from(hidden), |key, label| mix(key ^ label_number(*label)));
        let listing = Listing { dates: query.dates(), key: if resumable { key | 1 } else { 0 }, offset, max };
        let email = Arc::clone(&call.account.email);
        let page = mailbox.list(&listing, |mailbox, message| {
            !message.labels.has_any(hidden)
                && (!lags || message.added_ms <= indexed)
                && labels.iter().all(|&label| mailbox.labels.contains(message.labels, label))
                && query.matches(&Subject {
                    internal_ms: message.internal_ms,
                    labels: message.labels,
                    table: &mailbox.labels,
                    mail: &|| render::mail_of(mailbox, message, &email),
                })
        });
        let mut writer = Writer::new(128 + page.messages.len() * 96, params.pretty(), &mask);
        writer.object(|o| {
            if !page.messages.is_empty() {
                o.field("messages", |w| {
                    w.array(&page.messages, |w, &index| {
                        render::write_reference(w, &mailbox, mailbox.message(index));
                    });
                });
            }
            if let Some(next) = page.next {
                o.long_field("nextPageToken", next);
            }
            o.int_field("resultSizeEstimate", u32::try_from(page.estimate).unwrap_or(u32::MAX));
        });
        Ok(writer.finish())
    })
    .await
}

/// GET messages/{id}
pub(crate) async fn message(world: Shared, Path((user, id)): Path<(String, String)>, asked: Asked) -> Response {
    answer(&world, Method::GetMessage, &user, &asked, |call| {
        let params = &call.params;
        let mask = params.mask(&fields::MESSAGE)?;
        let format = format(params)?;
        if call.scopes.has_metadata() && matches!(format, Format::Full | Format::Raw) {
            let name = if format == Format::Full { "FULL" } else { "RAW" };
            return Err(ApiError::forbidden(format!("Metadata scope doesn't allow format {name}")));
        }
        let id = message_id(&id)?;
        if call.poisoned.contains(&id) {
            return Err(ApiError::backend(StatusCode::INTERNAL_SERVER_ERROR));
        }
        if call.unreadable.contains(&id) {
            return Err(ApiError::not_found());
        }
        let taken = {
            let mailbox = call.account.mailbox();
            let message = mailbox.find(id).map(|index| mailbox.message(index));
            let readable = call.now_ms.saturating_sub(call.behaviour.get_lag_ms);
            let message = message.filter(|message| call.behaviour.get_lag_ms <= 0 || message.added_ms <= readable);
            Taken::new(&mailbox, message.ok_or_else(ApiError::not_found)?, &call.account.email)
        };
        let headers: Vec<&str> = params.all("metadataHeaders").collect();
        let mut writer = Writer::new(4_096, params.pretty(), &mask);
        taken.write(&mut writer, format, &headers, mix(call.seed ^ call.now_ms.cast_unsigned()));
        Ok(writer.finish())
    })
    .await
}

/// GET messages/{messageId}/attachments/{id}
pub(crate) async fn attachment(
    world: Shared,
    Path((user, _message, id)): Path<(String, String, String)>,
    asked: Asked,
) -> Response {
    answer(&world, Method::GetAttachment, &user, &asked, |call| {
        let mask = call.params.mask(&fields::ATTACHMENT)?;
        // The attachment's id alone says which it is; the path's message id is not looked at.
        let (message, part) =
            Attachments::parse(&id).ok_or_else(|| ApiError::invalid_argument("Invalid attachment token"))?;
        let mail = {
            let mailbox = call.account.mailbox();
            let index = mailbox.find(message).ok_or_else(ApiError::not_found)?;
            render::mail_of(&mailbox, mailbox.message(index), &call.account.email)
        };
        let part = mail.root().at(&part).ok_or_else(ApiError::not_found)?;
        let mut writer = Writer::new(part.body.len() * 4 / 3 + 64, call.params.pretty(), &mask);
        writer.object(|o| {
            o.int_field("size", i32::try_from(part.body.len()).unwrap_or(i32::MAX));
            o.bytes_field("data", &part.body);
        });
        Ok(writer.finish())
    })
    .await
}

/// GET labels
pub(crate) async fn labels(world: Shared, Path(user): Path<String>, asked: Asked) -> Response {
    answer(&world, Method::ListLabels, &user, &asked, |call| {
        let mask = call.params.mask(&fields::LABEL_LIST)?;
        let mailbox = call.account.mailbox();
        let system = SYSTEM.iter().map(|id| ((*id).to_owned(), *id, "system"));
        let user = mailbox.labels.user_labels().map(|(id, name)| (id, name, "user"));
        let mut writer = Writer::new(2_048, call.params.pretty(), &mask);
        writer.object(|o| {
            o.field("labels", |w| {
                w.array(system.chain(user), |w, (id, name, kind)| {
                    w.object(|o| {
                        o.text_field("id", &id);
                        o.text_field("name", name);
                        o.text_field("type", kind);
                    });
                });
            });
        });
        Ok(writer.finish())
    })
    .await
}

fn start_history_id(params: &Params<'_>) -> Result<u64, ApiError> {
    match params.last("startHistoryId") {
        None | Some("") => Err(ApiError::invalid_argument("Missing/invalid parameter: startHistoryId")),
        Some(text) => {
            let id = text.parse().map_err(|_| ApiError::invalid_type("start_history_id", "TYPE_UINT64", text))?;
            // Reported as 404 and as 400; a client must not send it either way.
            if id == 0 { Err(ApiError::not_found()) } else { Ok(id) }
        }
    }
}

fn history_kinds(params: &Params<'_>) -> Result<u8, ApiError> {
    const TYPE: &str = "type.googleapis.com/caribou.api.proto.ListHistoryRequest.HistoryType";
    let mut kinds = 0;
    for text in params.all("historyTypes") {
        let kind = Kind::from_parameter(text).ok_or_else(|| ApiError::invalid_type("history_types", TYPE, text))?;
        kinds |= kind.bit();
    }
    Ok(if kinds == 0 { Kind::ALL.iter().fold(0, |all, kind| all | kind.bit()) } else { kinds })
}

fn format(params: &Params<'_>) -> Result<Format, ApiError> {
    match params.last("format").unwrap_or_default() {
        "" | "full" | "FULL" => Ok(Format::Full),
        "metadata" | "METADATA" => Ok(Format::Metadata),
        "minimal" | "MINIMAL" => Ok(Format::Minimal),
        "raw" | "RAW" => Ok(Format::Raw),
        other => Err(ApiError::invalid_type("format", "type.googleapis.com/caribou.api.proto.MessageFormat", other)),
    }
}

fn invalid_label(text: &str) -> ApiError {
    ApiError::invalid_argument(format!("Invalid label: {text}"))
}

fn label_number(label: label::Label) -> u64 {
    match label {
        label::Label::System(bit) => u64::from(bit),
        label::Label::User(index) => (1 << 32) | u64::from(index),
    }
}

fn hash(text: &str) -> u64 {
    text.bytes().fold(0x5eed, |state, byte| mix(state ^ u64::from(byte)))
}
