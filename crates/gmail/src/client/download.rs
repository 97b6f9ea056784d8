//! Reading what is in one file of a mail, as it comes, never as a whole.
//!
//! Attachment ids are good for a while only, so the message is read anew and its part found by its place in the tree.
//! Both calls are one admission: who begins a download has the budget to end it.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use domain::mailbox::reply::CallError;
use domain::{Attachment, Lane, MessageId, TokenVersion};
use http::StatusCode;
use http::header::AUTHORIZATION;
use runtime::trace::Parent;
use tokio::time::{Instant, timeout_at};
use url::Url;

use super::base64_json::{self, Contents};
use super::{Client, Inner, Mailbox, bearer, fail, not_admitted, now, outcome};
use crate::gate::{Admission, Permit};
use crate::message::{self, View};
use crate::tariff::Method;
use crate::token::Access;
use crate::transport::{self, Failure};
use crate::verdict::{self, Refusal, Verdict};
use crate::{metric, trace};

/// An answer that is an error is read up to here.
const LARGEST_REFUSAL: u64 = 64 << 10;

/// How a file is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Asking {
    /// The priority.
    pub lane: Lane,
    /// When nobody waits any more for the beginning of it.
    pub deadline: Instant,
    /// The oldest refresh token that may still be used.
    pub token_version: TokenVersion,
}

/// A file on its way from Gmail.
pub struct Download {
    /// What the mail says of it.
    pub file: Attachment,
    source: Source,
    contents: Contents,
    /// How long Gmail may be silent.
    patience: Duration,
    _permit: Permit,
}

/// Where the rest of it comes from.
enum Source {
    Gmail(reqwest::Response),
    /// The message itself had it; none: it is given.
    Message(Option<Bytes>),
}

impl std::fmt::Debug for Download {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Download").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Download {
    /// The next bytes of it, none at its end. As much as came at once and not more, so that whoever reads slowly makes
    /// Gmail send slowly.
    ///
    /// # Errors
    /// [`CallError::Transient`] when Gmail's answer breaks off, falls silent for as long as a call may take, or is not
    /// what it should be. Nothing comes after it.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, CallError> {
        let response = match &mut self.source {
            Source::Message(rest) => return Ok(rest.take().filter(|bytes| !bytes.is_empty())),
            Source::Gmail(response) => response,
        };
        let mut decoded = BytesMut::new();
        loop {
            let next = tokio::time::timeout(self.patience, response.chunk()).await;
            let next = next.map_err(|_| transient(format!("Gmail was silent for {:?}", self.patience)))?;
            let Some(chunk) = next.map_err(|error| transient(transport::broke_off(&error).to_string()))? else {
                return match self.contents.end() {
                    // A file that is not empty has contents.
                    Ok(0) if self.file.size > 0 => Err(transient("Gmail gave nothing of a file".to_owned())),
                    Ok(_) => Ok(None),
                    Err(error) => Err(transient(error.to_string())),
                };
            };
            self.contents.read(&chunk, &mut decoded).map_err(|error| transient(error.to_string()))?;
            if !decoded.is_empty() {
                return Ok(Some(decoded.freeze()));
            }
        }
    }
}

impl Client {
    /// Begins to read the file of a message at a part id as [`Attachment::part_id`] spells it; none when the message
    /// has no such file. It costs two reads of a message, whether the first finds the file or not.
    ///
    /// # Errors
    /// [`CallError::NotFound`] when there is no such message, and otherwise as [`Client::call`]. [`CallError::Throttled`]
    /// also when the budget does not have the two reads before the deadline.
    pub async fn download(
        &self,
        mailbox: Mailbox,
        message: &MessageId,
        part_id: &str,
        asking: &Asking,
    ) -> Result<Option<Download>, CallError> {
        let began = Instant::now();
        let span = trace::of(Method::AttachmentsGet, mailbox, Parent::Current);
        span.set("mailtide.gmail.lane", asking.lane.as_str());
        let result = span.scope(self.inner.download(mailbox, message, part_id, asking));
        let late = |_| Err(transient("The deadline passed before the file began to come".to_owned()));
        let result = timeout_at(asking.deadline, result).await.unwrap_or_else(late);
        if result.is_err() {
            span.fail(outcome(&result));
        }
        metric::called(Method::AttachmentsGet, outcome(&result), began.elapsed());
        result
    }
}

