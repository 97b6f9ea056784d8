//! `GET /gmail-connections/{id}/messages/{messageId}/attachments/{partId}`.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use domain::{ConnectionId, MessageId};
use store::keys::Scope;

use super::document::{File, ProblemDetails};
use super::uuid_of;
use crate::app::App;
use crate::downloads::{Begun, Downloads};
use crate::filename;
use crate::problem::{Code, Problem};

/// Characters of a part id: ten levels of a few digits each.
const LONGEST_PART_ID: usize = 64;

/// Gives what is in a file of a mail.
#[utoipa::path(
    get,
    path = "/gmail-connections/{id}/messages/{messageId}/attachments/{partId}",
    operation_id = "getGmailAttachment",
    tag = "Gmail",
    summary = "Read an attachment",
    description = "The content of one file of a mail, as it comes from Gmail: nothing of it is kept here. Message and part are named as the event `GmailMessageFetched` names them, which lists every file of a mail. The answer has no length beforehand; where Gmail breaks off the connection is cut, so that a part of a file never looks like all of it. Each read costs twice the quota of reading a message, out of the share of the quota that the settings give to this service: what asks faster is answered 503 with the time to wait.\n\nThe type is the sender's, unless it is one that a browser would run or show as a page; then it is `application/octet-stream`. The name in `Content-Disposition` is the sender's without what is dangerous in a file's name.",
    params(
        ("id" = Uuid, Path),
        ("messageId" = String, Path, description = "`messageId` of the event"),
        ("partId" = String, Path, description = "`partId` of one of its `attachments`, such as `1` or `0.2`; `root` where the whole mail is one file"),
    ),
    security(("ApiKey" = [])),
    responses(
        (status = 200, description = "The file", body = File, content_type = "*/*",
            headers(("Content-Disposition" = String, description = "`attachment`, with the file's name"),
                ("X-Content-Type-Options" = String, description = "`nosniff`"))),
        (status = 404, description = "Gmail.ConnectionNotFound — connection does not exist; Gmail.MessageNotFound — the mailbox has no such message, or no more; Gmail.AttachmentNotFound — the message has no such file", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 409, description = "Gmail.ReauthRequired — the mailbox's owner has to consent again; Gmail.Refused — Gmail refuses for good", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 503, description = "Gmail.Throttled — Gmail, or the budget of its quota, takes no more calls for this mailbox just now; Gmail.Unavailable — Gmail does not answer as it should; Server.Overloaded — as many attachments are read as may be; Server.DatabaseUnavailable, Server.TimedOut", body = ProblemDetails, content_type = "application/problem+json",
            headers(("Retry-After" = i32, description = "Seconds to wait before asking again"))),
    ),
)]
pub(super) async fn read(
    State(app): State<Arc<App>>,
    State(downloads): State<Arc<Downloads>>,
    ids: Result<Path<(String, String, String)>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let organisation = app.authenticate(&headers, Scope::Read).await?;
    let Path((id, message, part_id)) = ids.map_err(|_| Code::ConnectionNotFound)?;
    let connection = uuid_of(&id).map(ConnectionId::from_uuid).ok_or(Code::ConnectionNotFound)?;
    // Whose it is comes first: nothing else is said of what belongs to another.
    let token_version = app.connection(organisation, connection).await?.ok_or(Code::ConnectionNotFound)?;
    let message = message_id(&message).ok_or(Code::MessageNotFound)?;
    if !is_part_id(&part_id) {
        return Err(Code::AttachmentNotFound.into());
    }
    let Begun { file, body } = downloads.begin(organisation, (connection, token_version), &message, &part_id).await?;
    let headers = [
        (CONTENT_TYPE, filename::content_type(&file.mime_type)),
        (CONTENT_DISPOSITION, filename::disposition(file.filename.as_deref())),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        // Should a browser show it all the same: nothing in it runs.
        (CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox")),
        (CACHE_CONTROL, HeaderValue::from_static("private, no-store")),
    ];
    Ok((headers, body).into_response())
}

/// An id that Gmail could have given: others it would only refuse.
fn message_id(text: &str) -> Option<MessageId> {
    MessageId::new(text).as_u64().filter(|id| *id < 1 << 63).map(MessageId::from_u64)
}

/// Whether this is a place in a tree of parts, as the events spell it.
fn is_part_id(text: &str) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    text == "root" || text.len() <= LONGEST_PART_ID && text.split('.').all(is_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_gmail_could_have_named_is_asked_for() {
        for part_id in ["0", "1", "0.2", "12.0.3", "root"] {
            assert!(is_part_id(part_id), "{part_id}");
        }
        for other in ["", ".", "1.", "a", "1/2", "-1", "1..2", " 1", "Root", &"1.".repeat(60)] {
            assert!(!is_part_id(other), "{other}");
        }
        assert_eq!(message_id("18d1c0ffee001234"), Some(MessageId::new("18d1c0ffee001234")));
        for other in ["", "18D1", "018d1", "../profile", "8000000000000000", "xyz"] {
            assert_eq!(message_id(other), None, "{other}");
        }
    }
}
