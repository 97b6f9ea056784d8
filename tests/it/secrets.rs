//! What must not be seen anywhere, is not.

use std::collections::BTreeMap;

use kafka::topics::Topic;
use simulator::{Cause, Delivery, Mails, NewMailbox};

use crate::house::{House, Mailbox, gmail};
use crate::support::{LONG, committed, wait_until};

/// A mail by whose parts any leak of it is recognised.
const MAIL: &str = "From: \"Unmistakable Sender\" <unmistakable.sender@example.org>\r\n\
     To: somebody@example.org\r\n\
     Subject: Unmistakable subject\r\n\
     Message-ID: <unmistakable-message@example.org>\r\nMIME-Version: 1.0\r\n\
     Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\n\
     Unmistakable body, of which the first words are told. They end within two hundred characters; what comes after\r\n\
     them is nobody's but the reader's, who asks Gmail for it, and it may be long: so long, say, as this sentence is.\r\n\
     Unmistakable end of the body\r\n--b\r\nContent-Type: text/plain; name=\"a.txt\"\r\n\
     Content-Disposition: attachment; filename=\"a.txt\"\r\n\r\nUnmistakable attachment\r\n--b--\r\n";

/// The places in which one of `secrets` is seen, each with the secret's name.
fn leaks(secrets: &BTreeMap<&str, String>, places: &BTreeMap<String, Vec<u8>>) -> Vec<String> {
    let mut leaks = Vec::new();
    for (place, bytes) in places {
        for (name, secret) in secrets {
            assert!(secret.len() >= 8, "{name} could be seen by chance");
            if bytes.windows(secret.len()).any(|window| window == secret.as_bytes()) {
                leaks.push(format!("{name} in {place}"));
            }
        }
    }
    leaks
}

