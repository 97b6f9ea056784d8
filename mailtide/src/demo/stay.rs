//! After the table: the demo stays up for whoever wants to look around.

use std::net::SocketAddr;

use runtime::Shutdown;
use secrecy::{ExposeSecret, SecretString};

use super::play::Target;
use super::watch::Watch;
use crate::dev::connect_call;
use crate::local::Local;
use crate::settings::Settings;

/// A mailbox to connect.
const NEWCOMER: &str = "newcomer@demo.example";

/// What there is to look at.
pub(super) struct Sights<'a> {
    /// The effective settings.
    pub(super) settings: &'a Settings,
    /// The servers.
    pub(super) local: &'a Local,
    /// Where the API listens.
    pub(super) api: SocketAddr,
    /// Where the simulated Gmail listens.
    pub(super) gmail: &'a str,
    /// The key to the API.
    pub(super) key: &'a SecretString,
    /// A mailbox to try things on.
    pub(super) target: &'a Target,
    /// The path of a job to look at.
    pub(super) job: &'a str,
}

/// Prints where everything is and what to try; ends when told to, or when nothing more can be read.
pub(super) async fn stay(sights: Sights<'_>, watch: &mut Watch, shutdown: &Shutdown) -> anyhow::Result<()> {
    let Sights { settings, local, api, gmail, key, target, job } = sights;
    let (header, key) = (&settings.ingress.api_key_header, key.expose_secret());
    let (connection, address) = (target.connection, &target.post.address);
    println!("\nIt stays up until Ctrl-C. The API is http://{api} (its document: http://{api}/openapi.json),");
    println!("the simulated Gmail {gmail}, Kafka {}", settings.kafka.bootstrap_servers);
    if let Some(url) = local.database_url() {
        println!("and Postgres {url}");
    }
    println!("\nTry in another terminal, and watch here: mail comes, a sync finds it, a job says how it went.\n");
    println!("  curl -X POST '{gmail}/control/mailboxes/{address}/deliver?n=3'");
    println!("  curl -i -X POST http://{api}/gmail-connections/{connection}/sync -H '{header}: {key}'");
    println!("  curl http://{api}{job} -H '{header}: {key}'\n");
    println!(
        "Connect another mailbox as its owner would: open the `consentUrl` that comes back in a browser. The simulated"
    );
    println!(
        "Google says yes and sends it on to the `returnUrl`, here the API's document, and the first sync begins.\n"
    );
    println!("  curl -X POST {gmail}/control/mailboxes -d '{{\"email\": \"{NEWCOMER}\"}}'");
    println!("  {}\n", connect_call(api, header, key, NEWCOMER));
    tokio::select! {
        () = shutdown.requested() => Ok(()),
        error = watch.failed() => Err(error),
    }
}
