//! A real ingress, with mailboxes to ask for.

use std::net::SocketAddr;

use anyhow::Context;
use bytes::Bytes;
use domain::{ConnectionId, OrganisationId};
use http::{HeaderName, HeaderValue, Method, StatusCode, Uri};
use ingress::Ingress;
use runtime::Shutdown;
use runtime::health::Health;
use runtime::settings::Source;
use secrecy::{ExposeSecret, SecretString};
use store::connections::Consent;
use store::keys::Scope;
use store::{Store, connections, keys, organisations};
use tokio::task::JoinHandle;

use crate::load::Call;
use crate::syncs::now;

/// Ingress at work.
pub(crate) struct Api {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Whose key it is.
    pub(crate) organisation: OrganisationId,
    key: HeaderValue,
    shutdown: Shutdown,
    server: JoinHandle<anyhow::Result<()>>,
}

impl Api {
    /// Starts ingress with the settings that it has by default, on a free port; one key asks for all, so its rate is
    /// counted as ever but never exceeded.
    pub(crate) async fn start(kafka: &kafka::Settings, store: &Store) -> anyhow::Result<Self> {
        Self::start_with(kafka, store, &[]).await
    }

    /// The same with some settings changed.
    pub(crate) async fn start_with(
        kafka: &kafka::Settings,
        store: &Store,
        changes: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let settings = [
            ("MAILTIDE_INGRESS_LISTEN", "127.0.0.1:0"),
            ("MAILTIDE_INGRESS_RATE_LIMIT", "1000000"),
            ("MAILTIDE_INGRESS_RATE_BURST", "1000000"),
        ];
        let settings = settings.iter().chain(changes).copied();
        let mut source = Source::from_parts(None, settings);
        let settings = ingress::Settings::read(&mut source);
        let ingress = Ingress::start(&settings, kafka, store.clone(), &Health::new()).await?;
        let address = ingress.address()?;
        let shutdown = Shutdown::new();
        let server = tokio::spawn(ingress.serve(shutdown.clone()));
        let organisation = organisations::create(store, "bench", now()).await?.organisation_id;
        let (_, key) = keys::create(store, organisation, "bench", &[Scope::Write], now()).await?;
        let key = HeaderValue::try_from(key.expose_secret()).context("An API key is a header's value")?;
        Ok(Self { address, organisation, key, shutdown, server })
    }

    /// Connects so many mailboxes.
    pub(crate) async fn connect(&self, store: &Store, n: usize) -> anyhow::Result<Vec<ConnectionId>> {
        let token = SecretString::from("none");
        let mut connected = Vec::with_capacity(n);
        for number in 0..n {
            let account = format!("bench-{number}");
            let consent = Consent { account: &account, email: &account, refresh_token: &token };
            connected.push(connections::add(store, self.organisation, &consent, now()).await?.connection_id);
        }
        Ok(connected)
    }

    /// The call that asks for a sync of a mailbox.
    pub(crate) fn call(&self, connection: ConnectionId) -> anyhow::Result<Call> {
        let path = Uri::try_from(format!("/gmail-connections/{connection}/sync"))?;
        let header = Some((HeaderName::from_static("x-dolfin-api-key"), self.key.clone()));
        Ok(Call {
            method: Method::POST,
            path,
            header,
            is_named: false,
            body: Bytes::new(),
            status: StatusCode::ACCEPTED,
        })
    }

    /// Stops it.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.shutdown.request();
        self.server.await?
    }
}