/// Every row of every table that is ours.
async fn rows_as_text(url: &str) -> String {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    let tables = "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables
                  WHERE schemaname NOT IN ('pg_catalog', 'information_schema')";
    let mut text = String::new();
    for table in client.query(tables, &[]).await.unwrap() {
        let table: String = table.get(0);
        let rows = client.query(&format!("SELECT t::text FROM {table} t"), &[]).await.unwrap();
        text.extend(rows.iter().map(|row| row.get::<_, String>(0) + "\n"));
    }
    drop(client);
    connection.await.unwrap().unwrap();
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn i7_secrets_are_in_no_log_on_no_topic_in_no_answer_and_in_no_row() {
    // All that our own code may say, and what others' says by default.
    let ours = ["ingress", "poller", "fetcher", "projector", "domain", "events", "gmail", "kafka", "runtime", "store"];
    let filter = ours.iter().fold("info".to_owned(), |filter, module| format!("{filter},{module}=trace"));
    let secret = "unmistakable-client-secret";
    let changes = [("MAILTIDE_LOG_FILTER", filter.as_str()), ("MAILTIDE_GMAIL_CLIENT_SECRET", secret)];
    let house = House::with("secrets", &changes).await;
    house.create_topics().await;
    let mut ingress = house.process("ingress", "ingress");
    let mut poller = house.process("poller", "poller");
    let mut fetcher = house.process("fetcher", "fetcher");
    let mut projector = house.process("projector", "projector");
    for process in [&mut ingress, &mut poller, &mut fetcher, &mut projector] {
        process.start();
    }
    let address = ingress.logged("API open", "address").await;
    house.api_is_at(&address);
    poller.ready().await;
    projector.ready().await;

    let create = |name: &str| {
        let email = format!("unmistakable-{name}@{}example", house.place.prefix());
        let made = gmail().create(&NewMailbox { email: email.clone(), ..NewMailbox::default() }).unwrap();
        (email, made.refresh_token)
    };
    let (email, token) = create("owner");
    let mailbox = Mailbox { id: house.consent(&email, token.clone()).await, email };
    let (refused_email, refused_token) = create("other");
    let refused = Mailbox { id: house.consent(&refused_email, refused_token.clone()).await, email: refused_email };
    gmail().end_grants(&refused.email, Cause::Revoked).unwrap();
    let mail = Mails::Raw(MAIL.as_bytes().to_vec());
    gmail().deliver(&mailbox.email, mail, &Delivery::default()).unwrap();

    let mut answers = vec![house.sync(&mailbox).await.to_string()];
    // A grant that is refused says so everywhere, without the token.
    let job = house.ended(&house.ask(&refused).await).await;
    assert_eq!(job["code"], "Gmail.ReauthRequired");
    answers.push(job.to_string());
    let nowhere = format!("/gmail-connections/{}/sync", uuid::Uuid::new_v4());
    answers.push(house.request(reqwest::Method::POST, &nowhere).send().await.unwrap().text().await.unwrap());
    wait_until(LONG, "the message is announced and fetched", || async {
        !committed(&house.place.topic(Topic::Discovered.base_name())).await.is_empty()
            && !committed(&house.place.topic(Topic::Fetched.base_name())).await.is_empty()
    })
    .await;

    let mut places = BTreeMap::new();
    for (name, process) in
        [("ingress", &ingress), ("poller", &poller), ("fetcher", &fetcher), ("projector", &projector)]
    {
        let log = process.log();
        assert!(log.contains("store=trace"), "the {name} logs all that it may: {log:.500}");
        places.insert(format!("the {name}'s log"), log.into_bytes());
    }
    for topic in Topic::ALL {
        let mut bytes = Vec::new();
        for record in committed(&house.place.topic(topic.base_name())).await {
            let headers = record.headers.iter().flat_map(|(name, value)| [Some(name.clone().into()), value.clone()]);
            for part in [record.key, record.value].into_iter().chain(headers).flatten() {
                bytes.extend_from_slice(&part);
                bytes.push(b'\n');
            }
        }
        places.insert(format!("the topic {}", topic.base_name()), bytes);
    }
    places.insert("an answer".to_owned(), answers.join("\n").into_bytes());
    let in_rows = BTreeMap::from([("a row".to_owned(), rows_as_text(house.place.database_url()).await.into_bytes())]);

    let secrets = BTreeMap::from([
        ("the API key", house.api_key().to_owned()),
        ("the refresh token", token),
        ("the refused refresh token", refused_token),
        ("the client's secret", secret.to_owned()),
        ("the key of the tokens", "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=".to_owned()),
    ]);
    assert_eq!(leaks(&secrets, &places), Vec::<String>::new());
    assert_eq!(leaks(&secrets, &in_rows), Vec::<String>::new());

    // Nothing of a mail but its ids, and nobody's address; but for the topic that is there to say what a mail is. It has
    // the headers and the first words, and no more.
    let fetched = places.remove("the topic gmail.message.fetched").unwrap();
    let content = BTreeMap::from([
        ("the sender", "nmistakable.sender".to_owned()),
        ("the sender's name", "nmistakable Sender".to_owned()),
        ("the subject", "nmistakable subject".to_owned()),
        ("the body", "nmistakable body".to_owned()),
        ("the rest of the body", "nmistakable end of the body".to_owned()),
        ("an attachment", "nmistakable attachment".to_owned()),
        // As Gmail gives it, in base64.
        ("an encoded attachment", "VW5taXN0YWthYmxlIGF0dGFjaG1lbnQ".to_owned()),
        ("the Message-ID", "nmistakable-message".to_owned()),
        ("the owner's address", mailbox.email.clone()),
        ("the other owner's address", refused.email.clone()),
    ]);
    assert_eq!(leaks(&content, &places), Vec::<String>::new());
    let fetched = BTreeMap::from([("it".to_owned(), fetched)]);
    let told: Vec<String> = leaks(&content, &fetched);
    let expected = ["the Message-ID", "the body", "the sender", "the sender's name", "the subject"];
    assert_eq!(told, expected.map(|name| format!("{name} in it")));

    // The search can find: every secret is where it belongs.
    let planted = BTreeMap::from([("a log".to_owned(), secrets.values().cloned().collect::<String>().into_bytes())]);
    assert_eq!(leaks(&secrets, &planted).len(), secrets.len());
}
