//! A mailbox's watch: which changes are told to which topic, and until when.

use serde::Deserialize;

use crate::error::ApiError;

/// A watch ends this long after it was set, silently: 7 days.
pub(crate) const LIFETIME_MS: i64 = 7 * 86_400_000;

/// A watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Watch {
    /// `projects/{project}/topics/{topic}`.
    pub(crate) topic: String,
    /// Ids of labels that changes are told of, or not told of.
    pub(crate) label_ids: Vec<String>,
    /// Whether `label_ids` are left out instead of let in.
    pub(crate) exclude: bool,
    /// When it ends, ms since the epoch.
    pub(crate) ends_ms: i64,
    /// The head that was told of last, and when, ms since the epoch; `None` until the first.
    pub(crate) told: Option<(u64, i64)>,
}

/// The body of a watch request.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Request {
    topic_name: String,
    label_ids: Vec<String>,
    label_filter_behavior: Option<Filter>,
    label_filter_action: Option<Filter>,
}

/// What is done with the labels; the guides spell it in capitals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Filter {
    #[serde(alias = "INCLUDE")]
    Include,
    #[serde(alias = "EXCLUDE")]
    Exclude,
}

impl Request {
    /// The watch that is asked for, from `now_ms`; `old` is the one there is.
    pub(crate) fn watch(self, old: Option<&Watch>, now_ms: i64) -> Result<Watch, ApiError> {
        let mut parts = self.topic_name.split('/');
        let shape = [parts.next(), parts.next(), parts.next(), parts.next(), parts.next()];
        let topic_is_named = matches!(shape, [Some("projects"), Some(project), Some("topics"), Some(topic), None]
            if !project.is_empty() && !topic.is_empty());
        if !topic_is_named {
            return Err(ApiError::invalid_argument("Invalid topicName does not match projects/*/topics/*"));
        }
        if old.is_some_and(|old| old.topic != self.topic_name && old.ends_ms > now_ms) {
            return Err(ApiError::failed_precondition(
                "Only one user push notification client allowed per developer (call /stop then try again)",
            ));
        }
        let filter = self.label_filter_behavior.or(self.label_filter_action);
        Ok(Watch {
            topic: self.topic_name,
            label_ids: self.label_ids,
            exclude: filter == Some(Filter::Exclude),
            ends_ms: now_ms.saturating_add(LIFETIME_MS),
            told: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(json: &str) -> Request {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn one_topic_at_a_time_until_it_lapses() {
        let first =
            request(r#"{"topicName": "projects/p/topics/t", "labelIds": ["SPAM"], "labelFilterBehavior": "EXCLUDE"}"#);
        let first = first.watch(None, 1_000).unwrap();
        assert!(first.exclude && first.ends_ms == 1_000 + LIFETIME_MS);
        let other = || request(r#"{"topicName": "projects/p/topics/u", "labelFilterAction": "include"}"#);
        assert!(other().watch(Some(&first), 2_000).unwrap_err().message.starts_with("Only one user push"));
        assert!(!other().watch(Some(&first), first.ends_ms).unwrap().exclude);
        for wrong in ["", "t", "projects//topics/t", "projects/p/topics/t/x", "topics/p/projects/t"] {
            let request = Request { topic_name: wrong.to_owned(), ..Request::default() };
            assert!(request.watch(None, 0).is_err(), "{wrong}");
        }
    }
}
