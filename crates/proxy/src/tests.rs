use std::sync::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// Longer than anything here takes, on a busy machine.
const LONG: Duration = Duration::from_secs(60);

/// A server that answers with what it is sent.
async fn echo() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await
            });
        }
    });
    address.to_string()
}

async fn connect(way: &Way) -> TcpStream {
    TcpStream::connect(way.address()).await.unwrap()
}

/// Sends and reads what comes back.
async fn ask(stream: &mut TcpStream, text: &str) -> io::Result<String> {
    stream.write_all(text.as_bytes()).await?;
    let mut answer = vec![0; text.len()];
    tokio::time::timeout(LONG, stream.read_exact(&mut answer)).await.unwrap()?;
    Ok(String::from_utf8(answer).unwrap())
}

#[tokio::test]
async fn it_carries_and_shows_what_clients_send() {
    let sent = Arc::new(Mutex::new(Vec::new()));
    let all = sent.clone();
    let taps = move || -> Tap {
        let all = all.clone();
        Box::new(move |piece| all.lock().unwrap().extend_from_slice(piece))
    };
    let way = Way::watched(echo().await, taps).await.unwrap();
    let mut stream = connect(&way).await;
    let long = "x".repeat(3 * 1024 * 1024);
    // Both directions at once: neither end reads while it writes all.
    let (mut read, mut write) = stream.split();
    let mut back = vec![0; long.len()];
    let (written, read) = tokio::join!(write.write_all(long.as_bytes()), read.read_exact(&mut back));
    written.unwrap();
    read.unwrap();
    assert_eq!(back, long.as_bytes());
    assert_eq!(*sent.lock().unwrap(), long.as_bytes());
    stream.shutdown().await.unwrap();
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "the end is handed on");
}

#[tokio::test]
async fn what_is_cut_is_reset_and_new_connections_too_until_it_is_mended() {
    let way = Way::to(echo().await).await.unwrap();
    let mut stream = connect(&way).await;
    assert_eq!(ask(&mut stream, "a").await.unwrap(), "a");
    way.set(Trouble::Cut);
    assert!(ask(&mut stream, "b").await.is_err());
    // The kernel takes it before we do.
    assert!(ask(&mut connect(&way).await, "c").await.is_err());
    way.set(Trouble::None);
    assert_eq!(ask(&mut connect(&way).await, "d").await.unwrap(), "d");
}

#[tokio::test]
async fn a_black_hole_keeps_connections_open_and_what_it_swallowed() {
    let way = Way::to(echo().await).await.unwrap();
    let mut stream = connect(&way).await;
    assert_eq!(ask(&mut stream, "a").await.unwrap(), "a");
    way.set(Trouble::BlackHole);
    stream.write_all(b"lost").await.unwrap();
    let mut answer = [0; 4];
    let waited = tokio::time::timeout(Duration::from_millis(300), stream.read(&mut answer)).await;
    assert!(waited.is_err(), "nothing comes, not even the end");
    way.set(Trouble::None);
    stream.write_all(b"more").await.unwrap();
    let waited = tokio::time::timeout(Duration::from_millis(300), stream.read(&mut answer)).await;
    assert!(waited.is_err(), "what was lost in a connection makes it useless");
    assert_eq!(ask(&mut connect(&way).await, "b").await.unwrap(), "b");
}

#[tokio::test]
async fn a_delay_is_a_delay_and_a_throttle_a_throttle() {
    let way = Way::to(echo().await).await.unwrap();
    let mut stream = connect(&way).await;
    way.set(Trouble::Delay(Duration::from_millis(150)));
    let begun = std::time::Instant::now();
    assert_eq!(ask(&mut stream, "slow").await.unwrap(), "slow");
    assert!(begun.elapsed() >= Duration::from_millis(300), "there and back");
    way.set(Trouble::Throttle(10_000));
    let begun = std::time::Instant::now();
    let text = "y".repeat(5_000);
    assert_eq!(ask(&mut stream, &text).await.unwrap(), text);
    assert!(begun.elapsed() >= Duration::from_millis(400), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn it_ends_with_all_its_connections_when_it_is_dropped() {
    let way = Way::to(echo().await).await.unwrap();
    let mut stream = connect(&way).await;
    assert_eq!(ask(&mut stream, "a").await.unwrap(), "a");
    drop(way);
    assert!(ask(&mut stream, "b").await.is_err());
}
