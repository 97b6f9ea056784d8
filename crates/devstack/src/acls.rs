//! Grants rights at a node with an authorizer, and takes them away, in Kafka's own protocol: the tool that comes with
//! Kafka takes a Java of its own for each. The layouts are those of the protocol guide's schemas
//! `CreateAclsRequest.json` (key 30) and `DeleteAclsRequest.json` (key 31), both in version 1.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::Error;

const TIMEOUT: Duration = Duration::from_secs(30);

/// Longest answer taken, in bytes.
const LONGEST: u32 = 1 << 20;

/// Kafka's number for what is allowed, rather than denied.
const ALLOW: u8 = 3;

/// Leave for a principal to do something. The names are those of `kafka-acls`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acl {
    /// Who, such as `User:poller`.
    pub principal: String,
    /// `Topic`, `Group` or `TransactionalId`.
    pub resource: String,
    /// The resource's name.
    pub name: String,
    /// Whether it is for all names that begin so.
    pub is_prefix: bool,
    /// `Read`, `Write`, `Create`, `Alter` or `Describe`.
    pub operation: String,
}

impl Acl {
    /// Type, name and pattern of the resource, then who from where may do what: what both requests are made of.
    fn encode(&self, into: &mut Vec<u8>) -> Result<(), Error> {
        let unknown = |what: &str, found: &str| Error::Failed {
            what: format!("granting {self:?}"),
            status: format!("an unknown {what}"),
            output: found.to_owned(),
        };
        let resource = match self.resource.as_str() {
            "Topic" => 2,
            "Group" => 3,
            "TransactionalId" => 5,
            found => return Err(unknown("resource", found)),
        };
        let operation = match self.operation.as_str() {
            "Read" => 3,
            "Write" => 4,
            "Create" => 5,
            "Alter" => 7,
            "Describe" => 8,
            found => return Err(unknown("operation", found)),
        };
        into.push(resource);
        string(into, &self.name);
        into.push(if self.is_prefix { 4 } else { 3 });
        string(into, &self.principal);
        string(into, "*");
        into.extend([operation, ALLOW]);
        Ok(())
    }
}

fn string(into: &mut Vec<u8>, text: &str) {
    let length = u16::try_from(text.len()).expect("a name in Kafka is at most 249 bytes");
    into.extend(length.to_be_bytes());
    into.extend(text.as_bytes());
}

/// Grants all of `acls` at the plain listener of a node.
pub(crate) fn grant(address: SocketAddr, acls: &[Acl]) -> Result<(), Error> {
    change(address, 30, "granting rights at Kafka", acls)
}

/// Takes all of `acls` away there.
pub(crate) fn revoke(address: SocketAddr, acls: &[Acl]) -> Result<(), Error> {
    change(address, 31, "taking rights away at Kafka", acls)
}

fn change(address: SocketAddr, key: u8, what: &str, acls: &[Acl]) -> Result<(), Error> {
    // Key, version 1, correlation 7, no client id, then the array.
    let mut request = vec![0, key, 0, 1, 0, 0, 0, 7, 0xff, 0xff];
    request.extend(u32::try_from(acls.len()).expect("a list in memory").to_be_bytes());
    for acl in acls {
        acl.encode(&mut request)?;
    }
    let answer = ask(address, &request).map_err(Error::io(format!("{what}, asking {address}")))?;
    match first_error(&answer, acls.len()) {
        Some(0) => Ok(()),
        code => {
            let status = code.map_or_else(|| "an answer that cannot be read".to_owned(), |it| format!("error {it}"));
            Err(Error::Failed { what: what.to_owned(), status, output: format!("{acls:?}") })
        }
    }
}

fn ask(address: SocketAddr, request: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let size = u32::try_from(request.len()).expect("a request in memory");
    stream.write_all(&[&size.to_be_bytes(), request].concat())?;
    let mut size = [0; 4];
    stream.read_exact(&mut size)?;
    let mut answer = Vec::new();
    stream.take(u64::from(u32::from_be_bytes(size).min(LONGEST))).read_to_end(&mut answer)?;
    Ok(answer)
}

/// The answer is: correlation, throttle time, then for each an error code, a message that may be null (length -1), and,
/// of those taken away, which they were. The first is enough: with one refused, so are all of a kind.
fn first_error(answer: &[u8], asked: usize) -> Option<i16> {
    match answer {
        [0, 0, 0, 7, _, _, _, _, a, b, c, d, x, y, ..] if u32::from_be_bytes([*a, *b, *c, *d]) as usize == asked => {
            Some(i16::from_be_bytes([*x, *y]))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_right_is_laid_out_as_the_protocol_says() {
        let acl = Acl {
            principal: "User:a".into(),
            resource: "Topic".into(),
            name: "t".into(),
            is_prefix: false,
            operation: "Read".into(),
        };
        let mut bytes = Vec::new();
        acl.encode(&mut bytes).unwrap();
        assert_eq!(bytes, b"\x02\x00\x01t\x03\x00\x06User:a\x00\x01*\x03\x03");
        assert!(Acl { operation: "Fly".into(), ..acl }.encode(&mut bytes).is_err());
    }

    #[test]
    fn the_first_error_is_found() {
        assert_eq!(first_error(&[0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 1, 0, 31, 0xff, 0xff], 1), Some(31));
        assert_eq!(first_error(&[0, 0, 0, 7], 1), None);
    }
}
