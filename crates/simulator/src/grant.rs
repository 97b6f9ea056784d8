//! Grants: what an account allowed a client to do, and the tokens that stand for it.
//!
//! A token says which grant it belongs to, and carries a check number, so that nothing is kept per token and none
//! can be made up.

use crate::scope::Scopes;
use crate::seed::mix;

/// Refresh tokens of one account for one client beyond this many let the oldest die silently.
const LIVE_PER_CLIENT: usize = 100;

/// A refresh token that was not used for this long is dead: six months.
const UNUSED_MS: i64 = 183 * 86_400_000;

/// What one account granted.
#[derive(Debug, Default)]
pub(crate) struct Grants {
    grants: Vec<Grant>,
}

/// One grant.
#[derive(Debug, Clone)]
pub(crate) struct Grant {
    /// The client it was given to; `None` is any.
    pub(crate) client_id: Option<Box<str>>,
    /// What it allows.
    pub(crate) scopes: Scopes,
    /// Why its refresh token is dead.
    dead: Option<Cause>,
    /// When it ends, ms since the epoch; `None` is never.
    ends_ms: Option<i64>,
    /// When its refresh token was used last, ms since the epoch.
    used_ms: i64,
    /// Access tokens of an earlier epoch are no longer good.
    epoch: u32,
}

/// Why a grant gives no more tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The user took it back; access tokens die with it.
    Revoked,
    /// The password changed, and the grant has Gmail scopes.
    PasswordChanged,
    /// The grant was for a limited time (also: an app in testing, 7 days).
    Expired,
    /// Unused for six months.
    Unused,
    /// More than 100 live tokens for the same client: the oldest dies.
    TooMany,
    /// The organisation wants its user to sign in again (`invalid_rapt`).
    Reauthentication,
    /// The administrator restricted the service (`admin_policy_enforced`).
    AdminPolicy,
}

/// What a token says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token {
    /// The account.
    pub(crate) account: u32,
    /// The grant among the account's.
    grant: u32,
    /// For an access token: the grant's epoch.
    epoch: u32,
    /// For an access token: when it ends, ms since the epoch.
    ends_ms: i64,
}

impl Grants {
    /// Adds a grant; its refresh token follows from the number.
    pub(crate) fn add(&mut self, client_id: Option<&str>, scopes: Scopes, ends_ms: Option<i64>, now_ms: i64) -> u32 {
        let same = |grant: &&mut Grant| grant.dead.is_none() && grant.client_id.as_deref() == client_id;
        let live = self.grants.iter_mut().filter(same).count();
        if live >= LIVE_PER_CLIENT
            && let Some(oldest) = self.grants.iter_mut().find(same)
        {
            oldest.dead = Some(Cause::TooMany);
        }
        self.grants.push(Grant {
            client_id: client_id.map(Into::into),
            scopes,
            dead: None,
            ends_ms,
            used_ms: now_ms,
            epoch: 0,
        });
        u32::try_from(self.grants.len() - 1).expect("an account has fewer than 2³² grants")
    }

    /// Whether a client has a grant that lives.
    pub(crate) fn has_live(&self, client_id: &str) -> bool {
        self.grants.iter().any(|grant| grant.dead.is_none() && grant.client_id.as_deref() == Some(client_id))
    }

    /// The number of the first live grant of a client with these scopes, and its epoch.
    pub(crate) fn live(&self, client_id: &str, scopes: Scopes) -> Option<(u32, u32)> {
        let at = self.grants.iter().position(|grant| {
            grant.dead.is_none() && grant.client_id.as_deref() == Some(client_id) && grant.scopes == scopes
        })?;
        Some((u32::try_from(at).ok()?, self.grants[at].epoch))
    }

    /// Uses a refresh token: the grant and its epoch, or why it is dead.
    pub(crate) fn refresh(&mut self, token: Token, now_ms: i64) -> Result<(Grant, u32), Cause> {
        let grant = self.get_mut(token).ok_or(Cause::Revoked)?;
        if let Some(cause) = grant.dead {
            return Err(cause);
        }
        let over = grant.ends_ms.is_some_and(|ends| ends <= now_ms).then_some(Cause::Expired);
        let unused = (now_ms - grant.used_ms > UNUSED_MS).then_some(Cause::Unused);
        if let Some(cause) = over.or(unused) {
            grant.dead = Some(cause);
            return Err(cause);
        }
        grant.used_ms = now_ms;
        Ok((grant.clone(), grant.epoch))
    }

    /// What an access token allows now; `None` if it is no longer good.
    pub(crate) fn allowed(&self, token: Token, now_ms: i64) -> Option<Scopes> {
        let grant = self.grants.get(usize::try_from(token.grant).ok()?)?;
        // Only these causes end access tokens at once; with the others they live out their hour.
        let revoked = matches!(grant.dead, Some(Cause::Revoked | Cause::PasswordChanged | Cause::AdminPolicy));
        (token.ends_ms > now_ms && token.epoch == grant.epoch && !revoked).then_some(grant.scopes)
    }

