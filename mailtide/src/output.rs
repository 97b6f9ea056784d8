//! Data on stdout: a table for people, JSON for programs.

use std::io::Write;

use comfy_table::Table;
use comfy_table::presets::UTF8_BORDERS_ONLY;
use serde::Serialize;

use crate::cli::Output;

/// Prints `rows`: as one JSON document, or as a table with `header`.
pub(crate) fn print<T: Serialize, const N: usize>(
    output: Output,
    data: &T,
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> anyhow::Result<()> {
    if output.json {
        return line(data);
    }
    let mut table = table(header);
    table.add_rows(rows);
    Ok(writeln!(std::io::stdout(), "{table}")?)
}

/// Prints one line of JSON.
pub(crate) fn line<T: Serialize>(data: &T) -> anyhow::Result<()> {
    let mut text = serde_json::to_vec(data)?;
    text.push(b'\n');
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(&text)?;
    Ok(stdout.flush()?)
}

/// An empty table.
pub(crate) fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY).set_header(header);
    table
}
