//! How far the fetcher is: what it keeps on the topic `gmail.fetch.state`.

use serde::{Deserialize, Serialize};

use crate::id::{ConnectionId, OrganisationId, TokenVersion};

/// How far one connection's messages are fetched, where that does not follow from the partition's [`FetchPosition`].
/// Under the key of its records on `gmail.message.discovered`; a connection that is not ahead or behind has none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FetchState {
    /// The mailbox; none where the records' key is no connection's.
    pub connection_id: Option<ConnectionId>,
    /// The tenant, where it is known.
    pub organisation_id: Option<OrganisationId>,
    /// The offset on `gmail.message.discovered` below which all of the connection's records are done.
    pub from: i64,
    /// Whether there are records at or above `from`, but below the partition's position, that are not done.
    pub behind: bool,
    /// The refresh token's version whose grant is gone; set while somebody has to consent again.
    pub revoked_version: Option<TokenVersion>,
}

/// How far a whole partition of `gmail.message.discovered` is fetched. Its key is the word `position`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FetchPosition {
    /// The partition count of the topic when this was written; a lane with another count refuses it.
    pub partitions: i32,
    /// The offset below which all records are done, but for those of connections that are behind.
    pub position: i64,
}

impl FetchPosition {
    /// The key that it is written under.
    pub const KEY: &str = "position";
}