    /// Ends the grant of a token. False if it had ended before.
    pub(crate) fn revoke(&mut self, token: Token) -> bool {
        self.get_mut(token).is_some_and(|grant| grant.dead.replace(Cause::Revoked).is_none())
    }

    /// Ends every grant of the account for `cause`.
    pub(crate) fn end_all(&mut self, cause: Cause) {
        self.grants.iter_mut().filter(|grant| grant.dead.is_none()).for_each(|grant| grant.dead = Some(cause));
    }

    /// Ends all access tokens that were given out; refresh tokens stay good.
    pub(crate) fn expire_access_tokens(&mut self) {
        self.grants.iter_mut().for_each(|grant| grant.epoch = grant.epoch.wrapping_add(1));
    }

    fn get_mut(&mut self, token: Token) -> Option<&mut Grant> {
        self.grants.get_mut(usize::try_from(token.grant).ok()?)
    }
}

impl Token {
    /// The refresh token of a grant.
    pub(crate) const fn refresh(account: u32, grant: u32) -> Self {
        Self { account, grant, epoch: 0, ends_ms: 0 }
    }

    /// An access token of the same grant.
    pub(crate) const fn access(self, epoch: u32, ends_ms: i64) -> Self {
        Self { epoch, ends_ms, ..self }
    }

    /// The refresh token as text, in the shape of Google's.
    pub(crate) fn refresh_text(self, secret: u64) -> String {
        format!("1//0{:x}-{:x}-{:016x}", self.account, self.grant, self.check(secret, 1))
    }

    /// The access token as text, in the shape of Google's.
    pub(crate) fn access_text(self, secret: u64) -> String {
        let check = self.check(secret, 2);
        format!("ya29.{:x}-{:x}-{:x}-{:x}-{check:016x}", self.account, self.grant, self.epoch, self.ends_ms)
    }

    /// Reads a refresh token; `None` for what was never given out.
    pub(crate) fn parse_refresh(text: &str, secret: u64) -> Option<Self> {
        let mut parts = text.strip_prefix("1//0")?.split('-');
        let token = Self::refresh(hex(parts.next()?)?, hex(parts.next()?)?);
        (token.refresh_text(secret) == text).then_some(token)
    }

    /// Reads an access token; `None` for what was never given out.
    pub(crate) fn parse_access(text: &str, secret: u64) -> Option<Self> {
        let mut parts = text.strip_prefix("ya29.")?.split('-');
        let token = Self::refresh(hex(parts.next()?)?, hex(parts.next()?)?);
        let token = token.access(hex(parts.next()?)?, i64::from_str_radix(parts.next()?, 16).ok()?);
        let check = u64::from_str_radix(parts.next()?, 16).ok()?;
        (check == token.check(secret, 2) && parts.next().is_none()).then_some(token)
    }

    fn check(self, secret: u64, kind: u64) -> u64 {
        let fields =
            [kind, u64::from(self.account), u64::from(self.grant), u64::from(self.epoch), self.ends_ms.cast_unsigned()];
        fields.iter().fold(mix(secret), |state, &field| mix(state ^ field))
    }
}

fn hex(text: &str) -> Option<u32> {
    u32::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_back_and_not_made_up() {
        let token = Token::refresh(7, 3);
        let text = token.refresh_text(42);
        assert_eq!(Token::parse_refresh(&text, 42), Some(token));
        assert_eq!(Token::parse_refresh(&text, 43), None);
        let access = token.access(1, 1_700_000_000_000);
        let text = access.access_text(42);
        assert_eq!(Token::parse_access(&text, 42), Some(access));
        let forged = text.replace("ya29.7-3", "ya29.8-3");
        assert_eq!(Token::parse_access(&forged, 42), None);
        assert_eq!(Token::parse_access("expired", 42), None);
    }

    #[test]
    fn grants_end_for_every_cause() {
        let mut grants = Grants::default();
        let read = Scopes::READONLY;
        let first = Token::refresh(0, grants.add(Some("c"), read, None, 0));
        let (_, epoch) = grants.refresh(first, 10).unwrap();
        let access = first.access(epoch, 1_000);
        assert_eq!(grants.allowed(access, 999), Some(read));
        assert_eq!(grants.allowed(access, 1_000), None);
        grants.expire_access_tokens();
        assert_eq!(grants.allowed(access, 10), None);
        assert_eq!(grants.refresh(first, 11 + UNUSED_MS).unwrap_err(), Cause::Unused);

        let limited = Token::refresh(0, grants.add(Some("c"), read, Some(500), 0));
        assert_eq!(grants.refresh(limited, 500).unwrap_err(), Cause::Expired);

        let oldest = Token::refresh(0, grants.add(Some("d"), read, None, 0));
        for _ in 0..LIVE_PER_CLIENT {
            grants.add(Some("d"), read, None, 0);
        }
        assert_eq!(grants.refresh(oldest, 1).unwrap_err(), Cause::TooMany);

        let last = Token::refresh(0, grants.add(None, read, None, 0));
        assert!(grants.revoke(last));
        assert!(!grants.revoke(last));
        grants.end_all(Cause::PasswordChanged);
        assert_eq!(grants.refresh(last, 1).unwrap_err(), Cause::Revoked);
    }
}
