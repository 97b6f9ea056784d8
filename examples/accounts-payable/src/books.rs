//! What the consumer has written, for whoever looks.

use anyhow::bail;
use tokio_postgres::{NoTls, Row};

use crate::Settings;

/// An invoice as it stands in the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invoice {
    /// The address that it came from.
    pub sender: Option<String>,
    /// The mail's subject.
    pub subject: Option<String>,
    /// The files' names.
    pub files: Vec<String>,
    /// How many mails brought it: several when it reached several mailboxes.
    pub mails: usize,
    /// Whether somebody has to look before it is paid.
    pub needs_review: bool,
}

/// All invoices, by subject.
///
/// # Errors
/// When Postgres fails, also when no consumer has made the tables yet.
pub async fn invoices(settings: &Settings) -> anyhow::Result<Vec<Invoice>> {
    const ALL: &str = "
        SELECT sender, subject, files, needs_review, (
            SELECT count(*) FROM ap_mails m WHERE (m.organisation_id, m.invoice_key) = (i.organisation_id, i.invoice_key)
        ) FROM ap_invoices i ORDER BY subject";
    let (database, connection) = tokio_postgres::connect(&settings.database_url, NoTls).await?;
    let read = async {
        database.batch_execute(&format!("SET search_path TO \"{}\"", settings.schema)).await?;
        let rows = database.query(ALL, &[]).await?;
        let invoice = |row: &Row| Invoice {
            sender: row.get(0),
            subject: row.get(1),
            files: row.get(2),
            needs_review: row.get(3),
            mails: usize::try_from(row.get::<_, i64>(4)).unwrap_or_default(),
        };
        Ok(rows.iter().map(invoice).collect())
    };
    tokio::select! {
        rows = read => rows,
        ended = connection => { ended?; bail!("Postgres closed the connection") }
    }
}
