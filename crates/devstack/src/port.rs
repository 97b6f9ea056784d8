//! Ports for servers that are started, killed and started again.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use crate::Error;

/// Below the range that systems hand to outgoing connections (Linux: 32768 and up). A server that
/// is away for a moment must find its own port free when it comes back.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// `N` different ports that nobody listens on at this moment.
pub(crate) fn free<const N: usize>() -> Result<[u16; N], Error> {
    Ok(several(N)?.try_into().expect("as many as were asked for"))
}

/// So many different ports that nobody listens on at this moment.
pub(crate) fn several(count: usize) -> Result<Vec<u16>, Error> {
    let mut listeners = Vec::with_capacity(count);
    let mut refused = None;
    for _ in 0..1_000 {
        if listeners.len() == count {
            break;
        }
        // Random, because other processes choose at the same moment.
        let random = uuid::Uuid::new_v4().as_u128() % u128::from(COUNT);
        let port = FIRST + u16::try_from(random).expect("COUNT is a u16");
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(listener) => listeners.push((port, listener)),
            Err(error) => refused = Some(error),
        }
    }
    if listeners.len() < count {
        let source = refused.unwrap_or_else(|| std::io::ErrorKind::AddrInUse.into());
        return Err(Error::Io { tried: format!("finding a free port from {FIRST} to {}", FIRST + COUNT - 1), source });
    }
    Ok(listeners.into_iter().map(|(port, _)| port).collect())
}

/// Whether somebody listens on the port.
pub(crate) fn accepts(port: u16) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpStream::connect_timeout(&address, Duration::from_secs(2)).is_ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn ports_differ() {
        let ports = super::free::<8>().unwrap();
        let distinct: std::collections::BTreeSet<_> = ports.iter().collect();
        assert_eq!(distinct.len(), 8);
    }
}
