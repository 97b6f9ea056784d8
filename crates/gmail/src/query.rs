//! The requests, as paths and query strings.

use domain::Window;
use domain::mailbox::reply::{PageToken, Request};
use url::Url;

use crate::tariff::Method;

/// The most records that Gmail puts on a page (discovery document).
const MAX_PAGE: u16 = 500;

pub(crate) const fn method(request: &Request) -> Method {
    match request {
        Request::Profile => Method::Profile,
        Request::History { .. } => Method::HistoryList,
        Request::List { .. } => Method::MessagesList,
        Request::Watch => Method::Watch,
        Request::Stop => Method::Stop,
    }
}

/// The address of a request. Field masks leave out what nobody reads: half of a history page repeats the other half.
pub(crate) fn url(base: &Url, request: &Request) -> Url {
    let mut url = base.clone();
    let (path, fields) = match request {
        Request::Profile => ("profile", "historyId"),
        Request::History { .. } => {
            ("history", "history(id,messagesAdded,labelsAdded,labelsRemoved),nextPageToken,historyId")
        }
        Request::List { .. } => ("messages", "messages(id,threadId),nextPageToken"),
        Request::Watch => ("watch", "expiration"),
        Request::Stop => ("stop", ""),
    };
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().extend(["gmail", "v1", "users", "me", path]);
    }
    let mut query = url.query_pairs_mut();
    match request {
        Request::Profile | Request::Watch | Request::Stop => {}
        Request::History { start, token, max } => {
            query.append_pair("startHistoryId", &start.to_string());
            // No label filter: mail that a rule archives carries none of the labels one would ask for.
            for kind in ["messageAdded", "labelAdded", "labelRemoved"] {
                query.append_pair("historyTypes", kind);
            }
            page(&mut query, token.as_ref(), *max);
        }
        Request::List { window, held_only, token, max } => {
            query.append_pair("q", &search(*window, *held_only));
            query.append_pair("includeSpamTrash", "true");
            page(&mut query, token.as_ref(), *max);
        }
    }
    if !fields.is_empty() {
        query.append_pair("fields", fields);
    }
    query.append_pair("prettyPrint", "false");
    drop(query);
    url
}

/// The body of a request; none where the method is GET. `topic` is the Pub/Sub topic that pushes go to.
pub(crate) fn body(request: &Request, topic: &str) -> Option<String> {
    match request {
        Request::Profile | Request::History { .. } | Request::List { .. } => None,
        // No label filter: what a filter leaves out of the pushes is found late.
        Request::Watch => Some(serde_json::json!({ "topicName": topic }).to_string()),
        Request::Stop => Some(String::new()),
    }
}

fn page(query: &mut url::form_urlencoded::Serializer<'_, url::UrlQuery<'_>>, token: Option<&PageToken>, max: u16) {
    query.append_pair("maxResults", &max.clamp(1, MAX_PAGE).to_string());
    if let Some(PageToken(token)) = token {
        query.append_pair("pageToken", token);
    }
}

/// Gmail takes whole seconds since the epoch, from 1 on; other forms match nothing and say nothing, or mean Pacific
/// midnights.
fn search(window: Window, held_only: bool) -> String {
    let after = window.since.floor_seconds().max(1);
    let before = window.until.ceil_seconds().max(1);
    let held = if held_only { " {in:spam in:trash}" } else { "" };
    format!("after:{after} before:{before} -in:drafts -in:chats{held}")
}

#[cfg(test)]
mod tests {
    use domain::{HistoryId, Timestamp};

    use super::*;

    fn text(base: &str, request: &Request) -> String {
        url(&base.parse().unwrap(), request).to_string()
    }

    #[test]
    fn a_history_request_names_its_start_and_its_types() {
        let start = HistoryId::new(u64::MAX);
        let request = Request::History { start, token: Some(PageToken("1 2".to_owned())), max: 900 };
        assert_eq!(
            text("https://gmail.googleapis.com/", &request),
            "https://gmail.googleapis.com/gmail/v1/users/me/history?startHistoryId=18446744073709551615\
             &historyTypes=messageAdded&historyTypes=labelAdded&historyTypes=labelRemoved&maxResults=500&pageToken=1+2\
             &fields=history%28id%2CmessagesAdded%2ClabelsAdded%2ClabelsRemoved%29%2CnextPageToken%2ChistoryId\
             &prettyPrint=false"
        );
    }

    #[test]
    fn a_listing_covers_its_window_in_whole_seconds() {
        let window = Window { since: Timestamp::from_millis(1_999), until: Timestamp::from_millis(2_001) };
        let held = search(window, true);
        assert_eq!(held, "after:1 before:3 -in:drafts -in:chats {in:spam in:trash}");
        let all = Window { since: Timestamp::from_millis(-5), until: Timestamp::from_millis(0) };
        assert_eq!(search(all, false), "after:1 before:1 -in:drafts -in:chats");
    }

    #[test]
    fn a_watch_names_its_topic_in_a_body() {
        let url = text("https://gmail.googleapis.com/", &Request::Watch);
        assert_eq!(url, "https://gmail.googleapis.com/gmail/v1/users/me/watch?fields=expiration&prettyPrint=false");
        let body = body(&Request::Watch, "projects/p/topics/t");
        assert_eq!(body.as_deref(), Some(r#"{"topicName":"projects/p/topics/t"}"#));
        assert_eq!(super::body(&Request::Profile, "projects/p/topics/t"), None);
    }

    #[test]
    fn a_base_with_a_path_keeps_it() {
        let url = text("http://127.0.0.1:1/proxy/", &Request::Profile);
        assert_eq!(url, "http://127.0.0.1:1/proxy/gmail/v1/users/me/profile?fields=historyId&prettyPrint=false");
    }
}
