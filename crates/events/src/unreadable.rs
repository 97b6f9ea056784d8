//! The dead letter of a place at Gmail that could not be read. There are no bytes to keep, so it says where they are.

use bytes::Bytes;
use domain::mailbox::{DeadLetter, Place};
use domain::{ConnectionId, OrganisationId, Timestamp, Window};
use serde_json::{Map, Value};

use crate::headers::{CONTENT_TYPE, Headers, JOB_ID, dead};
use crate::json::rfc3339;

/// The value and the headers of the record for `gmail.dead.letter`: the same in both, as JSON for people and as headers
/// for tools.
pub fn unreadable(connection: ConnectionId, organisation: OrganisationId, letter: &DeadLetter) -> (Bytes, Headers) {
    let (method, window) = match letter.place {
        Place::History { owed, .. } => ("users.history.list", owed),
        Place::Listing { window, .. } => ("users.messages.list", window),
    };
    let Window { since, until } = window;
    let mut said = vec![
        (dead::METHOD, method.to_owned()),
        (dead::CONNECTION_ID, connection.to_string()),
        (dead::ORGANISATION_ID, organisation.to_string()),
        (dead::SINCE, time(since)),
        (dead::UNTIL, time(until)),
        (dead::PAGE_SIZE, "1".to_owned()),
        (dead::REASON, letter.reason.clone()),
    ];
    if let Place::History { after, .. } = letter.place {
        said.push((dead::START_HISTORY_ID, after.to_string()));
    }
    said.extend(letter.job_id.map(|job| (JOB_ID, job.to_string())));
    let value: Map<String, Value> = said.iter().map(|(name, text)| ((*name).to_owned(), text.clone().into())).collect();
    let mut headers: Headers = said.into_iter().map(|(name, text)| (name, Bytes::from(text))).collect();
    headers.push((CONTENT_TYPE, Bytes::from_static(b"application/json")));
    (Value::Object(value).to_string().into(), headers)
}

fn time(at: Timestamp) -> String {
    rfc3339(at).unwrap_or_else(|| at.as_millis().to_string())
}

#[cfg(test)]
mod tests {
    use domain::HistoryId;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn it_names_the_place_in_headers_and_in_words() {
        let owed = Window { since: Timestamp::from_millis(0), until: Timestamp::from_millis(86_400_000) };
        let letter = DeadLetter {
            place: Place::History { after: HistoryId::new(u64::MAX), owed },
            reason: "history[0].id: expected a number".to_owned(),
            job_id: None,
        };
        let connection = ConnectionId::from_uuid(Uuid::from_u128(1));
        let (value, headers) = unreadable(connection, OrganisationId::from_uuid(Uuid::from_u128(2)), &letter);
        let value: Value = serde_json::from_slice(&value).unwrap();
        assert_eq!(value["start-history-id"], "18446744073709551615");
        assert_eq!(value["until"], "1970-01-02T00:00:00.000Z");
        let header = |name| headers.iter().find(|(it, _)| *it == name).map(|(_, text)| text.clone()).unwrap();
        assert_eq!(header(dead::METHOD), "users.history.list");
        assert_eq!(header(dead::REASON), letter.reason);
        assert_eq!(header(dead::CONNECTION_ID), connection.to_string());
    }
}
