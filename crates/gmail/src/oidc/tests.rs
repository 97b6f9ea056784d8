//! Tokens of a signer of our own, and of others.

use std::sync::Mutex as StdMutex;
use std::sync::atomic::AtomicUsize;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use jsonwebtoken::{EncodingKey, Header, encode};
use openssl::rsa::Rsa;
use serde_json::{Value, json};

use super::*;

const AUDIENCE: &str = "https://mailtide.example/push/gmail";
const EMAIL: &str = "push@project.iam.gserviceaccount.com";

struct Signer {
    id: &'static str,
    private: EncodingKey,
    public: Value,
}

impl Signer {
    fn new(id: &'static str) -> Self {
        use base64::Engine as _;
        jwt::install();
        let key = Rsa::generate(2_048).unwrap();
        let number =
            |number: &openssl::bn::BigNumRef| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(number.to_vec());
        let public = json!({"kty": "RSA", "alg": "RS256", "use": "sig", "kid": id, "n": number(key.n()),
            "e": number(key.e())});
        Self { id, private: EncodingKey::from_rsa_der(&key.private_key_to_der().unwrap()), public }
    }

    fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.id.to_owned()), ..Header::new(Algorithm::RS256) };
        encode(&header, claims, &self.private).unwrap()
    }
}

fn claims() -> Value {
    let now = get_current_timestamp();
    json!({"iss": "https://accounts.google.com", "aud": AUDIENCE, "email": EMAIL, "email_verified": true, "sub": "1",
        "iat": now, "exp": now + 3_600})
}

/// What is published; nothing: an outage.
struct Google {
    keys: StdMutex<Option<Vec<Value>>>,
    asked: AtomicUsize,
}

