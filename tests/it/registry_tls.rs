//! A registry that is reached by TLS alone, under a certificate of a company's own authority, and by a password: Apicurio
//! Registry behind a gateway, as companies have it.

use std::net::SocketAddr;
use std::path::Path;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use native_tls::Identity;
use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509, X509Name};
use tokio::net::{TcpListener, TcpStream};
use tokio_native_tls::TlsAcceptor;

use crate::support::{Place, Service, apicurio};

const USER: &str = "mailtide";
const PASSWORD: &str = "a-password-for-the-registry";

/// A key, and a certificate for it by `issuer`, or by itself: it is an authority then.
fn certificate(name: &str, issuer: Option<&(X509, PKey<Private>)>) -> (X509, PKey<Private>) {
    let key = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
    let mut subject = X509Name::builder().unwrap();
    subject.append_entry_by_text("CN", name).unwrap();
    let subject = subject.build();
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    let serial = BigNum::from_u32(if issuer.is_some() { 2 } else { 1 }).unwrap().to_asn1_integer().unwrap();
    builder.set_serial_number(&serial).unwrap();
    builder.set_subject_name(&subject).unwrap();
    builder.set_issuer_name(issuer.map_or(&*subject, |(issuer, _)| issuer.subject_name())).unwrap();
    builder.set_pubkey(&key).unwrap();
    builder.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
    builder.set_not_after(&Asn1Time::days_from_now(2).unwrap()).unwrap();
    if issuer.is_some() {
        let names = SubjectAlternativeName::new().ip("127.0.0.1").build(&builder.x509v3_context(None, None)).unwrap();
        builder.append_extension(names).unwrap();
    } else {
        builder.append_extension(BasicConstraints::new().critical().ca().build().unwrap()).unwrap();
    }
    builder.sign(issuer.map_or(&key, |(_, key)| key), MessageDigest::sha256()).unwrap();
    (builder.build(), key)
}

/// The gateway: it lets in whoever has the password, and passes subjects on under names of its own.
#[derive(Clone)]
struct Gateway {
    registry: String,
    http: reqwest::Client,
}

impl Gateway {
    async fn pass(State(gateway): State<Self>, request: Request) -> Response {
        let credentials = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{PASSWORD}"));
        let given = request.headers().get("authorization").and_then(|given| given.to_str().ok());
        if given != Some(&format!("Basic {credentials}")) {
            return (StatusCode::UNAUTHORIZED, r#"{"error_code":401,"message":"Unauthorized"}"#).into_response();
        }
        let path = request.uri().path_and_query().unwrap().as_str();
        let own = ["/subjects/", "/config/"];
        let path = own.iter().fold(path.to_owned(), |path, part| path.replacen(part, &format!("{part}tls."), 1));
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        let mut sent = gateway.http.request(parts.method, format!("{}{path}", gateway.registry)).body(body);
        if let Some(kind) = parts.headers.get("content-type") {
            sent = sent.header("content-type", kind);
        }
        let answer = sent.send().await.unwrap();
        (answer.status(), answer.bytes().await.unwrap()).into_response()
    }

    /// Opens it, under a certificate of the authority `authority` alone; gives its address.
    async fn open(authority: &(X509, PKey<Private>)) -> SocketAddr {
        let gateway = Self { registry: apicurio().await.url(), http: reqwest::Client::new() };
        let inner = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let inside = inner.local_addr().unwrap();
        let router = axum::Router::new().fallback(Self::pass).with_state(gateway);
        tokio::spawn(async move { axum::serve(inner, router).await.unwrap() });

        let (certificate, key) = certificate("registry", Some(authority));
        let key = key.private_key_to_pem_pkcs8().unwrap();
        let identity = Identity::from_pkcs8(&certificate.to_pem().unwrap(), &key).unwrap();
        let acceptor = TlsAcceptor::from(native_tls::TlsAcceptor::new(identity).unwrap());
        let outer = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = outer.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = outer.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    // Who does not trust it hangs up in the handshake.
                    let Ok(mut near) = acceptor.accept(stream).await else { return };
                    let mut far = TcpStream::connect(inside).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                });
            }
        });
        address
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_is_trusted_by_the_authority_in_the_settings_and_known_by_a_password() {
    let place = Place::new("registry-tls");
    let (authority, stranger) = (certificate("authority", None), certificate("stranger", None));
    let url = format!("https://{}", Gateway::open(&authority).await);
    let write = |name: &str, pem: &[u8]| {
        let file = place.folder().join(name);
        std::fs::write(&file, pem).unwrap();
        file
    };
    let trusted = write("authority.pem", &authority.0.to_pem().unwrap());
    let other = write("stranger.pem", &stranger.0.to_pem().unwrap());
    let empty = write("empty.pem", b"no certificate");
    let start = |name: &str, ca_file: Option<&Path>, password: &str| -> Service {
        let mut service = place.service(name, &["scheduler"]).set("SCHEMA_REGISTRY_URL", &url);
        service = service.set("MAILTIDE_REGISTRY_USER", USER).set("MAILTIDE_REGISTRY_PASSWORD", password);
        if let Some(file) = ca_file {
            service = service.set("MAILTIDE_REGISTRY_CA_FILE", file.to_str().unwrap());
        }
        service.start();
        service
    };

    // One that cannot be trusted is not spoken to: it may be another by tomorrow, and is waited for.
    for (name, file) in [("untrusting", None), ("strange", Some(other.as_path()))] {
        let mut service = start(name, file, PASSWORD);
        let error = service.logged("The service waits for the schema registry", "error").await;
        assert!(error.contains("certificate"), "{error}");
        assert_eq!(service.stop(), 0, "{}", service.log());
    }
    let missing = place.folder().join("missing.pem");
    for (name, file) in [("missing", &missing), ("empty", &empty)] {
        let mut service = start(name, Some(file), PASSWORD);
        assert_eq!(service.ended().await, 1);
        assert!(service.log().contains(file.to_str().unwrap()), "{}", service.log());
    }
    let mut service = start("unknown", Some(&trusted), "another-password");
    assert_eq!(service.ended().await, 1);
    let log = service.log();
    assert!(log.contains("check registry.user and registry.password") && !log.contains("another-password"), "{log}");

    let mut service = start("trusting", Some(&trusted), PASSWORD);
    service.ready().await;
    let subject = format!("{}/subjects/tls.mailtide.gmail.CancelJob/versions", apicurio().await.url());
    let registered = reqwest::get(&subject).await.unwrap();
    assert!(registered.status().is_success(), "{registered:?}");
    assert_eq!(service.stop(), 0);
    assert!(!service.log().contains(PASSWORD));
}
