//! Refresh tokens for the Gmail client, from the store: what every service that reads mailboxes starts it with.

use gmail::{Account, Credential, Grant, Mailbox, TokenSource, TokenSourceError};
use store::{Store, connections};

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
