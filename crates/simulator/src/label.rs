//! Labels: the system's as bits, a user's as entries of a table, and sets of both in four bytes.

use std::collections::HashMap;

/// The system labels by their ids, in the order of their bits.
pub(crate) const SYSTEM: [&str; 15] = [
    "INBOX",
    "SENT",
    "DRAFT",
    "SPAM",
    "TRASH",
    "UNREAD",
    "STARRED",
    "IMPORTANT",
    "CHAT",
    "CATEGORY_PERSONAL",
    "CATEGORY_SOCIAL",
    "CATEGORY_PROMOTIONS",
    "CATEGORY_UPDATES",
    "CATEGORY_FORUMS",
    "YELLOW_STAR",
];

/// Bit of `INBOX`, and so on for the others that the simulator itself sets or asks for.
pub(crate) const INBOX: u16 = 1;
pub(crate) const SENT: u16 = 1 << 1;
pub(crate) const DRAFT: u16 = 1 << 2;
pub(crate) const SPAM: u16 = 1 << 3;
pub(crate) const TRASH: u16 = 1 << 4;
pub(crate) const UNREAD: u16 = 1 << 5;
pub(crate) const STARRED: u16 = 1 << 6;
pub(crate) const IMPORTANT: u16 = 1 << 7;
pub(crate) const CHAT: u16 = 1 << 8;

/// A set of labels: the system's as bits, the user's as a number in the mailbox's [`Table`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct LabelSet {
    /// One bit for each of [`SYSTEM`].
    pub(crate) system: u16,
    /// The number of the set of user labels; 0 is the empty set.
    user: u16,
}

impl LabelSet {
    /// A set of system labels alone.
    pub(crate) const fn system(bits: u16) -> Self {
        Self { system: bits, user: 0 }
    }

    /// Whether any of the system labels `bits` is in the set.
    pub(crate) const fn has_any(self, bits: u16) -> bool {
        self.system & bits != 0
    }

    /// Whether the set holds nothing.
    pub(crate) const fn is_empty(self) -> bool {
        self.system == 0 && self.user == 0
    }
}

/// Why a label could not be named in this mailbox.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// The mailbox has as many distinct sets of user labels as can be numbered.
    #[error("The mailbox has {0} distinct combinations of user labels, the most that the simulator keeps")]
    TooManySets(usize),
    /// A label without a name.
    #[error("A label's name is empty")]
    NoName,
}

/// The user labels of one mailbox, and the sets of them that occur. Costs nothing while there are none.
#[derive(Debug, Default)]
pub(crate) struct Table {
    /// Names; the id of the label at index `n` is `Label_<n + 1>`.
    names: Vec<Box<str>>,
    /// Sorted indexes into `names`; the set numbered `n` is at `n - 1`.
    sets: Vec<Box<[u16]>>,
    numbers: HashMap<Box<[u16]>, u16>,
}

/// A label that exists in the mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Label {
    /// The bit of a system label.
    System(u16),
    /// The index of a user label.
    User(u16),
}

impl Table {
    /// The label that `text` names, by id (any letter case for the system's) or by a user label's name.
    pub(crate) fn find(&self, text: &str) -> Option<Label> {
        if let Some(bit) = SYSTEM.iter().position(|id| id.eq_ignore_ascii_case(text)) {
            return Some(Label::System(1 << bit));
        }
        let by_id = text
            .strip_prefix("Label_")
            .and_then(|number| number.parse::<usize>().ok())
            .and_then(|number| number.checked_sub(1))
            .filter(|&index| index < self.names.len());
        let by_name = || self.names.iter().position(|name| same_name(name, text));
        by_id.or_else(by_name).and_then(|index| u16::try_from(index).ok()).map(Label::User)
    }

    /// The label that `text` names; a user label of that name is made when there is none.
    pub(crate) fn find_or_make(&mut self, text: &str) -> Result<Label, Error> {
        if let Some(label) = self.find(text) {
            return Ok(label);
        }
        if text.trim().is_empty() {
            return Err(Error::NoName);
        }
        let index = u16::try_from(self.names.len()).map_err(|_| Error::TooManySets(self.names.len()))?;
        self.names.push(text.trim().into());
        Ok(Label::User(index))
    }

