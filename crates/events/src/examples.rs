//! Worked examples of every record: one with everything in it, one with nothing that can be left out. The golden bytes
//! of the published schemas are made from them.

use bytes::Bytes;
use domain::mailbox::record::{
    ChunkKind, Head, Job, LiveWalk, MailboxChunk, MailboxState, NeedsReauth, Purpose, Quarantine, Spent, Tail, Watch,
    WindowWalk,
};
use domain::mailbox::reply::Label;
use domain::{
    Address, Attachment, CancelJob, ConnectionId, ConnectionState, Duration, EventId, FetchPosition, FetchState,
    ForgetConnection, GmailConnectionStatusChanged, GmailJobStatusChanged, GmailMessageDiscovered, GmailMessageFetched,
    HistoryId, JobId, JobState, Lane, MessageId, OrganisationId, Origin, PollGmailConnection, Progress, Timestamp,
    TokenVersion, Trigger, Window,
};
use uuid::Uuid;

use crate::{Record, encode};

const ORGANISATION: OrganisationId =
    OrganisationId::from_uuid(Uuid::from_u128(0x0194_c3a0_1111_7000_8000_0a0b_0c0d_0e0f));
const CONNECTION: ConnectionId = ConnectionId::from_uuid(Uuid::from_u128(0x0194_c3a0_2222_7000_8000_1a1b_1c1d_1e1f));
const JOB: JobId = JobId::from_uuid(Uuid::from_u128(0x0194_c3a0_3333_7000_8000_2a2b_2c2d_2e2f));

/// 2026-02-03T04:05:06.789Z, and `ms` milliseconds more.
const fn at(ms: i64) -> Timestamp {
    Timestamp::from_millis(1_770_091_506_789 + ms)
}

const WINDOW: Window = Window { since: at(-86_400_000), until: at(0) };

/// The frames of a record's examples, each with a name.
pub fn frames(record: Record) -> Vec<(&'static str, Bytes)> {
    match record {
        Record::PollGmailConnection => vec![("backfill", encode(&backfill())), ("sync", encode(&sync()))],
        Record::CancelJob => vec![("cancel", encode(&cancel()))],
        Record::ForgetConnection => vec![("forget", encode(&forget()))],
        Record::GmailMessageDiscovered => {
            vec![("from history", encode(&from_history())), ("from a listing", encode(&from_listing()))]
        }
        Record::GmailJobStatusChanged => vec![("failed", encode(&failed())), ("queued", encode(&queued()))],
        Record::GmailConnectionStatusChanged => {
            vec![("needs consent", encode(&needs_consent())), ("new", encode(&new_connection()))]
        }
        Record::MailboxState => vec![("busy", encode(&busy_mailbox())), ("new", encode(&new_mailbox()))],
        Record::MailboxChunk => vec![("withheld", encode(&chunk()))],
        Record::GmailMessageFetched => vec![("read", encode(&fetched())), ("gone", encode(&gone()))],
        Record::FetchState => vec![("behind", encode(&behind())), ("ahead", encode(&ahead()))],
        Record::FetchPosition => vec![("moved", encode(&FetchPosition { partitions: 64, position: 1_234_567 }))],
    }
}

/// A command that asks for a window.
pub fn backfill() -> PollGmailConnection {
    PollGmailConnection { trigger: Trigger::Backfill, window: Some(WINDOW), ..sync() }
}

/// A command that asks for a sync.
pub fn sync() -> PollGmailConnection {
    PollGmailConnection {
        job_id: JOB,
        organisation_id: ORGANISATION,
        connection_id: CONNECTION,
        trigger: Trigger::Api,
        window: None,
        token_version: TokenVersion(3),
        requested_at: at(0),
        deadline: at(3_600_000),
    }
}

/// A command that ends a job.
pub fn cancel() -> CancelJob {
    CancelJob { job_id: JOB, organisation_id: ORGANISATION, connection_id: CONNECTION, requested_at: at(0) }
}

/// A command that ends a connection.
pub fn forget() -> ForgetConnection {
    ForgetConnection { organisation_id: ORGANISATION, connection_id: CONNECTION, requested_at: at(0) }
}

/// A message that a history record named.
pub fn from_history() -> GmailMessageDiscovered {
    GmailMessageDiscovered {
        label_ids: Some(["INBOX", "UNREAD", "Label_7"].map(Label::new).into()),
        history_id: Some(HistoryId::new(u64::MAX)),
        origin: Origin::Live,
        job_id: Some(JOB),
        ..from_listing()
    }
}

/// A message that a listing named.
pub fn from_listing() -> GmailMessageDiscovered {
    let message = MessageId::new("18d1c0ffee001234");
    GmailMessageDiscovered {
        event_id: EventId::of(CONNECTION, &message),
        organisation_id: ORGANISATION,
        connection_id: CONNECTION,
        message_id: message,
        thread_id: MessageId::new("18d1c0ffee000000"),
        label_ids: None,
        history_id: None,
        origin: Origin::CatchUp,
        job_id: None,
        discovered_at: at(1_234),
    }
}

