//! The mail of the demo: who gets what, and when.

use std::path::Path;

use anyhow::Context;
use simulator::{Control, Delivery, Mails};

use crate::cli::Demo;

/// How many times mail comes while syncs run.
pub(super) const ROUNDS: usize = 10;

/// Of a mailbox's mail, this many of ten come before its first sync.
const BEFORE_OF_TEN: usize = 4;

/// What one mailbox still gets.
#[derive(Debug, Clone)]
pub(super) struct Post {
    /// The mailbox's address in the simulator.
    pub(super) address: String,
    /// What has not been delivered yet.
    rest: Rest,
    /// Deliveries still to make while syncs run.
    rounds: usize,
}

#[derive(Debug, Clone)]
enum Rest {
    /// This many that nobody wrote.
    MadeUp(usize),
    /// These, in order.
    Real(std::vec::IntoIter<Vec<u8>>),
}

impl Rest {
    fn len(&self) -> usize {
        match self {
            Self::MadeUp(n) => *n,
            Self::Real(mails) => mails.len(),
        }
    }

    /// Takes the next `n`.
    fn take(&mut self, n: usize) -> Vec<Mails> {
        match self {
            Self::MadeUp(left) => {
                let n = n.min(*left);
                *left -= n;
                if n == 0 { Vec::new() } else { vec![Mails::Synthetic(n)] }
            }
            Self::Real(mails) => mails.by_ref().take(n).map(Mails::Raw).collect(),
        }
    }
}

/// What each mailbox is to get.
///
/// # Errors
/// When the mail file cannot be read or holds no mail.
pub(super) fn plan(demo: &Demo) -> anyhow::Result<Vec<Post>> {
    let real = demo.mail.as_deref().map(read).transpose()?;
    let mailboxes = demo.mailboxes.unwrap_or(if real.is_some() { 1 } else { 3 });
    let made_up = usize::try_from(demo.messages).context("more mails than this machine can count")?;
    let first = real.map(|mails| Rest::Real(mails.into_iter()));
    let rests = first.into_iter().chain(std::iter::repeat(Rest::MadeUp(made_up)));
    let posts = (1..=mailboxes).zip(rests);
    Ok(posts
        .map(|(number, rest)| Post { address: format!("mailbox-{number}@demo.example"), rest, rounds: ROUNDS })
        .collect())
}

fn read(path: &Path) -> anyhow::Result<Vec<Vec<u8>>> {
    let bytes = std::fs::read(path).with_context(|| format!("reading the mail in {}", path.display()))?;
    let mails = simulator::mbox(&bytes);
    anyhow::ensure!(!mails.is_empty(), "there is no mail in {}", path.display());
    Ok(mails)
}

impl Post {
    /// Mails in all, of those not delivered yet.
    pub(super) fn len(&self) -> usize {
        self.rest.len()
    }

    /// Delivers what comes before the first sync; gives how many.
    pub(super) fn deliver_first(&mut self, control: &Control) -> anyhow::Result<usize> {
        self.deliver(control, (self.rest.len() * BEFORE_OF_TEN).div_ceil(10))
    }

    /// Delivers the next round's share; gives how many. The last round delivers all that is left.
    pub(super) fn deliver_round(&mut self, control: &Control) -> anyhow::Result<usize> {
        let share = self.rest.len().div_ceil(self.rounds.max(1));
        self.rounds = self.rounds.saturating_sub(1);
        self.deliver(control, share)
    }

    fn deliver(&mut self, control: &Control, n: usize) -> anyhow::Result<usize> {
        let mut delivered = 0;
        for mails in self.rest.take(n) {
            delivered += control.deliver(&self.address, mails, &Delivery::default())?.len();
        }
        Ok(delivered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demo(mail: Option<&Path>, mailboxes: Option<u16>) -> Demo {
        Demo { once: true, mail: mail.map(Path::to_owned), mailboxes, messages: 7 }
    }

    #[test]
    fn real_mail_goes_to_one_mailbox_unless_more_are_asked_for() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "From a Thu Jan  1 00:00:00 2026\nSubject: x\n\nbody\n").unwrap();
        let lengths = |mailboxes| -> Vec<usize> {
            plan(&demo(Some(file.path()), mailboxes)).unwrap().iter().map(Post::len).collect()
        };
        assert_eq!(lengths(None), [1]);
        assert_eq!(lengths(Some(3)), [1, 7, 7]);
        assert_eq!(plan(&demo(None, None)).unwrap().len(), 3);
    }

    #[tokio::test]
    async fn every_mail_is_delivered_by_the_last_round() {
        let gmail = simulator::start(simulator::Settings::default()).await.unwrap();
        for messages in [1, 2, 9, 100, 288] {
            let mut posts = plan(&Demo { messages, ..demo(None, Some(1)) }).unwrap();
            let post = &mut posts[0];
            post.address = format!("{messages}@demo.example");
            gmail
                .control()
                .create(&simulator::NewMailbox { email: post.address.clone(), ..Default::default() })
                .unwrap();
            let mut delivered = post.deliver_first(gmail.control()).unwrap();
            assert!(delivered > 0, "something comes before the first sync");
            for _ in 0..ROUNDS {
                delivered += post.deliver_round(gmail.control()).unwrap();
            }
            assert_eq!((delivered, post.len()), (messages as usize, 0));
            assert_eq!(gmail.control().messages(&post.address).unwrap().len(), delivered);
        }
        gmail.shutdown().await;
    }

    #[test]
    fn a_file_without_mail_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(plan(&demo(Some(file.path()), None)).unwrap_err().to_string().contains("no mail"));
    }
}
