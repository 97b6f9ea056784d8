//! OAuth from the browser's first redirect to the last refresh, and service accounts.

use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::rsa::Rsa;
use openssl::sign::{Signer, Verifier};
use serde_json::{Value, json};
use simulator::{NewMailbox, OAuthClient, ServiceAccount};

use crate::client::{EMAIL, Reply, World, encoded};

const READONLY: &str = "https://www.googleapis.com/auth/gmail.readonly";
const FORM: &str = "application/x-www-form-urlencoded";
/// The example of RFC 7636, appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

fn query(pairs: &[(&str, &str)]) -> String {
    pairs.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect::<Vec<_>>().join("&")
}

/// The query of the address that a redirect leads to.
fn landed(reply: &Reply) -> std::collections::HashMap<String, String> {
    assert_eq!(reply.status, 302, "{}", reply.text());
    let url = url::Url::parse(&reply.headers["location"]).unwrap();
    assert!(url.as_str().starts_with("http://app.example/cb?own=1&"), "{url}");
    url.query_pairs().into_owned().collect()
}

async fn world() -> World {
    let world = World::new().await;
    world.control().add_client(OAuthClient {
        client_id: "app".to_owned(),
        client_secret: "secret".to_owned(),
        redirect_uris: vec!["http://app.example/cb?own=1".to_owned()],
        grants_end_after_ms: None,
    });
    world
}

fn request<'a>(more: &[(&'a str, &'a str)]) -> String {
    let mut pairs = vec![
        ("client_id", "app"),
        ("redirect_uri", "http://app.example/cb?own=1"),
        ("response_type", "code"),
        ("scope", READONLY),
        ("state", "s & s"),
        ("access_type", "offline"),
        ("login_hint", EMAIL),
    ];
    pairs.retain(|(name, _)| !more.iter().any(|(other, _)| other == name));
    pairs.extend_from_slice(more);
    format!("/o/oauth2/v2/auth?{}", query(&pairs))
}

async fn exchange(world: &World, code: &str, more: &[(&str, &str)]) -> Reply {
    let mut pairs = vec![
        ("grant_type", "authorization_code"),
        ("client_id", "app"),
        ("client_secret", "secret"),
        ("redirect_uri", "http://app.example/cb?own=1"),
        ("code", code),
    ];
    pairs.retain(|(name, _)| !more.iter().any(|(other, _)| other == name));
    pairs.extend_from_slice(more);
    world.send("POST", "/token", FORM, query(&pairs).as_bytes()).await
}

#[tokio::test]
async fn a_consent_with_pkce_gives_tokens_once() {
    let world = world().await;
    let asked = request(&[("code_challenge", CHALLENGE), ("code_challenge_method", "S256")]);
    let answer = landed(&world.raw("GET", &asked, &[], b"").await);
    assert_eq!(answer["state"], "s & s");
    assert_eq!(answer["scope"], READONLY);
    assert_eq!(answer["iss"], "https://accounts.google.com");

    let wrong = exchange(&world, &answer["code"], &[("code_verifier", &"x".repeat(43))]).await;
    assert_eq!((wrong.status, &wrong.json()["error"]), (400, &json!("invalid_grant")));
    let used = exchange(&world, &answer["code"], &[("code_verifier", VERIFIER)]).await;
    assert_eq!(used.status, 400, "a code is good once, also after a failure");

    let answer = landed(&world.raw("GET", &asked, &[], b"").await);
    let tokens = exchange(&world, &answer["code"], &[("code_verifier", VERIFIER)]).await.json();
    assert_eq!((&tokens["token_type"], &tokens["scope"]), (&json!("Bearer"), &json!(READONLY)));
    let refresh_token = tokens["refresh_token"].as_str().expect("asked for the first time").to_owned();
    let world = World { refresh_token, token: tokens["access_token"].as_str().unwrap().to_owned(), ..world };
    assert_eq!(world.me("profile").await.json()["emailAddress"], EMAIL);

    // A second consent gives a refresh token only if the user is asked again.
    for (prompt, given) in [("select_account", false), ("consent", true)] {
        let answer = landed(&world.raw("GET", &request(&[("prompt", prompt)]), &[], b"").await);
        let tokens = exchange(&world, &answer["code"], &[]).await.json();
        assert_eq!(tokens.get("refresh_token").is_some(), given, "{prompt}");
    }
    let online =
        landed(&world.raw("GET", &request(&[("access_type", "online"), ("prompt", "consent")]), &[], b"").await);
    assert!(exchange(&world, &online["code"], &[]).await.json().get("refresh_token").is_none());
}

