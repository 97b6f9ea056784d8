//! Which ids stand in the frames: the manifest's, or those that a schema registry gave the same schemas.
//!
//! Fixed once, when the process starts: a frame is written under a number that is there already, and no record waits for
//! a registry. Frames under the manifest's ids are read in any case, so that a registry can be put in place while
//! records of before it are retained. What the pipeline keeps for itself stays under the manifest's ids: a mailbox's
//! state has to be readable for ever, also by a process that was started without the registry's address.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use crate::codec::codecs;
use crate::registry::{Published, Registry};

/// From a registry's ids to the manifest's.
static ADOPTED: OnceLock<BTreeMap<u32, u32>> = OnceLock::new();

/// Why a registry's ids cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdoptError {
    /// Ids were adopted before, and they were others.
    #[error("this process has adopted other schema ids already; one process works with one registry")]
    Twice,
    /// The manifest does not know the schema.
    #[error("id {0} was given to a schema that is none of this build's")]
    Unknown(u32),
    /// Two schemas under one id, or one under an id that the manifest gives another.
    #[error(
        "the registry's id {theirs} for {subject} is taken: {taken_by} has it; records under both could not be told apart"
    )]
    Taken {
        /// The registry's id.
        theirs: u32,
        /// The schema that it gave the id to.
        subject: String,
        /// The schema that has the id already.
        taken_by: String,
    },
}

/// From now on writes frames under a registry's ids, given by the manifest's, and reads them. What has no id there is
/// written under the manifest's. The same ids may be adopted again.
///
/// # Errors
/// When the ids cannot be told apart, or others were adopted before. Nothing changes then.
pub fn adopt(theirs: &BTreeMap<u32, u32>) -> Result<(), AdoptError> {
    let back = inverted(Registry::built_in(), theirs)?;
    if *ADOPTED.get_or_init(|| back.clone()) != back {
        return Err(AdoptError::Twice);
    }
    for (ours, theirs) in theirs {
        let published = Registry::built_in().by_id(*ours).ok_or(AdoptError::Unknown(*ours))?;
        if !published.record.is_private() {
            codecs().write_under(*ours, *theirs);
        }
    }
    Ok(())
}

/// The map from the registry's ids to the manifest's.
fn inverted(registry: &Registry, theirs: &BTreeMap<u32, u32>) -> Result<BTreeMap<u32, u32>, AdoptError> {
    let mut back = BTreeMap::new();
    for (ours, theirs) in theirs {
        let published = registry.by_id(*ours).ok_or(AdoptError::Unknown(*ours))?;
        // The manifest's own schema of this id, or the one that was given it a moment ago.
        let holder = back.get(theirs).copied().unwrap_or(*theirs);
        if let Some(other) = registry.by_id(holder).filter(|other| other.id != *ours) {
            let name = |it: &Published| format!("{} version {}", it.subject, it.version);
            return Err(AdoptError::Taken { theirs: *theirs, subject: name(published), taken_by: name(other) });
        }
        back.insert(*theirs, *ours);
    }
    Ok(back)
}

/// The manifest's id of a frame's: itself, unless a registry gave it.
pub(crate) fn own_id(id: u32) -> u32 {
    ADOPTED.get().and_then(|back| back.get(&id)).copied().unwrap_or(id)
}

/// The published schema that frames with this id hold, whether the manifest or a registry gave the id.
pub fn published(id: u32) -> Option<&'static Published> {
    Registry::built_in().by_id(own_id(id))
}

/// The id under which this process writes frames of a published schema.
pub fn written_id(published: &Published) -> u32 {
    codecs().written_id(published.id).unwrap_or(published.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_turned_around_and_those_that_are_taken_are_refused() {
        let registry = Registry::built_in();
        let theirs: BTreeMap<u32, u32> = registry.all().zip(1..).map(|(it, id)| (it.id, id)).collect();
        let back = inverted(registry, &theirs).unwrap();
        assert!(theirs.iter().all(|(ours, theirs)| back[theirs] == *ours));

        let twice = BTreeMap::from([(1_000_001, 7), (1_000_002, 7)]);
        let error = inverted(registry, &twice).unwrap_err().to_string();
        assert!(error.contains("id 7 for mailtide.gmail.CancelJob version 1"), "{error}");
        assert!(error.contains("mailtide.gmail.PollGmailConnection version 1 has it"), "{error}");
        let anothers = BTreeMap::from([(1_000_001, 1_000_002)]);
        assert!(matches!(inverted(registry, &anothers), Err(AdoptError::Taken { theirs: 1_000_002, .. })));
        // A registry that happens to give our own id gives no offence.
        assert!(inverted(registry, &BTreeMap::from([(1_000_001, 1_000_001)])).is_ok());
        assert_eq!(inverted(registry, &BTreeMap::from([(5, 6)])), Err(AdoptError::Unknown(5)));
    }
}