impl Inner {
    async fn download(
        &self,
        mailbox: Mailbox,
        id: &MessageId,
        part_id: &str,
        asking: &Asking,
    ) -> Result<Option<Download>, CallError> {
        let mut access = self.tokens.access(mailbox, asking.token_version).await?;
        let admission = Admission {
            account: &access.account,
            connection: Some(mailbox.connection_id),
            shares: access.shares,
            lane: asking.lane,
            units: self.tariff.price(Method::MessagesGet) + self.tariff.price(Method::AttachmentsGet),
            // One after the other.
            parts: 1,
            deadline: asking.deadline,
        };
        let mut permit = trace::admitted(self.gate.admit(admission)).await.map_err(not_admitted)?;
        let id = id.to_string();
        let with_view = async |access: &mut Arc<Access>, view: View| {
            let mut url = self.resource(&["messages", &id]);
            url.set_query(Some(view.query()));
            let response = self.get(mailbox, access, Method::MessagesGet, url, asking).await?;
            let body = transport::rest(response, self.max_body).await.map_err(|failure| match failure {
                Failure::TooLarge { .. } => CallError::Broken { detail: failure.to_string() },
                _ => transient(failure.to_string()),
            })?;
            message::read(&body)
        };
        let message = with_view(&mut access, View::Full).await?;
        let Some((file, part)) = message.file(part_id) else { return Ok(None) };
        let source = match &part.attachment_id {
            Some(attachment) => {
                let mut url = self.resource(&["messages", &id, "attachments", attachment]);
                url.set_query(Some("fields=data&prettyPrint=false"));
                let got = self.get(mailbox, &mut access, Method::AttachmentsGet, url, asking).await;
                Source::Gmail(got.map_err(|error| match error {
                    // The message was there a moment ago: what is not found is the id that it gave.
                    CallError::NotFound => transient("Gmail does not know the attachment it named".to_owned()),
                    CallError::Permanent { code, .. } if code == "Gmail.InvalidRequest" => {
                        transient("Gmail does not take the attachment's id it gave".to_owned())
                    }
                    other => other,
                })?)
            }
            None if part.size > 0 => {
                let message = with_view(&mut access, View::Contents).await?;
                let data = message.file(part_id).and_then(|(_, part)| part.data.as_deref());
                let data = data.ok_or_else(|| transient("Gmail gave nothing of a file".to_owned()))?;
                let decoded = base64_json::decode(data).map_err(|error| transient(error.to_string()))?;
                Source::Message(Some(decoded))
            }
            None => Source::Message(None),
        };
        // However long the file takes to its caller, others may spend what grows meanwhile.
        permit.charged();
        let (contents, patience) = (Contents::default(), self.call_timeout);
        Ok(Some(Download { file, source, contents, patience, _permit: permit }))
    }

    fn resource(&self, path: &[&str]) -> Url {
        let mut url = self.api_url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["gmail", "v1", "users", "me"]).extend(path);
        }
        url
    }

    /// A GET up to the head of its answer, under a permit that the caller holds; once more with another access token
    /// when the first is not taken.
    async fn get(
        &self,
        mailbox: Mailbox,
        access: &mut Arc<Access>,
        method: Method,
        url: Url,
        asking: &Asking,
    ) -> Result<reqwest::Response, CallError> {
        let mut refused = false;
        loop {
            let bearer = bearer(access).ok_or_else(|| transient("a token that no header holds".to_owned()))?;
            let request = self.http(mailbox.connection_id).get(url.clone()).header(AUTHORIZATION, bearer);
            let patience = (Instant::now() + self.call_timeout).min(asking.deadline);
            let response = timeout_at(patience, transport::start(request)).await;
            let response = response.map_err(|_| transient("No answer before the deadline".to_owned()))?;
            let response = response.map_err(|failure| transient(failure.to_string()))?;
            if response.status() == StatusCode::OK {
                return Ok(response);
            }
            let (status, headers) = (response.status(), response.headers().clone());
            let body = transport::rest(response, LARGEST_REFUSAL).await;
            let body = body.map_err(|failure| transient(failure.to_string()))?;
            match verdict::judge(Refusal { method, status, headers: &headers, body: &body, now: now() }) {
                Verdict::Unauthorized if !refused => {
                    refused = true;
                    self.tokens.reject(mailbox, access);
                    *access = self.tokens.access(mailbox, asking.token_version).await?;
                }
                verdict => {
                    if let Verdict::Throttled { reach, until } = &verdict {
                        self.gate.pushed_back(&access.account, *reach, *until);
                    }
                    return Err(fail(verdict, "a token that was just issued"));
                }
            }
        }
    }
}

fn transient(detail: String) -> CallError {
    CallError::Transient { detail }
}
