//! The demo, as whoever tries Mailtide sees it: on the tests' own servers, as given ones.

use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::{Client, Method, StatusCode};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::cli::command;
use crate::support::Place;

/// A demo takes some 10 s on a quiet machine.
const DEMO: Duration = Duration::from_secs(240);

/// The demo with servers given, and all else its own.
fn demo(place: &Place, arguments: &[&str]) -> Command {
    let mut command = command(place, &[&["demo"], arguments].concat());
    for own in ["MAILTIDE_KAFKA_TOPIC_PREFIX", "MAILTIDE_INGRESS_LISTEN", "MAILTIDE_STORE_TOKEN_KEY"] {
        command.env_remove(own);
    }
    for google in ["MAILTIDE_GMAIL_API_URL", "MAILTIDE_GMAIL_TOKEN_URL"] {
        command.env_remove(google);
    }
    command
}

/// Runs it to its end: its code and what it printed.
async fn played(place: &Place, arguments: &[&str]) -> (Option<i32>, String) {
    let output = demo(place, arguments).output();
    let output = tokio::time::timeout(DEMO, output).await.expect("the demo comes to an end").unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = String::from_utf8_lossy(&output.stderr);
    (output.status.code(), format!("{printed}\n{said}"))
}

/// The numbers of the table's row for `mailbox`: delivered, discovered, missing, twice, unknown. How many are fetched by
/// then, which is in between, goes by the quota: no more than were discovered.
fn row(printed: &str, mailbox: &str) -> Vec<usize> {
    let row = printed.lines().find(|line| line.starts_with('│') && line.contains(mailbox));
    let row = row.unwrap_or_else(|| panic!("no row for {mailbox} in {printed}"));
    let mut numbers: Vec<usize> = row.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let fetched = numbers.remove(2);
    assert!(fetched <= numbers[1], "{fetched} fetched in {row}");
    numbers
}

#[tokio::test]
async fn once_counts_every_mail_of_every_mailbox_and_ends_well() {
    let place = Place::new("demo");
    let (code, printed) = played(&place, &["--once", "--mailboxes", "2", "--messages", "30"]).await;
    assert_eq!(code, Some(0), "{printed}");
    assert_eq!(row(&printed, "mailbox-1@"), [30, 30, 0, 0, 0], "{printed}");
    assert_eq!(row(&printed, "mailbox-2@"), [30, 30, 0, 0, 0], "{printed}");
    assert_eq!(row(&printed, " all "), [60, 60, 0, 0, 0], "{printed}");
    let jobs = printed.lines().find(|line| line.starts_with("jobs: ")).unwrap();
    assert!(jobs.ends_with(" succeeded") && !jobs.contains(','), "{printed}");
    let invoice = printed.lines().find(|line| line.contains("Invoice 4711 ")).expect("accounts payable has it");
    let words: Vec<&str> = invoice.split_whitespace().collect();
    assert_eq!(words[3..words.len() - 1], ["billing@supplier.example", "invoice-4711.pdf", "2", "pay"], "{printed}");
    for shown in ["discovered  mailbox-1@", "job         mailbox-2@", "trigger to visible: p50 ", "API  "] {
        assert!(printed.contains(shown), "{shown} is not in {printed}");
    }
}

