//! A listener as production has them: TLS, SASL, and nothing allowed that was not granted.
//!
//! The node keeps its plain listener on the loopback beside it, where everybody is a super user: for the node itself,
//! and for whoever grants.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::x509::extension::{BasicConstraints, KeyUsage, SubjectAlternativeName};
use openssl::x509::{X509, X509NameBuilder};

use crate::Error;

/// Who may say who they are: names and passwords for SCRAM-SHA-512. OAUTHBEARER takes unsigned tokens, as only a test
/// may.
#[derive(Debug, Clone, Default)]
pub struct Users(pub Vec<(String, String)>);

/// The listener, for its clients.
#[derive(Debug, Clone)]
pub struct Secure {
    address: SocketAddr,
    ca: PathBuf,
}

impl Secure {
    /// What clients connect to: `host:port`.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        self.address.to_string()
    }

    /// The PEM file of the authority that signed the listener's certificate, made for this node alone.
    #[must_use]
    pub fn ca(&self) -> &Path {
        &self.ca
    }

    /// Makes the certificates in `folder`, and what the node's settings need beyond the usual.
    pub(crate) fn set_up(folder: &Path, port: u16) -> Result<(Self, Vec<(String, String)>), Error> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let (ca, keystore) = (folder.join("ca.pem"), folder.join("listener.pem"));
        let made = certificates().map_err(|error| Error::Failed {
            what: "making certificates for Kafka".to_owned(),
            status: "OpenSSL's error".to_owned(),
            output: error.to_string(),
        })?;
        for (path, text) in [(&ca, &made.0), (&keystore, &made.1)] {
            fs::write(path, text).map_err(Error::io(format!("writing {}", path.display())))?;
        }
        let keystore = keystore.display().to_string();
        let login = "org.apache.kafka.common.security";
        let settings = [
            ("listener.security.protocol.map", "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL"),
            ("ssl.keystore.type", "PEM"),
            ("ssl.keystore.location", &keystore),
            ("sasl.enabled.mechanisms", "SCRAM-SHA-512,OAUTHBEARER"),
            (
                "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config",
                &format!("{login}.scram.ScramLoginModule required;"),
            ),
            (
                "listener.name.sasl_ssl.oauthbearer.sasl.jaas.config",
                &format!("{login}.oauthbearer.OAuthBearerLoginModule required;"),
            ),
            ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"),
            ("super.users", "User:ANONYMOUS"),
        ];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Ok((Self { address, ca }, settings.into()))
    }

    /// The listener as the node's settings list it.
    pub(crate) fn listener(&self) -> String {
        format!("SASL_SSL://{}", self.address)
    }
}

/// An authority, and a key with a certificate that it signed for this host, both as PEM.
fn certificates() -> Result<(Vec<u8>, Vec<u8>), ErrorStack> {
    let (ca_key, key) = (key()?, key()?);
    let ca = certificate("mailtide devstack", &ca_key, None)?;
    let certificate = certificate("127.0.0.1", &key, Some((&ca, &ca_key)))?;
    let mut keystore = key.private_key_to_pem_pkcs8()?;
    keystore.extend(certificate.to_pem()?);
    keystore.extend(ca.to_pem()?);
    Ok((ca.to_pem()?, keystore))
}

fn key() -> Result<PKey<Private>, ErrorStack> {
    let curve = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    PKey::from_ec_key(EcKey::generate(&curve)?)
}

/// A certificate for `name`, signed by an authority, or by itself: then it is one.
fn certificate(
    name: &str,
    key: &PKey<Private>,
    authority: Option<(&X509, &PKey<Private>)>,
) -> Result<X509, ErrorStack> {
    let mut subject = X509NameBuilder::new()?;
    subject.append_entry_by_text("CN", name)?;
    let subject = subject.build();
    let mut serial = BigNum::new()?;
    serial.rand(127, MsbOption::MAYBE_ZERO, false)?;
    let mut builder = X509::builder()?;
    builder.set_version(2)?;
    builder.set_serial_number(&*serial.to_asn1_integer()?)?;
    builder.set_subject_name(&subject)?;
    builder.set_issuer_name(authority.map_or(&*subject, |(it, _)| it.subject_name()))?;
    builder.set_pubkey(key)?;
    builder.set_not_before(&*Asn1Time::days_from_now(0)?)?;
    builder.set_not_after(&*Asn1Time::days_from_now(30)?)?;
    if authority.is_none() {
        builder.append_extension(BasicConstraints::new().critical().ca().build()?)?;
        builder.append_extension(KeyUsage::new().critical().key_cert_sign().build()?)?;
    } else {
        let context = builder.x509v3_context(authority.map(|(it, _)| &**it), None);
        let names = SubjectAlternativeName::new().ip("127.0.0.1").dns("localhost").build(&context)?;
        builder.append_extension(names)?;
    }
    builder.sign(authority.map_or(key, |(_, key)| key), MessageDigest::sha256())?;
    Ok(builder.build())
}

#[cfg(test)]
mod tests {
    use openssl::pkey::PKey;
    use openssl::x509::X509;

    #[test]
    fn the_listeners_certificate_is_signed_by_the_authority() {
        let (ca, keystore) = super::certificates().unwrap();
        let ca = X509::from_pem(&ca).unwrap();
        let chain = X509::stack_from_pem(&keystore).unwrap();
        assert!(chain[0].verify(&ca.public_key().unwrap()).unwrap());
        let key = PKey::private_key_from_pem(&keystore).unwrap();
        assert!(chain[0].public_key().unwrap().public_eq(&key));
    }
}
