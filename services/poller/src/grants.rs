//! The mailboxes at Gmail: the client, with refresh tokens from the store.

use std::sync::Arc;

use domain::mailbox::reply::{Answer, Call};
use domain::{ConnectionId, OrganisationId};
use gmail::gate::Holding;
use gmail::{Account, Client, Credential, Gate, Grant, Mailbox, TokenSource, TokenSourceError};
use store::{Store, connections};

use crate::calls::Mailboxes;

/// Refresh tokens from Postgres. Asked once for each refresh of an access token, so that mailboxes whose access token
/// still lives go on while Postgres is away.
#[derive(Clone)]
pub struct Grants(Store);

impl Grants {
    /// Those of this store.
    pub const fn new(store: Store) -> Self {
        Self(store)
    }
}

impl std::fmt::Debug for Grants {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Grants(…)")
    }
}

impl TokenSource for Grants {
    fn refresh_token(
        &self,
        mailbox: Mailbox,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<Grant, TokenSourceError>> + Send + '_>> {
        Box::pin(async move {
            let found = connections::refresh_token(&self.0, mailbox.organisation_id, mailbox.connection_id).await;
            match found {
                Ok(Some(grant)) => Ok(Grant {
                    account: Account::new(&grant.account),
                    shares: grant.shares.max(1),
                    token_version: grant.token_version,
                    credential: match grant.is_delegated {
                        true => Credential::Delegated { subject: grant.email },
                        false => Credential::RefreshToken(grant.refresh_token),
                    },
                }),
                Ok(None) => Err(TokenSourceError::Gone),
                Err(error @ (store::Error::TokenKey { .. } | store::Error::Settings { .. })) => {
                    Err(TokenSourceError::Unreadable { detail: error.to_string() })
                }
                Err(error) => Err(TokenSourceError::Away { detail: error.to_string() }),
            }
        })
    }
}

/// Gmail itself.
pub(crate) struct Gmail {
    pub(crate) client: Arc<Client>,
    /// The one that the client's calls pass.
    pub(crate) gate: Gate,
}

impl Mailboxes for Gmail {
    async fn call(&self, organisation: OrganisationId, connection: ConnectionId, call: Call) -> Answer {
        let mailbox = Mailbox { organisation_id: organisation, connection_id: connection };
        self.client.call(mailbox, &call).await
    }

    fn holding(&self) -> Option<Holding> {
        Some(self.gate.holding())
    }
}