/// A message that was read: an invoice, sent by a list, with one file beside its text and one in it.
pub fn fetched() -> GmailMessageFetched {
    let text = |text: &str| Some(text.to_owned());
    GmailMessageFetched {
        gone: false,
        history_id: Some(HistoryId::new(9_007_199_254_740_993)),
        label_ids: Some(["INBOX", "UNREAD", "Label_7"].map(Label::new).into()),
        internal_date: Some(at(-2_000)),
        size_estimate: Some(183_412),
        snippet: text("Dear customer, attached you find <invoice> 4711 & its terms"),
        from: vec![Address {
            name: text("Jürgen Müller"), address: text("jm@supplier.example"), ..Address::default()
        }],
        to: vec![
            Address { address: text("ap@example.com"), group: text("Accounting"), ..Address::default() },
            Address { raw: text("=?x-unknown?B?////?= <nobody"), ..Address::default() },
        ],
        cc: vec![Address { name: text("Sales"), address: text("sales@supplier.example"), ..Address::default() }],
        reply_to: vec![Address { address: text("billing@supplier.example"), ..Address::default() }],
        subject: text("Rechnung 4711 für Februar"),
        subject_raw: text("=?x-unknown?Q?Rechnung?= 4711"),
        date: Some(at(-5_789)),
        date_raw: text("Tue, 3 Feb 2026 05:05:01 +0100"),
        internet_message_id: text("4711.1770091501@mail.supplier.example"),
        in_reply_to: vec!["order-4711@example.com".into()],
        references: vec!["order-4700@example.com".into(), "order-4711@example.com".into()],
        list_id: text("Invoices <invoices.supplier.example>"),
        list_unsubscribe: text("<mailto:leave@supplier.example>"),
        precedence: text("list"),
        auto_submitted: text("auto-generated"),
        authentication_results: vec!["mx.google.com; dkim=pass header.i=@supplier.example; dmarc=pass".into()],
        attachments: vec![
            Attachment {
                part_id: "1".into(),
                filename: text("Rechnung 4711 – Februar.pdf"),
                mime_type: "application/pdf".into(),
                size: 120_345,
                ..Attachment::default()
            },
            Attachment {
                part_id: "0.1".into(),
                filename: text("logo.png"),
                filename_raw: text("=?x-unknown?Q?logo?=.png"),
                mime_type: "image/png".into(),
                size: 4_096,
                inline: true,
                content_id: text("logo@supplier.example"),
            },
        ],
        content_key: text("v1:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"),
        truncated_fields: vec!["to".into()],
        ..GmailMessageFetched::gone(&from_history(), at(5_678))
    }
}

/// A message that was no longer there.
pub fn gone() -> GmailMessageFetched {
    GmailMessageFetched::gone(&from_listing(), at(5_678))
}

/// A mailbox whose messages wait for somebody's consent.
pub fn behind() -> FetchState {
    let of = from_history();
    FetchState {
        connection_id: Some(of.connection_id),
        organisation_id: Some(of.organisation_id),
        from: 1_234,
        behind: true,
        revoked_version: Some(TokenVersion(3)),
    }
}

/// Records under a key that is no connection's, done before others of their partition.
pub fn ahead() -> FetchState {
    FetchState { connection_id: None, organisation_id: None, from: 1_234_568, behind: false, revoked_version: None }
}

/// A job that ended without what it was asked for.
pub fn failed() -> GmailJobStatusChanged {
    GmailJobStatusChanged {
        trigger: Trigger::Backfill,
        state: JobState::Failed,
        step: 5,
        progress: Progress {
            pages: 7,
            records_seen: 3_211,
            discovered: 2_900,
            duplicates_skipped: 300,
            withheld: 10,
            dead_lettered: 1,
            quota_units: 35,
            window: Some(WINDOW),
            lane: Some(Lane::Backfill),
        },
        started_at: Some(at(20)),
        ended_at: Some(at(60_000)),
        at: at(60_001),
        code: Some("Gmail.ReauthRequired".into()),
        detail: Some("The grant was revoked; connect the mailbox again to go on".into()),
        ..queued()
    }
}

/// A job that was accepted just now.
pub fn queued() -> GmailJobStatusChanged {
    GmailJobStatusChanged {
        job_id: JOB,
        organisation_id: ORGANISATION,
        connection_id: CONNECTION,
        trigger: Trigger::Schedule,
        state: JobState::Queued,
        step: 0,
        progress: Progress::default(),
        requested_at: at(0),
        started_at: None,
        ended_at: None,
        deadline: at(3_600_000),
        at: at(1),
        code: None,
        detail: None,
    }
}

