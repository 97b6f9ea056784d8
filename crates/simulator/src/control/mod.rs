//! What tests and the demo do to the simulated world. The same over HTTP under `/control`.

mod shapes;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

pub use self::shapes::{Created, Delivery, Mails, NewMailbox, Spent, Truth, UsageReport};
use self::shapes::{spent, truth, truth_of};
use crate::clock::Clock;
use crate::consent::{OAuthClient, ServiceAccount};
use crate::faults::Rule;
use crate::grant::{Cause, Token};
use crate::import;
use crate::jwt;
use crate::label::{self, LabelSet};
use crate::mailbox::{Content, Index, Mailbox, NewMessage, NoSuchMessage};
use crate::mime::Mail;
use crate::push::Target;
use crate::quota::{Limits, Tariff};
use crate::scope::Scopes;
use crate::settings::Behaviour;
use crate::world::{self, Account, World};

/// A handle on the world. Clones are the same world.
#[derive(Debug, Clone)]
pub struct Control {
    world: Arc<World>,
}

/// Why something could not be done to the world.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no mailbox of that address.
    #[error("No mailbox {0} in the simulator; create it first")]
    NoSuchMailbox(String),
    /// There is one already.
    #[error(transparent)]
    Exists(#[from] world::Exists),
    /// A message that does not exist, or no longer.
    #[error(transparent)]
    NoSuchMessage(#[from] NoSuchMessage),
    /// A label that cannot be.
    #[error(transparent)]
    Label(#[from] label::Error),
    /// A file that cannot be read.
    #[error(transparent)]
    Import(#[from] import::Error),
    /// A key that cannot be read.
    #[error(transparent)]
    Key(#[from] jwt::Error),
    /// An id that is not 16 hex digits.
    #[error("{0:?} is no message id: it is up to 16 hex digits")]
    NotAnId(String),
}

impl Control {
    pub(crate) fn new(world: Arc<World>) -> Self {
        Self { world }
    }

    /// Makes a mailbox and a grant for it.
    ///
    /// # Errors
    /// When there is one of that address.
    pub fn create(&self, new: &NewMailbox) -> Result<Created, Error> {
        let account = self.world.create(&new.email, new.first_history_id)?;
        let scopes = new.scopes.as_deref().map_or(Scopes::READONLY, Scopes::parse);
        let refresh_token = self.grant_to(&account, new.client_id.as_deref(), scopes, None);
        let history_id = account.mailbox().head();
        Ok(Created { email: new.email.clone(), refresh_token, history_id })
    }

    /// One more grant for a mailbox: its refresh token. It ends at `ends_ms`, if given.
    ///
    /// # Errors
    /// When there is no such mailbox.
    pub fn grant(
        &self,
        email: &str,
        client_id: Option<&str>,
        scopes: Option<&str>,
        ends_ms: Option<i64>,
    ) -> Result<String, Error> {
        let scopes = scopes.map_or(Scopes::READONLY, Scopes::parse);
        let account = self.account(email)?;
        Ok(self.grant_to(&account, client_id, scopes, ends_ms))
    }

    /// Delivers mail and returns the messages, in order.
    ///
    /// # Errors
    /// When there is no such mailbox, or a label cannot be.
    pub fn deliver(&self, email: &str, mails: Mails, how: &Delivery) -> Result<Vec<Truth>, Error> {
        let contents: Box<dyn Iterator<Item = Content>> = match mails {
            Mails::Synthetic(n) => Box::new(std::iter::repeat_n(Content::Synthetic, n)),
            Mails::Raw(raw) => Box::new(std::iter::once(parsed(&raw))),
            Mails::Mbox(bytes) => Box::new(import::mbox(&bytes).into_iter().map(|raw| parsed(&raw))),
        };
        let account = self.account(email)?;
        let now_ms = self.world.clock.now_ms();
        let mut internal_ms = how.internal_ms.unwrap_or(now_ms);
        let mut delivered = Vec::new();
        let labels = match &how.labels {
            Some(labels) => account.mailbox_mut().labels.set_of(labels.iter().map(String::as_str))?,
            None => LabelSet::system(label::INBOX | label::UNREAD),
        };
        for content in contents {
            // The lock is taken anew for each: reads go on while a large import runs.
            let mut mailbox = account.mailbox_mut();
            let index = mailbox.deliver(NewMessage { labels, internal_ms, content, thread: None }, now_ms);
            delivered.push(truth(&mailbox, index));
            internal_ms = internal_ms.saturating_add(how.step_ms);
        }
        self.changed(&account);
        Ok(delivered)
    }

    /// Delivers `n` synthetic mails without telling which: for mailboxes of a million.
    ///
    /// # Errors
    /// As [`Control::deliver`].
    pub fn fill(&self, email: &str, n: usize, how: &Delivery) -> Result<(), Error> {
        let account = self.account(email)?;
        let now_ms = self.world.clock.now_ms();
        let mut internal_ms = how.internal_ms.unwrap_or(now_ms);
        let mut mailbox = account.mailbox_mut();
        let labels = match &how.labels {
            Some(labels) => mailbox.labels.set_of(labels.iter().map(String::as_str))?,
            None => LabelSet::system(label::INBOX | label::UNREAD),
        };
        for _ in 0..n {
            let new = NewMessage { labels, internal_ms, content: Content::Synthetic, thread: None };
            mailbox.deliver(new, now_ms);
            internal_ms = internal_ms.saturating_add(how.step_ms);
        }
        drop(mailbox);
        self.changed(&account);
        Ok(())
    }

    /// Delivers all mail of a file or folder: mbox, Maildir, `.eml`. A Maildir's flags give the labels.
    ///
    /// # Errors
    /// When there is no such mailbox, a label cannot be, or a file cannot be read.
    pub fn import(&self, email: &str, path: &Path, how: &Delivery) -> Result<Vec<Truth>, Error> {
        let mut delivered = Vec::new();
        for mail in import::read(path)? {
            let flagged = mail.labels.filter(|_| how.labels.is_none());
            let labels =
                flagged.map(|bits| label::SYSTEM.iter().enumerate().filter(move |(bit, _)| bits & (1 << bit) != 0));
            let labels = labels.map(|labels| labels.map(|(_, id)| (*id).to_owned()).collect());
            let how = Delivery { labels: labels.or_else(|| how.labels.clone()), ..how.clone() };
            delivered.extend(self.deliver(email, Mails::Raw(mail.raw), &how)?);
        }
        Ok(delivered)
    }

    /// Adds and takes away labels, all in one history record.
    ///
    /// # Errors
    /// When mailbox or message does not exist, or a label cannot be.
    pub fn relabel(&self, email: &str, ids: &[&str], add: &[&str], remove: &[&str]) -> Result<(), Error> {
        self.change(email, ids, |mailbox, indexes, now_ms| {
            let add = mailbox.labels.set_of(add.iter().copied())?;
            let remove = mailbox.labels.set_of(remove.iter().copied())?;
            Ok(mailbox.relabel(indexes, add, remove, now_ms)?)
        })
    }

    /// Moves messages to the trash.
    ///
    /// # Errors
    /// As [`Control::relabel`].
    pub fn trash(&self, email: &str, ids: &[&str]) -> Result<(), Error> {
        self.relabel(email, ids, &["TRASH"], &["INBOX", "SPAM"])
    }

    /// Takes messages out of the trash; as in Gmail, they do not go back to the inbox by that.
    ///
    /// # Errors
    /// As [`Control::relabel`].
    pub fn untrash(&self, email: &str, ids: &[&str]) -> Result<(), Error> {
        self.relabel(email, ids, &[], &["TRASH"])
    }

    /// Marks messages as spam.
    ///
    /// # Errors
    /// As [`Control::relabel`].
    pub fn spam(&self, email: &str, ids: &[&str]) -> Result<(), Error> {
        self.relabel(email, ids, &["SPAM"], &["INBOX"])
    }

    /// Marks messages as not spam: they go to the inbox.
    ///
    /// # Errors
    /// As [`Control::relabel`].
    pub fn unspam(&self, email: &str, ids: &[&str]) -> Result<(), Error> {
        self.relabel(email, ids, &["INBOX"], &["SPAM"])
    }

    /// Deletes messages for good.
    ///
    /// # Errors
    /// When mailbox or message does not exist.
    pub fn delete(&self, email: &str, ids: &[&str]) -> Result<(), Error> {
        self.change(email, ids, |mailbox, indexes, now_ms| {
            indexes.iter().for_each(|&index| mailbox.delete(index, now_ms));
            Ok(())
        })
    }

    /// Saves a draft, new or again: the draft's id, which stays, and its message, which is new each time.
    ///
    /// # Errors
    /// When there is no such mailbox, or `draft` is not an id.
    pub fn save_draft(&self, email: &str, draft: Option<&str>) -> Result<(String, Truth), Error> {
        let account = self.account(email)?;
        let draft = draft.map(parse_id).transpose()?;
        let mut mailbox = account.mailbox_mut();
        let (draft, index) = mailbox.save_draft(draft, Content::Synthetic, self.world.clock.now_ms());
        let saved = truth(&mailbox, index);
        drop(mailbox);
        self.changed(&account);
        Ok((format!("{draft:016x}"), saved))
    }

    /// Sends a draft; to its own sender too if `to_self`.
    ///
    /// # Errors
    /// When there is no such mailbox or draft.
    pub fn send_draft(&self, email: &str, draft: &str, to_self: bool) -> Result<Truth, Error> {
        let account = self.account(email)?;
        let draft = parse_id(draft)?;
        let mut mailbox = account.mailbox_mut();
        let index = mailbox.send_draft(draft, to_self, self.world.clock.now_ms())?;
        let sent = truth(&mailbox, index);
        drop(mailbox);
        self.changed(&account);
        Ok(sent)
    }

    /// Makes every history id that anyone may hold answer 404.
    ///
    /// # Errors
    /// When there is no such mailbox.
    pub fn expire_history(&self, email: &str) -> Result<(), Error> {
        self.account(email)?.mailbox_mut().expire();
        Ok(())
    }

    /// Ends all grants of a mailbox.
    ///
    /// # Errors
    /// When there is no such mailbox.
    pub fn end_grants(&self, email: &str, cause: Cause) -> Result<(), Error> {
        self.account(email)?.grants().end_all(cause);
        Ok(())
    }

    /// Makes every access token of a mailbox answer 401; refresh tokens stay good.
    ///
    /// # Errors
    /// When there is no such mailbox.
    pub fn expire_access_tokens(&self, email: &str) -> Result<(), Error> {
        self.account(email)?.grants().expire_access_tokens();
        Ok(())
    }

    /// Every message that a mailbox ever had, in order of arrival.
    ///
    /// # Errors
    /// When there is no such mailbox.
    pub fn messages(&self, email: &str) -> Result<Vec<Truth>, Error> {
        let account = self.account(email)?;
        let mailbox = account.mailbox();
        Ok(mailbox.messages().map(|message| truth_of(&mailbox, message)).collect())
    }

    /// The addresses of all mailboxes.
    pub fn mailboxes(&self) -> Vec<String> {
        self.world.accounts().iter().map(|account| account.email.to_string()).collect()
    }

    /// The current record of a mailbox.
    ///
    /// # Errors
    /// When there is no such mailbox.
    pub fn head(&self, email: &str) -> Result<u64, Error> {
        Ok(self.account(email)?.mailbox().head())
    }

    /// The clock.
    pub fn clock(&self) -> &Clock {
        &self.world.clock
    }

    /// How mailboxes behave that have no behaviour of their own, or how `email`'s does.
    ///
    /// # Errors
    /// When there is no such mailbox.
    pub fn behaviour(&self, email: Option<&str>) -> Result<Behaviour, Error> {
        match email {
            Some(email) => Ok(self.world.behaviour_of(&*self.account(email)?)),
            None => Ok(self.world.behaviour()),
        }
    }

    /// Changes how all mailboxes behave, or one alone.
    ///
    /// # Errors
    /// When there is no such mailbox.
    pub fn set_behaviour(&self, email: Option<&str>, behaviour: Behaviour) -> Result<(), Error> {
        match email {
            Some(email) => self.account(email)?.set_behaviour(Some(behaviour)),
            None => self.world.set_behaviour(behaviour),
        }
        Ok(())
    }

    /// The price list and the limits.
    pub fn tariff(&self) -> (Tariff, Limits) {
        self.world.tariff()
    }

    /// Changes the price list and the limits.
    pub fn set_tariff(&self, tariff: Tariff, limits: Limits) {
        self.world.set_tariff(tariff, limits);
    }

    /// Makes a client known. Until there is one, every client is known, with any secret and redirect address.
    pub fn add_client(&self, client: OAuthClient) {
        self.world.consents.add_client(client);
    }

    /// Gives a service account authority over the whole domain.
    ///
    /// # Errors
    /// When its public key cannot be read.
    pub fn add_service_account(&self, account: ServiceAccount) -> Result<(), Error> {
        let key = jwt::public_key(&account.public_key)?;
        self.world.consents.add_service_account(account, key);
        Ok(())
    }

    /// Whether consent is given at once, or a page asks for it.
    pub fn set_auto_approve(&self, auto_approve: bool) {
        self.world.set_auto_approve(auto_approve);
    }

    /// Where pushes go from now on; nowhere if `None`.
    pub fn set_push_target(&self, target: Option<Target>) {
        self.world.pushes.set_target(target);
    }

    /// Where pushes go.
    pub fn push_target(&self) -> Option<Target> {
        self.world.pushes.target().map(|target| (*target).clone())
    }

    /// Lets calls go wrong by this rule from now on.
    pub fn add_fault(&self, rule: Rule) {
        self.world.faults.add(rule);
    }

    /// Ends all faults.
    pub fn clear_faults(&self) {
        self.world.faults.clear();
    }

    /// Ends the faults that are for this mailbox alone.
    pub fn clear_faults_of(&self, email: &str) {
        self.world.faults.clear_of(email);
    }

    /// The fault rules, each with how many calls it hit.
    pub fn faults(&self) -> Vec<(Rule, u64)> {
        self.world.faults.rules()
    }

    /// Everything that was asked so far.
    pub fn usage(&self) -> UsageReport {
        let mut report = UsageReport {
            token_requests: self.world.token_requests.load(Ordering::Relaxed),
            pushes_posted: self.world.pushes.posted.load(Ordering::Relaxed),
            pushes_acknowledged: self.world.pushes.acknowledged.load(Ordering::Relaxed),
            ..UsageReport::default()
        };
        for account in self.world.accounts() {
            let spent = spent(&account);
            if spent.calls.is_empty() {
                continue;
            }
            spent.calls.iter().for_each(|(method, n)| *report.total.calls.entry(method).or_default() += n);
            report.total.units += spent.units;
            report.total.throttled += spent.throttled;
            report.total.most_at_once = report.total.most_at_once.max(spent.most_at_once);
            report.mailboxes.insert(account.email.to_string(), spent);
        }
        report
    }

    fn grant_to(&self, account: &Account, client: Option<&str>, scopes: Scopes, ends_ms: Option<i64>) -> String {
        let grant = account.grants().add(client, scopes, ends_ms, self.world.clock.now_ms());
        Token::refresh(account.number, grant).refresh_text(self.world.seed)
    }

    /// Tells the mailbox's watch. No lock on the mailbox may be held.
    fn changed(&self, account: &Arc<Account>) {
        self.world.pushes.changed(account, self.world.clock.now_ms());
    }

    fn account(&self, email: &str) -> Result<Arc<Account>, Error> {
        self.world.account(email).ok_or_else(|| Error::NoSuchMailbox(email.to_owned()))
    }

    fn change(
        &self,
        email: &str,
        ids: &[&str],
        change: impl FnOnce(&mut Mailbox, &[Index], i64) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let account = self.account(email)?;
        let mut mailbox = account.mailbox_mut();
        let find = |id: &&str| {
            let id = parse_id(id)?;
            mailbox.find(id).ok_or(Error::NoSuchMessage(NoSuchMessage(id)))
        };
        let indexes = ids.iter().map(find).collect::<Result<Vec<_>, Error>>()?;
        change(&mut mailbox, &indexes, self.world.clock.now_ms())?;
        drop(mailbox);
        self.changed(&account);
        Ok(())
    }
}

fn parsed(raw: &[u8]) -> Content {
    Content::Mail(Arc::new(Mail::new(raw)))
}

fn parse_id(text: &str) -> Result<u64, Error> {
    u64::from_str_radix(text, 16).map_err(|_| Error::NotAnId(text.to_owned()))
}
