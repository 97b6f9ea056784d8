//! Every dotted code that a caller may meet, in one table: `docs/codes.md`, and part of the API document.

use std::fmt::Write as _;

use axum::http::StatusCode;

use crate::problem::Code;
use crate::reference::CodeRow;

/// Codes of jobs that failed, which other services give: code, meaning, remedy.
const OF_JOBS: &[(&str, &str, &str)] = &[
    (
        "Gmail.ApiNotEnabled",
        "The Gmail API is not enabled in the Google project.",
        "Enable it in the Google Cloud console, then sync again.",
    ),
    (
        "Gmail.BrokenAnswer",
        "Gmail answered a watch with what cannot be read, so that changes are not told of at once.",
        "Nothing is missed: the schedule goes on, and the watch is asked for again.",
    ),
    (
        "Gmail.ConnectionNotFound",
        "The connection was deleted before the job ran.",
        "Connect the mailbox anew if its mail is wanted.",
    ),
    (
        "Gmail.DeadLettered",
        "The job succeeded but for records that no attempt could read, which were put in the dead letters.",
        "Nothing for the caller: their time is listed again by an audit.",
    ),
    (
        "Gmail.DomainPolicy",
        "The administrator of the mailbox's domain forbids this app.",
        "Ask the administrator to allow it, then sync again.",
    ),
    ("Gmail.Forbidden", "Gmail refused the call for good.", "See the job's detail for Gmail's own words."),
    (
        "Gmail.InsufficientScope",
        "The consent does not cover reading mail.",
        "Connect the mailbox again and leave every box of the consent ticked.",
    ),
    (
        "Gmail.InvalidRequest",
        "Gmail took the call for malformed, which is a mistake of ours.",
        "Tell the operator, with the job's id.",
    ),
    ("Gmail.MailboxNotFound", "Google has no such mailbox any more.", "Delete the connection."),
    (
        "Gmail.MailboxUnavailable",
        "The account has no Gmail, or it is suspended.",
        "Let the account's administrator turn Gmail on, then sync again.",
    ),
    (
        "Gmail.OAuthClientRefused",
        "Google does not know this installation's OAuth client, or its secret is wrong.",
        "The operator sets gmail.client_id and gmail.client_secret right.",
    ),
    (
        "Gmail.ReauthRequired",
        "The mailbox's owner has revoked the consent, or it has expired.",
        "Connect the mailbox again with POST /gmail-connections; nothing is lost meanwhile.",
    ),
    (
        "Gmail.NotFound",
        "Gmail has no such thing.",
        "Sync again; if it comes back, tell the operator, with the job's id.",
    ),
    ("Gmail.Refused", "Gmail refused the call for good.", "See the job's detail for Gmail's own words."),
    (
        "Gmail.ServiceAccountRefused",
        "Google does not take the key of the service account that delegated mailboxes are read as, or none is set.",
        "The operator sets gmail.service_account_file right, and the machine's clock.",
    ),
    (
        "Gmail.TokenUnreadable",
        "The mailbox's refresh token cannot be decrypted with the keys of the settings.",
        "The operator adds the key that is missing to store.token_key.",
    ),
    (
        "Gmail.WatchTaken",
        "Another topic of the same Google project is told of this mailbox's changes already.",
        "Nothing is missed: the schedule goes on; the operator uses one topic for each Google project.",
    ),
    (
        "Job.Coalesced",
        "The push's changes are found by the job that the detail names.",
        "Nothing: that job announces them.",
    ),
    (
        "Job.DeadlineExceeded",
        "The job did not end in time.",
        "Sync again: nothing that was found is lost or announced twice.",
    ),
    ("Job.EmptyWindow", "The window holds no instant.", "Ask for one whose `since` is before its `until`."),
    (
        "Job.TooManyWaiting",
        "A thousand jobs of this mailbox wait already.",
        "Wait until they end; one sync does as much as many.",
    ),
    (
        "Job.UnreadableCommand",
        "The command could not be read, and was put in the dead letters.",
        "Tell the operator, with the job's id.",
    ),
    (
        "Mailbox.Quarantined",
        "The mailbox's state cannot be worked with, so it was set aside with all that it holds.",
        "Tell the operator: an alarm was raised.",
    ),
];

