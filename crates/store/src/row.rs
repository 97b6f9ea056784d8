//! From columns to the domain's types.

use serde::de::DeserializeOwned;
use serde::de::value::{Error as ValueError, StrDeserializer};
use tokio_postgres::Row;
use tokio_postgres::types::FromSql;

use crate::Error;
use crate::at::At;
use domain::Timestamp;

/// A row and what it is read for.
pub(crate) struct Reader<'r> {
    pub(crate) what: &'static str,
    pub(crate) row: &'r Row,
}

impl<'r> Reader<'r> {
    pub(crate) fn get<T: FromSql<'r>>(&self, column: &'static str) -> Result<T, Error> {
        self.row.try_get(column).map_err(|error| self.unreadable(column, error))
    }

    pub(crate) fn at(&self, column: &'static str) -> Result<Timestamp, Error> {
        Ok(self.get::<At>(column)?.0)
    }

    pub(crate) fn at_opt(&self, column: &'static str) -> Result<Option<Timestamp>, Error> {
        Ok(self.get::<Option<At>>(column)?.map(|at| at.0))
    }

    /// A value that is stored by its name on the wire.
    pub(crate) fn named<T: DeserializeOwned>(&self, column: &'static str) -> Result<T, Error> {
        self.parse_named(column, self.get::<&str>(column)?)
    }

    /// As [`Self::named`], where the column may be null.
    pub(crate) fn named_opt<T: DeserializeOwned>(&self, column: &'static str) -> Result<Option<T>, Error> {
        self.get::<Option<&str>>(column)?.map(|name| self.parse_named(column, name)).transpose()
    }

    fn parse_named<T: DeserializeOwned>(&self, column: &'static str, name: &str) -> Result<T, Error> {
        T::deserialize(StrDeserializer::<ValueError>::new(name)).map_err(|error| self.unreadable(column, error))
    }

    pub(crate) fn unreadable(&self, column: &'static str, error: impl std::fmt::Display) -> Error {
        Error::Unreadable { what: self.what, column, detail: error.to_string() }
    }
}
