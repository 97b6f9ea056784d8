//! A way to Postgres that counts the statements that go along it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use proxy::{Tap, Way};
use url::Url;

use super::swamp::{by, server};

/// How often each statement was executed, by its text.
pub(crate) type Counts = BTreeMap<String, usize>;

/// It speaks the frontend's side of the protocol (version 3.0) well enough to know a statement by its text.
pub(crate) struct Tally {
    way: Way,
    database: Url,
    counts: Arc<Mutex<Counts>>,
}

impl Tally {
    /// In front of a database.
    pub(crate) async fn before(database: &str) -> Self {
        let database: Url = database.parse().unwrap();
        let counts = Arc::new(Mutex::new(Counts::new()));
        let all = Arc::clone(&counts);
        let taps = move || -> Tap {
            let mut frontend = Frontend { counts: Arc::clone(&all), ..Frontend::default() };
            Box::new(move |piece| frontend.take(piece))
        };
        Self { way: Way::watched(server(&database), taps).await.unwrap(), database, counts }
    }

    /// The database's address by this way, which is not encrypted.
    pub(crate) fn url(&self) -> String {
        let mut url = by(&self.way, &self.database);
        let rest: Vec<(String, String)> =
            url.query_pairs().into_owned().filter(|(name, _)| name != "sslmode").collect();
        url.query_pairs_mut().clear().extend_pairs(rest).append_pair("sslmode", "disable");
        url.into()
    }

    /// What was executed since the last time.
    pub(crate) fn take(&self) -> Counts {
        std::mem::take(&mut *self.counts.lock().unwrap())
    }
}

/// What one client sends.
#[derive(Default)]
struct Frontend {
    counts: Arc<Mutex<Counts>>,
    /// What is no whole message yet.
    rest: Vec<u8>,
    /// The first message, which has no type, was seen.
    begun: bool,
    prepared: BTreeMap<Vec<u8>, String>,
}

impl Frontend {
    fn take(&mut self, piece: &[u8]) {
        self.rest.extend_from_slice(piece);
        let mut bytes = std::mem::take(&mut self.rest);
        let mut at = 0;
        while let Some((kind, body, length)) = message(&bytes[at..], self.begun) {
            if self.begun {
                self.count(kind, body);
            }
            self.begun = true;
            at += length;
        }
        self.rest = bytes.split_off(at);
    }

    fn count(&mut self, kind: u8, body: &[u8]) {
        let mut texts = body.split(|byte| *byte == 0);
        let mut text = || texts.next().unwrap_or_default().to_vec();
        match kind {
            // Parse: the statement's name and its text.
            b'P' => {
                let name = text();
                self.prepared.insert(name, String::from_utf8_lossy(&text()).into_owned());
            }
            // Bind: the portal and the statement's name.
            b'B' => {
                let _portal = text();
                let statement = self.prepared.get(&text()).cloned().unwrap_or_default();
                *self.counts.lock().unwrap().entry(statement).or_default() += 1;
            }
            // A simple query.
            b'Q' => *self.counts.lock().unwrap().entry(String::from_utf8_lossy(&text()).into_owned()).or_default() += 1,
            _ => {}
        }
    }
}

/// The first message, if it is there as a whole: its type, what is in it, and how long it is with both. A message's
/// length counts itself, but not the type before it.
fn message(bytes: &[u8], typed: bool) -> Option<(u8, &[u8], usize)> {
    let head = usize::from(typed);
    let length = bytes.get(head..head + 4)?;
    let length = u32::from_be_bytes(length.try_into().expect("four bytes"));
    let end = head + usize::try_from(length).ok()?;
    let body = bytes.get(head + 4..end)?;
    Some((bytes[0], body, end))
}