/// All codes: those of refusals by their status, then those of failed jobs.
pub(super) fn rows() -> Vec<CodeRow> {
    let mut answers: Vec<_> = Code::ALL.iter().map(|code| code.entry()).collect();
    answers.sort_unstable_by_key(|entry| (entry.status.as_u16(), entry.title));
    let answers = answers.into_iter().map(|entry| CodeRow {
        status: Some(entry.status),
        code: entry.title,
        meaning: entry.meaning,
        remedy: entry.remedy,
    });
    let of_jobs = OF_JOBS.iter().map(|(code, meaning, remedy)| CodeRow { status: None, code, meaning, remedy });
    answers.chain(of_jobs).collect()
}

/// The table of all codes, in Markdown.
pub(super) fn table() -> String {
    let mut table = String::from("| status | code | what it means | what to do |\n|---|---|---|---|\n");
    let (answers, of_jobs): (Vec<_>, Vec<_>) = rows().into_iter().partition(|row| row.status.is_some());
    for row in answers {
        let status = row.status.map_or(String::new(), |status| status.as_u16().to_string());
        line(&mut table, &status, row.code, row.meaning, row.remedy);
    }
    let refused = Code::Refused(StatusCode::BAD_REQUEST).entry();
    line(&mut table, "4xx", refused.title, refused.meaning, refused.remedy);
    for row in of_jobs {
        line(&mut table, "job", row.code, row.meaning, row.remedy);
    }
    table
}

fn line(table: &mut String, status: &str, code: &str, meaning: &str, remedy: &str) {
    writeln!(table, "| {status} | `{code}` | {meaning} | {remedy} |").expect("a text takes what is written to it");
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    const COMMITTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/codes.md");

    /// `UPDATE_GOLDEN=1 cargo test -p ingress` writes it anew.
    #[test]
    fn the_committed_table_is_what_the_code_says() {
        let ours = format!(
            "# Codes\n\nEvery refusal of the API is a problem document (RFC 9457) whose `title` is one of these codes, under \
             the status in the first column. A job that failed names one of those marked `job` as its `code`. Codes are \
             part of the contract: they are added to, never renamed.\n\nThis page is written by `UPDATE_GOLDEN=1 cargo \
             test -p ingress`; a test compares it with the code.\n\n{}",
            table()
        );
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(COMMITTED, &ours).unwrap();
        }
        let committed = std::fs::read_to_string(COMMITTED).unwrap();
        assert!(ours == committed, "docs/codes.md is not what the code says; write it anew with UPDATE_GOLDEN=1");
    }

    /// Codes as they stand in the sources between quotes: `"Gmail.…"`, `"Job.…"` and so on.
    fn codes_in(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let is_test = path.components().any(|part| matches!(part.as_os_str().to_str(), Some("tests" | "laws")));
            if path.is_dir() && !is_test {
                codes_in(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") && !is_test {
                let text = std::fs::read_to_string(&path).unwrap();
                let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
                let quoted = text.split('"').filter(|part| {
                    part.split_once('.').is_some_and(|(family, name)| {
                        matches!(family, "Auth" | "Gmail" | "Job" | "Mailbox" | "Request" | "Server" | "Connection")
                            && !name.is_empty()
                            && name.bytes().all(|byte| byte.is_ascii_alphanumeric())
                    })
                });
                found.extend(quoted.map(str::to_owned));
            }
        }
    }

    #[test]
    fn every_code_of_the_sources_is_in_the_table_once() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut found = BTreeSet::new();
        for folder in ["crates/domain/src", "crates/gmail/src", "services"] {
            codes_in(&root.join(folder), &mut found);
        }
        let table = table();
        for code in &found {
            assert!(table.contains(&format!("| `{code}` |")), "{code} is not in the table");
        }
        let mut refusals: Vec<_> = Code::ALL.iter().map(|code| code.entry().title).collect();
        refusals.sort_unstable();
        assert!(refusals.windows(2).all(|pair| pair[0] != pair[1]), "{refusals:?}");
        for (code, ..) in OF_JOBS {
            assert_eq!(OF_JOBS.iter().filter(|(other, ..)| other == code).count(), 1, "{code}");
        }
    }
}