/// Odd headers, bad dates, unknown charsets, no headers at all, and one `Message-ID` thrice.
#[tokio::test]
async fn real_mail_arrives_whole_however_odd() {
    let place = Place::new("demo-mail");
    let mut mbox = Vec::new();
    let odd: [&[u8]; 8] = [
        b"Message-ID: <same@x>\nSubject: one\n\nbody\n",
        b"Message-ID: <same@x>\nSubject: two\n\nbody\n",
        b"Message-ID: <same@x>\nSubject: three\n\nbody\n",
        b"Date: the day after never\nSubject: =?x-unknown?Q?=FF?=\n\nbody\n",
        b"Content-Type: text/plain; charset=no-such\nSubject: \xff\xfe\n\n\xff\xfe\n",
        b"no header, only text\n",
        b"Content-Type: multipart/mixed; boundary=never\n\n--nothing\n",
        b"\n",
    ];
    for mail in odd {
        mbox.extend_from_slice(b"From a@b Thu Jan  1 00:00:00 2026\n");
        mbox.extend_from_slice(mail);
        mbox.push(b'\n');
    }
    let file = place.folder().join("odd.mbox");
    std::fs::write(&file, mbox).unwrap();
    let (code, printed) = played(&place, &["--once", "--mail", file.to_str().unwrap()]).await;
    assert_eq!(code, Some(0), "{printed}");
    assert_eq!(row(&printed, "mailbox-1@"), [8, 8, 0, 0, 0], "{printed}");
}

#[tokio::test]
async fn it_stays_up_with_calls_that_work_until_it_is_told_to_stop() {
    let place = Place::new("demo-stay");
    let mut child = demo(&place, &["--mailboxes", "1", "--messages", "10"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let printed = async {
        let mut calls = Vec::new();
        while calls.len() < 5 {
            let line = lines.next_line().await.unwrap().expect("it stays up");
            if line.trim_start().starts_with("curl ") {
                calls.push(line);
            }
        }
        calls
    };
    let calls = tokio::time::timeout(DEMO, printed).await.expect("the calls are printed");
    let mut answers = Vec::new();
    for call in &calls {
        answers.push(made(call).await);
    }
    let statuses: Vec<u16> = answers.iter().map(|(status, _)| status.as_u16()).collect();
    assert_eq!(statuses, [200, 202, 200, 200, 201], "{calls:?}");
    // The page that the last one names connects the mailbox, and leads to where the browser is sent on.
    let page: serde_json::Value = serde_json::from_str(&answers[4].1).unwrap();
    let back = reqwest::get(page["consentUrl"].as_str().unwrap()).await.unwrap();
    let query: Vec<(String, String)> = back.url().query_pairs().into_owned().collect();
    assert_eq!((back.status(), query[0].1.as_str()), (StatusCode::OK, "connected"), "{}", back.url());

    // What was delivered and triggered is shown.
    let shown = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains("discovered  mailbox-1@") {
                return true;
            }
        }
        false
    };
    assert!(tokio::time::timeout(DEMO, shown).await.expect("the new mail is announced"));
    let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap());
    kill(pid, Signal::SIGINT).unwrap();
    let rest = async { while lines.next_line().await.unwrap().is_some() {} };
    let (ended, ()) = tokio::time::timeout(DEMO, async { tokio::join!(child.wait(), rest) }).await.expect("it stops");
    assert_eq!(ended.unwrap().code(), Some(0));
}

/// Makes the call that a printed `curl` line makes.
async fn made(line: &str) -> (StatusCode, String) {
    let words: Vec<String> = line.split('\'').enumerate().flat_map(|(n, part)| quoted(n, part)).collect();
    let all = |flag: &str| {
        let at = words.iter().enumerate().filter(|(_, word)| *word == flag).map(|(at, _)| &words[at + 1]);
        at.cloned().collect::<Vec<_>>()
    };
    let after = |flag: &str| all(flag).into_iter().next();
    let url = words.iter().find(|word| word.starts_with("http://")).unwrap();
    let method = after("-X").map_or(Method::GET, |method| method.parse().unwrap());
    let mut request = Client::new().request(method, url);
    for (name, value) in all("-H").iter().filter_map(|header| header.split_once(": ")) {
        request = request.header(name, value);
    }
    if let Some(body) = after("-d") {
        request = request.body(body);
    }
    let answer = request.send().await.unwrap();
    (answer.status(), answer.text().await.unwrap())
}

/// The words of a shell's line, given its `n`th part between single quotes.
fn quoted(n: usize, part: &str) -> Vec<String> {
    if n % 2 == 1 { vec![part.to_owned()] } else { part.split_whitespace().map(str::to_owned).collect() }
}
