//! Which messages are announced.

use super::reply::{HistoryRecord, Label, LabelChange};

/// What becomes of a message that history says was added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is announced.
    Announce,
    /// It lies in spam or trash: kept back, and announced when it leaves them.
    Withhold,
    /// A draft or a chat: never announced. Every autosave of a draft is a message of its own.
    Out,
}

/// Decides on the labels that a message has. Where Gmail did not give them, the message is announced: one too many is
/// a nuisance, one too few an invoice.
pub(super) fn verdict(labels: Option<&[Label]>) -> Verdict {
    let mut verdict = Verdict::Announce;
    for label in labels.unwrap_or_default() {
        if *label == Label::DRAFT || *label == Label::CHAT {
            return Verdict::Out;
        }
        if holds(label) {
            verdict = Verdict::Withhold;
        }
    }
    verdict
}

/// Whether mail under this label is kept back.
fn holds(label: &Label) -> bool {
    *label == Label::SPAM || *label == Label::TRASH
}

/// The messages of a record whose labels changed so that, if they were kept back, they are not any more. Where Gmail
/// does not give a message's labels, the loss of a holding label counts and the gain of another does not.
pub(super) fn freed(record: &HistoryRecord) -> impl Iterator<Item = &LabelChange> {
    let announced = |change: &LabelChange| {
        change.message.labels.as_deref().map(|labels| verdict(Some(labels)) == Verdict::Announce)
    };
    let by_loss = record
        .labels_removed
        .iter()
        .filter(move |change| change.labels.iter().any(holds) && announced(change).unwrap_or(true));
    let by_gain = record.labels_added.iter().filter(move |change| announced(change).unwrap_or(false));
    by_loss.chain(by_gain)
}