/// A connection whose grant is gone.
pub fn needs_consent() -> GmailConnectionStatusChanged {
    GmailConnectionStatusChanged {
        status: ConnectionState::NeedsReauth,
        step: 12,
        last_history_id: Some(HistoryId::new(9_007_199_254_740_993)),
        last_synced_at: Some(at(-43_200_000)),
        code: Some("Gmail.ReauthRequired".into()),
        watch_expires_at: Some(at(604_800_000)),
        last_push_at: Some(at(-43_215_000)),
        units_today: Some(212),
        units_day: Some(at(-50_000_000)),
        ..new_connection()
    }
}

/// A connection that was never synced.
pub fn new_connection() -> GmailConnectionStatusChanged {
    GmailConnectionStatusChanged {
        organisation_id: ORGANISATION,
        connection_id: CONNECTION,
        status: ConnectionState::Active,
        step: 1,
        last_history_id: None,
        last_synced_at: None,
        token_version: TokenVersion(3),
        code: None,
        at: at(0),
        watch_expires_at: None,
        last_push_at: None,
        units_today: None,
        units_day: None,
    }
}

/// A mailbox with everything under way that can be.
pub fn busy_mailbox() -> MailboxState {
    let head = Head { head: HistoryId::new(9_007_199_254_740_993), taken_at: at(-600_000) };
    let tail = |first: u8| Tail {
        ids: (first..first + 32).collect::<Vec<u8>>().into(),
        minutes: Bytes::from_static(&[1, 194, 11, 1, 1, 194, 11, 2]),
    };
    MailboxState {
        absorbed: 4_711,
        step: 42,
        next_chunk: 3,
        next_walk: 9,
        needs_reauth: Some(NeedsReauth {
            token_version: TokenVersion(2),
            cause: "invalid_grant".into(),
            at: at(-60_000),
        }),
        heads: vec![head, Head { taken_at: at(-1), ..head }],
        reached_at: Some(at(-120_000)),
        last_synced: Some(head),
        jobs: vec![
            Job {
                job_id: JOB,
                trigger: Trigger::Api,
                requested_at: at(0),
                deadline: at(3_600_000),
                started_at: Some(at(20)),
                walk: Some(0),
                trace: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
            },
            Job {
                job_id: JobId::derived(CONNECTION, "gap/8"),
                trigger: Trigger::Gap,
                requested_at: at(1),
                deadline: at(604_800_000),
                started_at: None,
                walk: None,
                trace: None,
            },
        ],
        live: Some(LiveWalk {
            pinning: true,
            first: Some(head),
            checkpoint: Some(HistoryId::new(9_007_199_254_740_994)),
            page_size: 500,
            failures: 2,
            attempts: 1,
            not_before: Some(at(1_000)),
            progress: failed().progress,
            own_until: Some(at(3_600_000)),
        }),
        windows: vec![WindowWalk {
            walk: 8,
            purpose: Purpose::Gap,
            window: WINDOW,
            position: at(-43_200_000),
            slice: Duration::from_minutes(30),
            settling: true,
            failures: 0,
            attempts: 0,
            not_before: None,
            progress: Progress { lane: None, window: None, ..failed().progress },
            page_size: 250,
            parked: true,
        }],
        seen: tail(0),
        withheld: tail(32),
        rescued: tail(64),
        ended: tail(96),
        quarantine: Some(Quarantine {
            reason: "the state did not decode".into(),
            at: at(2),
            bytes: Bytes::from_static(&[0, 1, 2, 255]),
        }),
        began_at: Some(at(-86_400_000)),
        last_push_at: Some(at(-15_000)),
        repoll_at: Some(at(0)),
        unpushed_since: Some(at(-3_600_000)),
        watch: Some(Watch {
            renewed_at: Some(at(-86_400_000)),
            expires_at: Some(at(518_400_000)),
            tried_at: Some(at(-3)),
            code: Some("Gmail.Forbidden".into()),
        }),
        spent: Some(Spent { day: at(-50_000_000), units: 212 }),
        decays_at: Some(at(691_200_000)),
        ..new_mailbox()
    }
}

/// A mailbox that no command has reached.
pub fn new_mailbox() -> MailboxState {
    MailboxState {
        connection_id: CONNECTION,
        organisation_id: ORGANISATION,
        partitions: 12,
        absorbed: 0,
        step: 0,
        next_chunk: 0,
        next_walk: 1,
        token_version: TokenVersion(3),
        needs_reauth: None,
        heads: Vec::new(),
        reached_at: None,
        last_synced: None,
        jobs: Vec::new(),
        live: None,
        windows: Vec::new(),
        seen: Tail::default(),
        withheld: Tail::default(),
        rescued: Tail::default(),
        ended: Tail::default(),
        quarantine: None,
        began_at: None,
        last_push_at: None,
        repoll_at: None,
        unpushed_since: None,
        watch: None,
        spent: None,
        decays_at: None,
    }
}

/// Two ids that a mailbox remembers.
pub fn chunk() -> MailboxChunk {
    MailboxChunk {
        connection_id: CONNECTION,
        kind: ChunkKind::Withheld,
        number: 2,
        ids: (0..32).collect::<Vec<u8>>().into(),
        newest_minute: 29_501_525,
    }
}
