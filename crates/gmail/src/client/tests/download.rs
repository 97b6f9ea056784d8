//! Files of mails from a server that answers as it is told.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use domain::MessageId;

use super::fake::{Fake, Script};
use super::*;

/// A message with a file behind an id, one in the message, and an empty one.
const MESSAGE: &str = r#"{"id":"18d1","payload":{"partId":"","mimeType":"multipart/mixed","parts":[
    {"partId":"0","mimeType":"text/plain","body":{"size":2}},
    {"partId":"1","mimeType":"application/pdf","filename":"a.pdf","body":{"size":6,"attachmentId":"ANG-1_x"}},
    {"partId":"2","mimeType":"text/csv","filename":"b.csv","body":{"size":3}},
    {"partId":"3","mimeType":"text/csv","filename":"c.csv","body":{"size":0}}]}}"#;

fn asking() -> Asking {
    Asking { lane: Lane::Fetch, deadline: Instant::now() + Duration::from_secs(20), token_version: TokenVersion(1) }
}

async fn begin(client: &Client, fake: &Fake, part_id: &str) -> Result<Option<Download>, CallError> {
    client.download(fake.mailbox, &MessageId::from_u64(0x18d1), part_id, &asking()).await
}

async fn whole(mut download: Download) -> Result<Vec<u8>, CallError> {
    let mut all = Vec::new();
    while let Some(chunk) = download.chunk().await? {
        all.extend_from_slice(&chunk);
    }
    Ok(all)
}

#[tokio::test]
async fn a_file_is_found_by_its_part_and_read_by_the_id_that_it_has_just_now() {
    let fake = Fake::start().await;
    fake.api(Script::json(200, MESSAGE));
    fake.api(Script::json(200, r#"{"data":"JVBERi0x"}"#));
    let download = begin(&fake.client(), &fake, "1").await.unwrap().unwrap();
    assert_eq!((download.file.filename.as_deref(), download.file.size), (Some("a.pdf"), 6));
    assert_eq!(whole(download).await.unwrap(), b"%PDF-1");
    let seen = fake.seen();
    assert_eq!(seen[0].path, "/gmail/v1/users/me/messages/18d1");
    assert!(seen[0].query.starts_with("format=full&fields=id,threadId,"));
    assert_eq!(seen[1].path, "/gmail/v1/users/me/messages/18d1/attachments/ANG-1_x");
}

#[tokio::test]
async fn a_file_that_has_no_id_is_in_the_message() {
    let fake = Fake::start().await;
    let client = fake.client();
    fake.api(Script::json(200, MESSAGE));
    fake.api(Script::json(200, &MESSAGE.replace(r#""size":3"#, r#""size":3,"data":"YSxi""#)));
    let download = begin(&client, &fake, "2").await.unwrap().unwrap();
    assert_eq!(whole(download).await.unwrap(), b"a,b");
    assert!(fake.seen()[1].query.contains("body(size,attachmentId,data)"));
    fake.api(Script::json(200, MESSAGE));
    assert_eq!(whole(begin(&client, &fake, "3").await.unwrap().unwrap()).await.unwrap(), b"");
    // Contents that were promised and do not come are no empty file.
    fake.api(Script::json(200, MESSAGE));
    fake.api(Script::json(200, MESSAGE));
    assert!(matches!(begin(&client, &fake, "2").await, Err(CallError::Transient { .. })));
    fake.api(Script::json(200, MESSAGE));
    fake.api(Script::json(200, "{}"));
    let download = begin(&client, &fake, "1").await.unwrap().unwrap();
    assert!(matches!(whole(download).await, Err(CallError::Transient { .. })));
}

#[tokio::test]
async fn what_is_no_file_is_none_and_what_is_gone_is_not_found() {
    let fake = Fake::start().await;
    let client = fake.client();
    for part_id in ["0", "9", "root", ""] {
        fake.api(Script::json(200, MESSAGE));
        assert!(begin(&client, &fake, part_id).await.unwrap().is_none(), "{part_id}");
    }
    let gone = r#"{"error":{"code":404,"message":"Requested entity was not found.","errors":[{"reason":"notFound"}]}}"#;
    fake.api(Script::json(404, gone));
    assert_eq!(begin(&client, &fake, "1").await.unwrap_err(), CallError::NotFound);
    fake.api(Script::json(200, MESSAGE));
    fake.api(Script::json(404, gone));
    assert!(matches!(begin(&client, &fake, "1").await, Err(CallError::Transient { .. })));
}

#[tokio::test]
async fn a_stale_token_is_renewed_on_the_way_and_a_push_back_is_told() {
    let fake = Fake::start().await;
    let client = fake.client();
    fake.refuse("Bearer access-1");
    fake.api(Script::json(200, MESSAGE));
    fake.api(Script::json(200, r#"{"data":"JVBERi0x"}"#));
    assert_eq!(whole(begin(&client, &fake, "1").await.unwrap().unwrap()).await.unwrap(), b"%PDF-1");
    assert_eq!(fake.refreshes(), 2);
    fake.api(
        Script::json(429, r#"{"error":{"errors":[{"reason":"rateLimitExceeded"}]}}"#).with_header("retry-after", "60"),
    );
    assert!(matches!(begin(&client, &fake, "1").await, Err(CallError::Throttled { until: Some(_) })));
    // Gmail is not asked again before.
    let asked = fake.seen().len();
    assert!(matches!(begin(&client, &fake, "1").await, Err(CallError::Throttled { until: Some(_) })));
    assert_eq!(fake.seen().len(), asked);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_never_the_end_of_the_file() {
    let fake = Fake::start().await;
    let client = fake.client();
    for script in [
        Script::BreakOff(r#"{"data":"JVBERi0x"#),
        Script::json(200, r#"{"data":"JVBERi0x"#),
        Script::json(200, r#"{"data":"JVBERi0!"}"#),
    ] {
        fake.api(Script::json(200, MESSAGE));
        fake.api(script);
        let came = match begin(&client, &fake, "1").await {
            Ok(download) => whole(download.unwrap()).await,
            // The cut may overtake the head of the answer.
            Err(error) => Err(error),
        };
        assert!(matches!(came, Err(CallError::Transient { .. })), "{came:?}");
    }
}

#[tokio::test]
async fn a_large_file_comes_in_pieces_packed_or_not() {
    let fake = Fake::start().await;
    let file: Vec<u8> =
        (0..3_000_000_u32).flat_map(|n| (n.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()).take(3_000_001).collect();
    fake.api(Script::json(200, MESSAGE));
    fake.api(Script::json(200, &format!(r#"{{"data":"{}"}}"#, URL_SAFE.encode(&file))));
    let mut download = begin(&fake.client(), &fake, "1").await.unwrap().unwrap();
    let (mut all, mut largest) = (Vec::new(), 0);
    while let Some(chunk) = download.chunk().await.unwrap() {
        largest = largest.max(chunk.len());
        all.extend_from_slice(&chunk);
    }
    assert!(all == file, "{} of {} bytes", all.len(), file.len());
    assert!(largest < 1_000_000, "{largest} bytes at once");
    assert!(fake.packed() > 0);
}