#[tokio::test]
async fn what_is_wrong_with_a_request_or_an_exchange_is_told() {
    let world = world().await;
    for (more, text) in [
        ([("redirect_uri", "http://evil.example/cb")], "redirect_uri_mismatch"),
        ([("client_id", "nobody")], "invalid_client"),
        ([("response_type", "token")], "unsupported_response_type"),
        ([("scope", "")], "invalid_request"),
        ([("code_challenge_method", "S512")], "302"),
    ] {
        let reply = world.raw("GET", &request(&more), &[], b"").await;
        if text == "302" {
            assert_eq!(reply.status, 302, "a method without a challenge is nothing");
        } else {
            assert_eq!(reply.status, 400);
            assert!(reply.text().contains(text), "{}", reply.text());
            assert!(!reply.headers.contains_key("location"), "never sent to an address that is not the client's");
        }
    }
    let stranger = landed(&world.raw("GET", &request(&[("login_hint", "stranger@example.org")]), &[], b"").await);
    assert_eq!(stranger["error"], "access_denied");
    let none = landed(&world.raw("GET", &request(&[("prompt", "none")]), &[], b"").await);
    assert_eq!(none["error"], "interaction_required");

    let error = async |more: &[(&str, &str)]| {
        let answer = landed(&world.raw("GET", &request(&[]), &[], b"").await);
        let reply = exchange(&world, &answer["code"], more).await;
        (reply.status, reply.json()["error"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(error(&[("client_secret", "guess")]).await, (401, "invalid_client".to_owned()));
    assert_eq!(error(&[("redirect_uri", "http://app.example/cb")]).await, (400, "redirect_uri_mismatch".to_owned()));
    assert_eq!(error(&[("code_verifier", VERIFIER)]).await, (400, "invalid_grant".to_owned()));
    assert_eq!(error(&[("code", "4/0Aguess")]).await, (400, "invalid_grant".to_owned()));
    assert_eq!(error(&[]).await, (200, String::new()));
}

#[tokio::test]
async fn the_page_asks_and_the_user_may_untick_or_cancel() {
    let world = world().await;
    world.control().set_auto_approve(false);
    world.control().create(&NewMailbox { email: "<b>@example.org".to_owned(), ..NewMailbox::default() }).unwrap();
    let metadata = "https://www.googleapis.com/auth/gmail.metadata";
    let both = format!("{READONLY} {metadata}");
    let asked = request(&[("scope", &both)]);
    let page = world.raw("GET", &asked, &[], b"").await;
    assert_eq!(page.status, 200);
    assert!(page.text().contains("<option selected>Ann@Example.org</option>"), "{}", page.text());
    assert!(page.text().contains("&lt;b&gt;@example.org"));
    let decide = async |form: &str| landed(&world.send("POST", &asked, FORM, form.as_bytes()).await);
    let form = query(&[("account", EMAIL), ("scope", READONLY), ("decision", "allow")]);
    let allowed = decide(&form).await;
    assert_eq!(allowed["scope"], READONLY);
    assert_eq!(exchange(&world, &allowed["code"], &[]).await.json()["scope"], READONLY);
    assert_eq!(decide(&query(&[("account", EMAIL), ("decision", "deny")])).await["error"], "access_denied");
}

#[tokio::test]
async fn an_app_in_testing_has_grants_that_end_and_an_id_token_can_be_verified() {
    let world = world().await;
    world.control().add_client(OAuthClient {
        client_id: "app".to_owned(),
        client_secret: "secret".to_owned(),
        redirect_uris: Vec::new(),
        grants_end_after_ms: Some(7 * 86_400_000),
    });
    let answer = landed(&world.raw("GET", &request(&[("scope", &format!("openid {READONLY}"))]), &[], b"").await);
    let tokens = exchange(&world, &answer["code"], &[]).await.json();
    assert_eq!(tokens["refresh_token_expires_in"], 604_800);
    let keys = world.raw("GET", "/oauth2/v3/certs", &[], b"").await.json();
    let claims = verified(tokens["id_token"].as_str().unwrap(), &keys["keys"][0]);
    assert_eq!((&claims["email"], &claims["aud"]), (&json!(EMAIL), &json!("app")));
    let known = world.raw("GET", "/.well-known/openid-configuration", &[], b"").await.json();
    assert_eq!(known["jwks_uri"], "http://test/oauth2/v3/certs");

    let refresh = query(&[
        ("grant_type", "refresh_token"),
        ("client_id", "app"),
        ("client_secret", "secret"),
        ("refresh_token", tokens["refresh_token"].as_str().unwrap()),
    ]);
    assert_eq!(world.send("POST", "/token", FORM, refresh.as_bytes()).await.status, 200);
    world.control().clock().advance(7 * 86_400_000);
    let ended = world.send("POST", "/token", FORM, refresh.as_bytes()).await;
    assert_eq!((ended.status, &ended.json()["error"]), (400, &json!("invalid_grant")));
}

/// The claims of a token, after verifying it with a key of the published set.
pub(crate) fn verified(token: &str, key: &Value) -> Value {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let number = |name: &str| {
        openssl::bn::BigNum::from_slice(&URL_SAFE_NO_PAD.decode(key[name].as_str().unwrap()).unwrap()).unwrap()
    };
    let public = PKey::from_rsa(Rsa::from_public_components(number("n"), number("e")).unwrap()).unwrap();
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let mut verifier = Verifier::new(MessageDigest::sha256(), &public).unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    assert!(verifier.verify_oneshot(&signature, signed.as_bytes()).unwrap(), "the signature is Google's");
    let (header, claims) = signed.split_once('.').unwrap();
    let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap();
    assert_eq!((&header["alg"], &header["kid"]), (&json!("RS256"), &key["kid"]));
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap()
}

#[tokio::test]
async fn a_service_account_reads_the_mailbox_of_the_user_it_names() {
    use base64::Engine as _;
    let world = World::new().await;
    let key = PKey::from_rsa(Rsa::generate(2_048).unwrap()).unwrap();
    let public_key = String::from_utf8(key.public_key_to_pem().unwrap()).unwrap();
    let email = "robot@project.iam.gserviceaccount.com";
    let scopes = READONLY.to_owned();
    world.control().add_service_account(ServiceAccount { email: email.to_owned(), public_key, scopes }).unwrap();
    let now = world.control().clock().now_ms() / 1_000;
    let good = json!({
        "iss": email, "sub": EMAIL, "scope": READONLY, "aud": "https://oauth2.googleapis.com/token",
        "iat": now, "exp": now + 3_600,
    });
    let present = async |changes: Value| {
        let mut claims = good.clone();
        claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let part = |value: &Value| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&json!({"alg": "RS256", "typ": "JWT"})), part(&claims));
        let mut signer = Signer::new(MessageDigest::sha256(), &key).unwrap();
        let signature = signer.sign_oneshot_to_vec(signed.as_bytes()).unwrap();
        let signature = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(signature);
        let form = query(&[
            ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
            ("assertion", &format!("{signed}.{signature}")),
        ]);
        world.send("POST", "/token", FORM, form.as_bytes()).await
    };
    let tokens = present(json!({})).await.json();
    assert!(tokens.get("refresh_token").is_none());
    let bearer = format!("Bearer {}", tokens["access_token"].as_str().unwrap());
    let profile = world.raw("GET", "/gmail/v1/users/me/profile", &[("authorization", &bearer)], b"").await;
    assert_eq!(profile.json()["emailAddress"], EMAIL);
    for (changes, error) in [
        (json!({"scope": "https://mail.google.com/"}), "unauthorized_client"),
        (json!({"sub": null}), "unauthorized_client"),
        (json!({"sub": "nobody@example.org"}), "invalid_grant"),
        (json!({"iss": "other@project.iam.gserviceaccount.com"}), "invalid_grant"),
        (json!({"exp": now + 7_200}), "invalid_grant"),
        (json!({"exp": now - 1, "iat": now - 100}), "invalid_grant"),
        (json!({"aud": "https://example.org"}), "invalid_grant"),
    ] {
        let refused = present(changes.clone()).await;
        assert_eq!(refused.json()["error"], error, "{changes}");
        assert_eq!(refused.status, if error == "unauthorized_client" { 401 } else { 400 });
    }
}
