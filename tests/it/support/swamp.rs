//! A way to Postgres that can be made to swallow everything, as a lost network does.

use proxy::{Trouble, Way};
use url::Url;

/// It takes connections all the time. What was lost in one never arrives.
pub(crate) struct Swamp {
    way: Way,
    database: Url,
}

/// Where the server of a database's URL is.
pub(super) fn server(database: &Url) -> String {
    format!("{}:{}", database.host_str().unwrap(), database.port().unwrap_or(5432))
}

/// The database's URL by a way to its server.
pub(super) fn by(way: &Way, database: &Url) -> Url {
    let mut url = database.clone();
    url.set_ip_host(way.address().ip()).unwrap();
    url.set_port(Some(way.address().port())).unwrap();
    url
}

impl Swamp {
    /// In front of a database.
    pub(crate) async fn before(database: &str) -> Self {
        let database: Url = database.parse().unwrap();
        Self { way: Way::to(server(&database)).await.unwrap(), database }
    }

    /// The database's address by this way.
    pub(crate) fn url(&self) -> String {
        by(&self.way, &self.database).into()
    }

    /// Swallows from now on, or carries what is sent from now on in new connections.
    pub(crate) fn swallow(&self, swallows: bool) {
        self.way.set(if swallows { Trouble::BlackHole } else { Trouble::None });
    }
}
