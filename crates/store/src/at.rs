//! [`Timestamp`] as Postgres's `timestamptz`.

use bytes::{BufMut, BytesMut};
use domain::Timestamp;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, accepts, to_sql_checked};

/// Postgres counts microseconds from 2000-01-01T00:00:00Z.
const EPOCH_MS: i64 = 946_684_800_000;

/// The span that the column can hold and every client can print: the years 1 to 9999.
const FIRST_MS: i64 = -62_135_596_800_000;
const LAST_MS: i64 = 253_402_300_799_999;

/// A timestamp on its way in or out. What lies outside the years 1 to 9999 is stored as the nearest end of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct At(pub(crate) Timestamp);

impl ToSql for At {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        let ms = self.0.as_millis().clamp(FIRST_MS, LAST_MS);
        out.put_i64((ms - EPOCH_MS) * 1_000);
        Ok(IsNull::No)
    }

    accepts!(TIMESTAMPTZ);
    to_sql_checked!();
}

impl<'a> FromSql<'a> for At {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        let micros = i64::from_be_bytes(raw.try_into()?);
        // Rounded towards the past, as clocks are.
        Ok(Self(Timestamp::from_millis(micros.div_euclid(1_000).saturating_add(EPOCH_MS))))
    }

    accepts!(TIMESTAMPTZ);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round(ms: i64) -> i64 {
        let mut bytes = BytesMut::new();
        At(Timestamp::from_millis(ms)).to_sql(&Type::TIMESTAMPTZ, &mut bytes).unwrap();
        At::from_sql(&Type::TIMESTAMPTZ, &bytes).unwrap().0.as_millis()
    }

    proptest! {
        #[test]
        fn a_timestamp_survives_to_the_millisecond(ms in FIRST_MS..=LAST_MS) {
            prop_assert_eq!(round(ms), ms);
        }

        #[test]
        fn what_no_column_holds_becomes_the_nearest_that_one_does(ms: i64) {
            prop_assert_eq!(round(ms), ms.clamp(FIRST_MS, LAST_MS));
        }
    }
}
