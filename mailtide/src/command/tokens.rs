//! `mailtide tokens`.

use anyhow::bail;
use serde::Serialize;
use store::rotation::{self, Left};

use super::now;
use crate::cli::Tokens;
use crate::output;
use crate::service;
use crate::settings::Settings;

/// What a rotation came to.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Rotated {
    moved: u64,
    left: u64,
    open_consents: u64,
}

/// Moves refresh tokens to the first key.
pub(crate) async fn run(what: Tokens, settings: &Settings) -> anyhow::Result<()> {
    let Tokens::Rotate { batch, output } = what;
    let store = service::open(settings).await?;
    store.check_token_keys().await?;
    let Left { tokens: owed, .. } = rotation::left(&store, now()).await?;
    let (mut moved, mut after) = (0, None);
    loop {
        let done = rotation::batch(&store, after, batch).await?;
        moved += done.moved;
        for (connection, reason) in &done.unopened {
            eprintln!("The token of connection {connection} stays as it is: {reason}");
        }
        eprintln!("{moved} of {owed} moved");
        match done.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    let Left { tokens, consents } = rotation::left(&store, now()).await?;
    let rotated = Rotated { moved, left: tokens, open_consents: consents };
    let row = [rotated.moved, rotated.left, rotated.open_consents].map(|count| count.to_string());
    output::print(output, &rotated, ["moved", "under older keys", "open consents under older keys"], [row])?;
    if tokens > 0 {
        bail!(
            "{tokens} tokens lie under older keys still; if a service that has another first key runs, start it anew \
             with these settings, then rotate again"
        );
    }
    let when = if consents > 0 { "in ten minutes, when the consents that are open have ended" } else { "now" };
    eprintln!("The older keys can be taken out of store.token_key {when}");
    Ok(())
}