async fn publish(State(google): State<Arc<Google>>) -> Response {
    google.asked.fetch_add(1, Ordering::SeqCst);
    match &*google.keys.lock().unwrap() {
        Some(keys) => {
            ([("cache-control", "public, max-age=600, must-revalidate")], json!({ "keys": keys }).to_string())
                .into_response()
        }
        None => axum::http::StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

impl Google {
    async fn start(keys: Option<Vec<Value>>) -> (Arc<Self>, Verifier) {
        let google = Arc::new(Self { keys: StdMutex::new(keys), asked: AtomicUsize::new(0) });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/certs", listener.local_addr().unwrap());
        let router = Router::new().route("/certs", get(publish)).with_state(Arc::clone(&google));
        tokio::spawn(async move { axum::serve(listener, router).await });
        let expected = Expected { audience: AUDIENCE.to_owned(), email: EMAIL.to_owned(), keys: url.parse().unwrap() };
        (google, Verifier::new(&expected).unwrap())
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn publish(&self, keys: Option<Vec<Value>>) {
        *self.keys.lock().unwrap() = keys;
    }
}

async fn pass(span: Duration) {
    tokio::time::pause();
    tokio::time::advance(span).await;
    tokio::time::resume();
}

#[tokio::test]
async fn only_a_living_token_of_the_expected_account_for_us_is_taken() {
    let (signer, stranger) = (Signer::new("one"), Signer::new("one"));
    let (google, verifier) = Google::start(Some(vec![signer.public.clone()])).await;
    verifier.verify(&signer.sign(&claims())).await.unwrap();
    let now = get_current_timestamp();
    for (member, value, reason) in [
        ("iss", json!("https://accounts.example"), "issuer"),
        ("iss", json!(null), "missing claim"),
        ("aud", json!("https://else.example"), "audience"),
        ("aud", json!(null), "missing claim"),
        ("exp", json!(now - SKEW - 5), "expired"),
        ("exp", json!(null), "missing claim"),
        ("exp", json!("tomorrow"), "missing claim"),
        ("iat", json!(now + SKEW + 60), "not issued yet"),
        ("iat", json!(null), "not issued yet"),
        ("email", json!("other@project.iam.gserviceaccount.com"), "email"),
        ("email", json!(null), "email"),
        ("email_verified", json!(false), "email not verified"),
        ("email_verified", json!("yes"), "email not verified"),
    ] {
        let mut claims = claims();
        claims[member] = value.clone();
        let outcome = verifier.verify(&signer.sign(&claims)).await;
        assert_eq!(outcome, Err(Refused::Token(reason)), "{member}: {value}");
    }
    assert_eq!(verifier.verify(&stranger.sign(&claims())).await, Err(Refused::Token("signature")));
    let whole = signer.sign(&claims());
    for broken in [
        "",
        "a.b.c",
        &whole[..whole.len() - 8],
        whole.rsplit_once('.').unwrap().0,
        &whole.replacen('.', "..", 1),
        &"x".repeat(MAX_TOKEN + 1),
    ] {
        assert!(matches!(verifier.verify(broken).await, Err(Refused::Token(_))), "{broken:?}");
    }
    assert_eq!(google.asked(), 1);
}

#[tokio::test]
async fn no_other_algorithm_is_taken_whatever_the_token_says() {
    use base64::Engine as _;
    let signer = Signer::new("one");
    let (_google, verifier) = Google::start(Some(vec![signer.public.clone()])).await;
    let part = |value: &Value| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(value.to_string());
    for alg in ["none", "HS256", "RS512", "ES256"] {
        let token = format!("{}.{}.c2ln", part(&json!({"alg": alg, "kid": "one", "typ": "JWT"})), part(&claims()));
        assert!(matches!(verifier.verify(&token).await, Err(Refused::Token(_))), "{alg}");
    }
    let unnamed = encode(&Header::new(Algorithm::RS256), &claims(), &signer.private).unwrap();
    assert_eq!(verifier.verify(&unnamed).await, Err(Refused::Token("no key id")));
}

#[tokio::test]
async fn keys_are_kept_and_a_new_one_is_found_by_a_token_that_names_it() {
    let (old, new) = (Signer::new("old"), Signer::new("new"));
    let (google, verifier) = Google::start(Some(vec![old.public.clone()])).await;
    for _ in 0..20 {
        verifier.verify(&old.sign(&claims())).await.unwrap();
    }
    assert_eq!(google.asked(), 1);
    google.publish(Some(vec![old.public.clone(), new.public.clone()]));
    // Just looked: a made-up id makes nobody look again.
    assert_eq!(verifier.verify(&new.sign(&claims())).await, Err(Refused::Token("unknown key")));
    assert_eq!(google.asked(), 1);
    pass(LOOK_EVERY).await;
    verifier.verify(&new.sign(&claims())).await.unwrap();
    verifier.verify(&old.sign(&claims())).await.unwrap();
    assert_eq!(google.asked(), 2);
}

#[tokio::test]
async fn old_keys_serve_while_google_is_away_and_not_for_ever() {
    let signer = Signer::new("one");
    let (google, verifier) = Google::start(None).await;
    assert_eq!(verifier.verify(&signer.sign(&claims())).await, Err(Refused::KeysAway));
    google.publish(Some(vec![signer.public.clone()]));
    pass(LOOK_EVERY).await;
    verifier.verify(&signer.sign(&claims())).await.unwrap();
    google.publish(None);
    pass(Duration::from_secs(601)).await;
    verifier.verify(&signer.sign(&claims())).await.unwrap();
    let looked = async {
        while google.asked() < 3 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), looked).await.expect("keys that aged are renewed");
    verifier.verify(&signer.sign(&claims())).await.unwrap();
    pass(STALE).await;
    assert_eq!(verifier.verify(&signer.sign(&claims())).await, Err(Refused::KeysAway));
}

#[test]
fn max_age_is_found_among_the_directives() {
    let age = |text: &'static str| {
        max_age(&http::HeaderMap::from_iter([(http::header::CACHE_CONTROL, http::HeaderValue::from_static(text))]))
    };
    assert_eq!(age("public, max-age=22345, must-revalidate"), Some(Duration::from_secs(22_345)));
    for without in ["no-store", "max-age=soon", ""] {
        assert_eq!(age(without), None);
    }
}
