//! Up to where a schedule has fired.

use domain::Timestamp;

use crate::at::At;
use crate::row::Reader;
use crate::{Error, Store};

/// The instant up to which every slot of `schedule` has fired; none when it never has.
///
/// # Errors
/// [`Error::Unavailable`] while Postgres is away.
pub async fn fired_to(store: &Store, schedule: &str) -> Result<Option<Timestamp>, Error> {
    const WHAT: &str = "read the schedule's watermark";
    let session = store.session(WHAT).await?;
    let row = session.row("SELECT fired_to FROM schedule_watermarks WHERE schedule = $1", &[&schedule]).await?;
    row.map(|row| Reader { what: WHAT, row: &row }.at("fired_to")).transpose()
}

/// Moves the watermark forward, never back, whoever else does so too.
///
/// # Errors
/// [`Error::Unavailable`] while Postgres is away.
pub async fn advance(store: &Store, schedule: &str, to: Timestamp) -> Result<(), Error> {
    let session = store.session("move the schedule's watermark").await?;
    session
        .execute(
            "INSERT INTO schedule_watermarks AS w (schedule, fired_to) VALUES ($1, $2)
             ON CONFLICT (schedule) DO UPDATE SET fired_to = excluded.fired_to WHERE w.fired_to < excluded.fired_to",
            &[&schedule, &At(to)],
        )
        .await
        .map(drop)
}
