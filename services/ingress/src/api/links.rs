//! Which call's answer leads to which: OpenAPI links, by which a client, or a tool that tries the API, gets from an
//! answer to what can be asked next.

use utoipa::openapi::link::LinkBuilder;
use utoipa::openapi::{OpenApi, RefOr};

/// Where the id of the job is that a request started.
const STARTED: &str = "$response.body#/jobId";

/// Where the ids of the newest of a list are.
const NEWEST_CONNECTION: &str = "$response.body#/0/connectionId";
const NEWEST_JOB: &str = "$response.body#/data/0/jobId";

/// The mailbox that the request named.
const SAME_CONNECTION: &str = "$request.path.id";

/// From one call, answered with this status, to another whose parameter has this value.
const LINKS: &[(&str, &str, &str, &str, &str)] = &[
    ("triggerGmailSync", "202", "getJob", "jobId", STARTED),
    ("triggerGmailSync", "202", "followJob", "jobId", STARTED),
    ("triggerGmailSync", "202", "cancelJob", "jobId", STARTED),
    ("triggerGmailSync", "202", "listGmailConnectionJobs", "id", SAME_CONNECTION),
    ("backfillGmail", "202", "getJob", "jobId", STARTED),
    ("backfillGmail", "202", "followJob", "jobId", STARTED),
    ("backfillGmail", "202", "cancelJob", "jobId", STARTED),
    ("cancelJob", "202", "getJob", "jobId", STARTED),
    ("cancelJob", "202", "followJob", "jobId", STARTED),
    ("listJobs", "200", "getJob", "jobId", NEWEST_JOB),
    ("listJobs", "200", "followJob", "jobId", NEWEST_JOB),
    ("listJobs", "200", "cancelJob", "jobId", NEWEST_JOB),
    ("listGmailConnections", "200", "getGmailConnection", "id", NEWEST_CONNECTION),
    ("listGmailConnections", "200", "changeGmailConnection", "id", NEWEST_CONNECTION),
    ("listGmailConnections", "200", "triggerGmailSync", "id", NEWEST_CONNECTION),
    ("listGmailConnections", "200", "backfillGmail", "id", NEWEST_CONNECTION),
    ("listGmailConnections", "200", "listGmailConnectionJobs", "id", NEWEST_CONNECTION),
    ("listGmailConnections", "200", "deleteGmailConnection", "id", NEWEST_CONNECTION),
    ("changeGmailConnection", "200", "getGmailConnection", "id", SAME_CONNECTION),
    ("deleteGmailConnection", "204", "getGmailConnection", "id", SAME_CONNECTION),
    ("deleteGmailConnection", "204", "deleteGmailConnection", "id", SAME_CONNECTION),
];

/// Adds the links, each named after the call that it leads to.
pub(super) fn add(document: &mut OpenApi) {
    for item in document.paths.paths.values_mut() {
        let operations = [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch];
        for operation in operations.into_iter().flatten() {
            let name = operation.operation_id.as_deref().unwrap_or_default();
            for (_, status, to, parameter, value) in LINKS.iter().filter(|(from, ..)| *from == name) {
                let link = LinkBuilder::new().operation_id(*to).parameter(*parameter, *value).build();
                if let Some(RefOr::T(response)) = operation.responses.responses.get_mut(*status) {
                    response.links.insert((*to).to_owned(), RefOr::T(link));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;
    use serde_json::Value;

    use super::*;

    #[test]
    fn every_link_leads_from_a_call_to_a_call() {
        let document = super::super::document::document(&HeaderName::from_static("x-key"));
        let document = serde_json::to_value(document).unwrap();
        let items = document["paths"].as_object().unwrap().values();
        let calls: Vec<&Value> = items.flat_map(|item| item.as_object().unwrap().values()).collect();
        let call =
            |name: &str| *calls.iter().find(|call| call["operationId"] == name).unwrap_or_else(|| panic!("{name}"));
        for (from, status, to, parameter, value) in LINKS {
            let parameters = call(to)["parameters"].as_array().unwrap();
            assert!(parameters.iter().any(|given| given["name"] == *parameter), "{to} takes no {parameter}");
            let link = &call(from)["responses"][status]["links"][to];
            assert_eq!(link["parameters"][parameter], *value, "{from} {status} {to}");
        }
    }
}
