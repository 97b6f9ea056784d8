//! `mailtide tokens`.

use anyhow::bail;
use serde::Serialize;
use store::rotation::{self, Moved};

use super::now;
use crate::cli::Tokens;
use crate::output;
use crate::service;
use crate::settings::Settings;

/// What a rotation came to, of one kind.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Kind {
    moved: u64,
    left: u64,
}

/// The same of all kinds.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Rotated {
    /// Refresh tokens.
    tokens: Kind,
    /// Consents that are open, for minutes.
    consents: Kind,
    /// Answers that are kept for an `Idempotency-Key`, for a day.
    answers: Kind,
}

/// Moves everything that is sealed to the first key.
pub(crate) async fn run(what: Tokens, settings: &Settings) -> anyhow::Result<()> {
    let Tokens::Rotate { batch, output } = what;
    let store = service::open(settings).await?;
    store.check_token_keys().await?;
    let owed = rotation::left(&store, now()).await?;
    let (mut moved, mut after) = (0, None);
    loop {
        let done = rotation::batch(&store, after, batch).await?;
        moved += done.moved;
        for (connection, reason) in &done.unopened {
            eprintln!("The token of connection {connection} stays as it is: {reason}");
        }
        eprintln!("{moved} of {} tokens moved", owed.tokens);
        match done.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    let consents = rotation::consents(&store, now(), batch).await?;
    let answers = rotation::answers(&store, now(), batch).await?;
    for (what, Moved { unopened, .. }) in [("open consents", consents), ("kept answers", answers)] {
        if unopened > 0 {
            eprintln!("{unopened} {what} stay as they are: no key opens them");
        }
    }
    let left = rotation::left(&store, now()).await?;
    let rotated = Rotated {
        tokens: Kind { moved, left: left.tokens },
        consents: Kind { moved: consents.moved, left: left.consents },
        answers: Kind { moved: answers.moved, left: left.answers },
    };
    let rows = [("tokens", &rotated.tokens), ("open consents", &rotated.consents), ("kept answers", &rotated.answers)]
        .map(|(what, Kind { moved, left })| [what.to_owned(), moved.to_string(), left.to_string()]);
    output::print(output, &rotated, ["what", "moved", "under older keys"], rows)?;
    if left.tokens + left.consents + left.answers > 0 {
        bail!(
            "{} tokens, {} open consents and {} kept answers lie under older keys still; if a service that has another \
             first key runs, start it anew with these settings, then rotate again",
            left.tokens,
            left.consents,
            left.answers
        );
    }
    eprintln!("The older keys can be taken out of store.token_key now");
    Ok(())
}
