//! A mailbox whose state is lost, from what was projected of it.

use super::heads::Heads;
use super::record::{Head, Job, NeedsReauth, Purpose};
use super::{Context, Duration, Mailbox, TokenVersion, Window};
use crate::id::{ConnectionId, OrganisationId};
use crate::time::Timestamp;

/// The lost state may have told more than what was projected of it: what is told from now on is later than all of it.
const STEPS: i64 = 1_000_000_000;

/// What is known of a mailbox whose state is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Projected {
    /// The mailbox.
    pub connection_id: ConnectionId,
    /// The tenant.
    pub organisation_id: OrganisationId,
    /// When it was connected.
    pub connected_at: Timestamp,
    /// The version of the refresh token that there is now.
    pub token_version: TokenVersion,
    /// The step of the last status that was projected, of the connection or of an open job.
    pub step: i64,
    /// The head of the newest complete walk; none: no sync was ever complete.
    pub synced: Option<Head>,
    /// Set while somebody has to consent again.
    pub needs_reauth: Option<NeedsReauth>,
    /// When the last push was taken in.
    pub last_push_at: Option<Timestamp>,
    /// The jobs of owed windows that are not listed yet, each with its window.
    pub gaps: Vec<(Job, Window)>,
}

impl Mailbox {
    /// The mailbox to go on with: history is walked from the projected cursor. What lies before it, back to `margin`, is
    /// owed as a window: records that became visible late, mail that was kept back and what else was owed are known to the
    /// lost state only. Nothing is remembered of what was announced, so that the window's mail is announced again.
    ///
    /// A mailbox of which no sync was complete owes what its first sync would have.
    pub fn rebuilt(cx: &Context<'_>, known: Projected, margin: Duration) -> Self {
        let Projected { connection_id, organisation_id, connected_at, token_version, step, .. } = known;
        let mut mailbox = Self::new(connection_id, organisation_id);
        mailbox.step = step.max(0).saturating_add(STEPS);
        mailbox.token = token_version;
        mailbox.needs_reauth = known.needs_reauth.filter(|refused| refused.token_version >= token_version);
        mailbox.last_push = known.last_push_at;
        let first = connected_at - cx.rules.catch_up;
        match known.synced {
            Some(head) => {
                mailbox.heads = Heads::default();
                mailbox.heads.pin(head.head, head.taken_at);
                mailbox.reached = Some(head.taken_at);
                mailbox.last_synced = Some(head);
                // Of what came before, nothing is remembered that an audit could compare with.
                mailbox.began = Some(head.taken_at);
                let until = (head.taken_at + cx.rules.lag).min(cx.now);
                let window = Window { since: (head.taken_at - margin).max(first), until };
                if !window.is_empty() {
                    mailbox.open_window(cx, Purpose::Gap, window);
                }
            }
            None => mailbox.reached = Some(first + cx.rules.overlap),
        }
        for (job, window) in known.gaps {
            let walk = mailbox.open_window(cx, Purpose::Gap, window);
            mailbox.jobs.push(Job { walk: Some(walk), ..job });
        }
        mailbox
    }

    /// Whether a restore has to wake it, also where nothing is under way.
    pub fn has_work(&self) -> bool {
        !self.is_idle() || !self.jobs.is_empty() || !self.windows.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::id::{HistoryId, JobId};
    use crate::job::Trigger;
    use crate::mailbox::{Action, Rules};

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    fn known() -> Projected {
        Projected {
            connection_id: ConnectionId::from_uuid(Uuid::from_u128(1)),
            organisation_id: OrganisationId::from_uuid(Uuid::from_u128(2)),
            connected_at: NOW - Duration::from_days(100),
            token_version: TokenVersion(3),
            step: 41,
            synced: Some(Head { head: HistoryId::new(77), taken_at: NOW - Duration::from_hours(5) }),
            needs_reauth: None,
            last_push_at: None,
            gaps: Vec::new(),
        }
    }

    fn windows(mailbox: &Mailbox) -> Vec<Window> {
        mailbox.state(1, 0).windows.iter().map(|walk| walk.window).collect()
    }

    #[test]
    fn it_walks_from_the_cursor_and_lists_what_lies_before() {
        let cx = Context { now: NOW, jitter: 0, rules: &Rules::DEFAULT };
        let margin = Duration::from_days(31);
        let mut mailbox = Mailbox::rebuilt(&cx, known(), margin);
        assert_eq!(mailbox.cursor(), Some(HistoryId::new(77)));
        let taken_at = NOW - Duration::from_hours(5);
        assert_eq!(windows(&mailbox), [Window { since: taken_at - margin, until: taken_at + Rules::DEFAULT.lag }]);
        assert!(mailbox.has_work() && mailbox.state(1, 0).step > STEPS);
        let mut out = Vec::new();
        mailbox.advance(&cx, &mut out);
        assert!(matches!(out.as_slice(), [Action::Call(_)]), "it lists at once: {out:?}");

        let young = Projected { connected_at: NOW - Duration::from_hours(6), ..known() };
        let mailbox = Mailbox::rebuilt(&cx, young, margin);
        assert_eq!(windows(&mailbox)[0].since, NOW - Duration::from_hours(30), "no further than it ever did");
    }

    #[test]
    fn who_has_to_consent_still_has_to_and_what_was_never_synced_is_owed_from_its_begin() {
        let cx = Context { now: NOW, jitter: 0, rules: &Rules::DEFAULT };
        let refused = |version| NeedsReauth { token_version: TokenVersion(version), cause: "gone".to_owned(), at: NOW };
        let rebuilt = |known| Mailbox::rebuilt(&cx, known, Duration::from_days(1));
        assert!(rebuilt(Projected { needs_reauth: Some(refused(3)), ..known() }).state(1, 0).needs_reauth.is_some());
        assert!(rebuilt(Projected { needs_reauth: Some(refused(2)), ..known() }).state(1, 0).needs_reauth.is_none());
        let unsynced = rebuilt(Projected { synced: None, ..known() });
        let owed = NOW - Duration::from_days(101) + Rules::DEFAULT.overlap;
        assert_eq!((unsynced.cursor(), unsynced.state(1, 0).reached_at), (None, Some(owed)));
        assert!(!unsynced.has_work(), "its first sync is asked for");
    }

    #[test]
    fn a_gap_goes_on_under_its_own_job() {
        let cx = Context { now: NOW, jitter: 0, rules: &Rules::DEFAULT };
        let job = Job {
            job_id: JobId::from_uuid(Uuid::from_u128(9)),
            trigger: Trigger::Gap,
            requested_at: NOW,
            deadline: NOW + Duration::from_days(1),
            started_at: None,
            walk: None,
            trace: None,
        };
        let window = Window { since: NOW - Duration::from_days(9), until: NOW - Duration::from_days(2) };
        let mailbox = Mailbox::rebuilt(&cx, Projected { gaps: vec![(job, window)], ..known() }, Duration::from_days(1));
        let state = mailbox.state(1, 0);
        let listed = state.windows.iter().find(|walk| Some(walk.walk) == state.jobs[0].walk).unwrap();
        assert_eq!((listed.purpose, listed.window), (Purpose::Gap, window));
    }
}