    /// The set of the labels that `texts` name, made where there are none.
    pub(crate) fn set_of<'a>(&mut self, texts: impl IntoIterator<Item = &'a str>) -> Result<LabelSet, Error> {
        let mut set = LabelSet::default();
        for text in texts {
            let label = self.find_or_make(text)?;
            set = self.with(set, label)?;
        }
        Ok(set)
    }

    /// `set` and `label`.
    fn with(&mut self, set: LabelSet, label: Label) -> Result<LabelSet, Error> {
        match label {
            Label::System(bit) => Ok(LabelSet { system: set.system | bit, ..set }),
            Label::User(index) => {
                let mut members = self.members(set).to_vec();
                if let Err(at) = members.binary_search(&index) {
                    members.insert(at, index);
                }
                Ok(LabelSet { user: self.number(members)?, ..set })
            }
        }
    }

    /// Everything in `a` or in `b`.
    pub(crate) fn union(&mut self, a: LabelSet, b: LabelSet) -> Result<LabelSet, Error> {
        let mut members = self.members(a).to_vec();
        members.extend_from_slice(self.members(b));
        members.sort_unstable();
        members.dedup();
        Ok(LabelSet { system: a.system | b.system, user: self.number(members)? })
    }

    /// Everything in `a` that is not in `b`.
    pub(crate) fn minus(&mut self, a: LabelSet, b: LabelSet) -> Result<LabelSet, Error> {
        let removed = self.members(b);
        let members = self.members(a).iter().copied().filter(|index| !removed.contains(index)).collect();
        Ok(LabelSet { system: a.system & !b.system, user: self.number(members)? })
    }

    /// Whether `set` holds `label`.
    pub(crate) fn contains(&self, set: LabelSet, label: Label) -> bool {
        match label {
            Label::System(bit) => set.system & bit != 0,
            Label::User(index) => self.members(set).binary_search(&index).is_ok(),
        }
    }

    /// Calls `visit` with the id of every label in `set`: the system's first, then the user's.
    pub(crate) fn each(&self, set: LabelSet, mut visit: impl FnMut(&str)) {
        for (bit, id) in SYSTEM.iter().enumerate() {
            if set.system & (1 << bit) != 0 {
                visit(id);
            }
        }
        for index in self.members(set) {
            visit(&user_id(*index));
        }
    }

    /// The ids of the labels in `set`.
    pub(crate) fn ids(&self, set: LabelSet) -> Vec<String> {
        let mut ids = Vec::new();
        self.each(set, |id| ids.push(id.to_owned()));
        ids
    }

    /// Ids and names of the user labels.
    pub(crate) fn user_labels(&self) -> impl Iterator<Item = (String, &str)> {
        self.names.iter().enumerate().map(|(index, name)| (format!("Label_{}", index + 1), &**name))
    }

    fn members(&self, set: LabelSet) -> &[u16] {
        match usize::from(set.user).checked_sub(1) {
            Some(index) => &self.sets[index],
            None => &[],
        }
    }

    fn number(&mut self, members: Vec<u16>) -> Result<u16, Error> {
        if members.is_empty() {
            return Ok(0);
        }
        if let Some(number) = self.numbers.get(members.as_slice()) {
            return Ok(*number);
        }
        let number = u16::try_from(self.sets.len() + 1).map_err(|_| Error::TooManySets(self.sets.len()))?;
        let members: Box<[u16]> = members.into();
        self.sets.push(members.clone());
        self.numbers.insert(members, number);
        Ok(number)
    }
}

fn user_id(index: u16) -> String {
    format!("Label_{}", u32::from(index) + 1)
}

/// Gmail's search takes `-` for a blank and for `/` in a label's name, and any letter case.
fn same_name(name: &str, text: &str) -> bool {
    let plain = |c: char| if c == ' ' || c == '/' { '-' } else { c.to_ascii_lowercase() };
    name.chars().map(plain).eq(text.chars().map(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_interned_and_ordered() {
        let mut table = Table::default();
        let a = table.set_of(["Kunden/Rechnungen", "inbox", "Zoll"]).unwrap();
        let b = table.set_of(["Zoll", "INBOX", "Kunden/Rechnungen"]).unwrap();
        assert_eq!(a, b);
        assert_eq!(table.ids(a), ["INBOX", "Label_1", "Label_2"]);
        assert_eq!(table.find("kunden-rechnungen"), Some(Label::User(0)));
        let inbox = LabelSet::system(INBOX);
        assert_eq!(table.minus(a, b), Ok(LabelSet::default()));
        let rest = table.minus(a, inbox).unwrap();
        assert_eq!(table.ids(rest), ["Label_1", "Label_2"]);
        assert_eq!(table.union(rest, inbox), Ok(a));
    }

    #[test]
    fn a_label_needs_a_name() {
        assert_eq!(Table::default().set_of([" "]), Err(Error::NoName));
    }
}
