//! What is written is read back, and what is not ours is refused with a reason.

use bytes::BytesMut;
use domain::mailbox::reply::Label;
use domain::{
    Address, Attachment, ConnectionId, EventId, GmailMessageDiscovered, GmailMessageFetched, HistoryId, JobId,
    MessageId, OrganisationId, Origin, Timestamp,
};
use events::headers::{Envelope, ID, JOB_ID, TIME, TRACE_PARENT, TYPE};
use events::{
    Error, Record, Registry, TraceParent, decode, decode_command, encode, encode_command, encode_into, examples,
    to_json,
};
use proptest::prelude::*;
use uuid::Uuid;

fn uuids() -> impl Strategy<Value = Uuid> {
    any::<u128>().prop_map(Uuid::from_u128)
}

fn message_ids() -> impl Strategy<Value = MessageId> {
    prop_oneof![any::<u64>().prop_map(MessageId::from_u64), ".{0,40}".prop_map(|text| MessageId::new(&text))]
}

fn origins() -> impl Strategy<Value = Origin> {
    prop::sample::select(vec![
        Origin::Live,
        Origin::CatchUp,
        Origin::Gap,
        Origin::Backfill,
        Origin::Audit,
        Origin::Replay,
    ])
}

prop_compose! {
    fn discovered()(
        event_id in uuids(), organisation_id in uuids(), connection_id in uuids(),
        message_id in message_ids(), thread_id in message_ids(),
        label_ids in prop::option::of(prop::collection::vec(".{0,80}", 0..4)),
        history_id in prop::option::of(any::<u64>()), origin in origins(), job_id in prop::option::of(uuids()),
        discovered_at in any::<i64>(),
    ) -> GmailMessageDiscovered {
        GmailMessageDiscovered {
            event_id: EventId::from_uuid(event_id),
            organisation_id: OrganisationId::from_uuid(organisation_id),
            connection_id: ConnectionId::from_uuid(connection_id),
            message_id, thread_id,
            label_ids: label_ids.map(|labels| labels.iter().map(|label| Label::new(label)).collect()),
            history_id: history_id.map(HistoryId::new),
            origin,
            job_id: job_id.map(JobId::from_uuid),
            discovered_at: Timestamp::from_millis(discovered_at),
        }
    }
}

fn texts() -> impl Strategy<Value = Option<String>> {
    prop::option::of(".{0,40}")
}

fn lists() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(".{0,20}", 0..3)
}

fn addresses() -> impl Strategy<Value = Vec<Address>> {
    let one = (texts(), texts(), texts(), texts());
    prop::collection::vec(one.prop_map(|(name, address, group, raw)| Address { name, address, group, raw }), 0..3)
}

prop_compose! {
    fn attachments()(
        part_id in "[0-9.]{0,5}", filename in texts(), filename_raw in texts(), mime_type in ".{0,20}",
        size in any::<i64>(), inline in any::<bool>(), content_id in texts(),
    ) -> Attachment {
        Attachment { part_id, filename, filename_raw, mime_type, size, inline, content_id }
    }
}

prop_compose! {
    fn fetched()(
        event in discovered(), (gone, fetched_at, internal_date, date) in any::<(bool, i64, Option<i64>, Option<i64>)>(),
        (history, size_estimate) in any::<(Option<u64>, Option<i64>)>(),
        (from, to, cc, reply_to) in (addresses(), addresses(), addresses(), addresses()),
        (snippet, subject, subject_raw, date_raw, message_id, list_id) in
            (texts(), texts(), texts(), texts(), texts(), texts()),
        (list_unsubscribe, precedence, auto_submitted, content_key) in (texts(), texts(), texts(), texts()),
        (in_reply_to, references, authentication_results, truncated_fields) in (lists(), lists(), lists(), lists()),
        attachments in prop::collection::vec(attachments(), 0..3),
    ) -> GmailMessageFetched {
        let base = GmailMessageFetched::gone(&event, Timestamp::from_millis(fetched_at));
        GmailMessageFetched {
            gone, from, to, cc, reply_to, snippet, subject, subject_raw, date_raw, list_id, list_unsubscribe,
            precedence, auto_submitted, content_key, in_reply_to, references, authentication_results,
            truncated_fields, attachments, size_estimate,
            history_id: history.map(HistoryId::new),
            label_ids: event.label_ids,
            internal_date: internal_date.map(Timestamp::from_millis),
            date: date.map(Timestamp::from_millis),
            internet_message_id: message_id,
            ..base
        }
    }
}

/// The datum as the library writes it.
fn by_the_library(event: &GmailMessageDiscovered) -> Vec<u8> {
    let published = Registry::built_in().written(Record::GmailMessageDiscovered);
    let schema = apache_avro::Schema::parse_str(&published.text).unwrap();
    apache_avro::writer::datum::GenericDatumWriter::builder(&schema)
        .human_readable(true)
        .build()
        .unwrap()
        .write_ser_to_vec(event)
        .unwrap()
}

proptest! {
    #[test]
    fn the_exact_encoder_writes_what_the_library_writes(event in discovered()) {
        prop_assert_eq!(&encode(&event)[5..], by_the_library(&event));
    }

    #[test]
    fn a_discovered_message_is_read_back(event in discovered()) {
        let frame = encode(&event);
        prop_assert_eq!(decode::<GmailMessageDiscovered>(&frame).unwrap(), event);
    }

    #[test]
    fn a_fetched_message_is_read_back_and_its_headers_name_it(event in fetched()) {
        let frame = encode(&event);
        // Not by `prop_assert_eq`: neither prints anything of the mail.
        prop_assert!(decode::<GmailMessageFetched>(&frame).unwrap() == event);
        let headers = Envelope::new("urn:mailtide:test", event.fetched_at, TraceParent::new(1, 1)).headers(&event, &frame);
        let of = |name| headers.iter().find(|(it, _)| *it == name).map(|(_, value)| value.clone()).unwrap();
        prop_assert_eq!(of(ID), event.event_id.to_string());
        prop_assert_eq!(of(TYPE), "gmail.message.fetched");
    }

    #[test]
    fn records_that_share_a_buffer_do_not_mix(events in prop::collection::vec(discovered(), 0..5)) {
        let mut buffer = BytesMut::with_capacity(1 << 16);
        let begin = buffer.as_ptr() as usize;
        let frames: Vec<_> = events.iter().map(|event| encode_into(event, &mut buffer)).collect();
        let mut at = begin;
        for (event, frame) in events.iter().zip(frames) {
            prop_assert_eq!(&frame, &encode(event));
            prop_assert_eq!(frame.as_ptr() as usize, at, "each follows the one before it in the same allocation");
            at += frame.len();
        }
    }

    #[test]
    fn the_headers_name_the_event(event in discovered(), trace: u128, span: u64) {
        let trace = TraceParent::new(trace, span);
        let frame = encode(&event);
        let headers = Envelope::new("urn:mailtide:test", event.discovered_at, trace).headers(&event, &frame);
        let of = |name| headers.iter().find(|(it, _)| *it == name).map(|(_, value)| value.clone()).unwrap();
        prop_assert_eq!(of(ID), event.event_id.to_string());
        prop_assert_eq!(of(TYPE), "gmail.message.discovered");
        prop_assert_eq!(TraceParent::parse(&of(TRACE_PARENT)), Ok(trace));
        let time = of(TIME);
        prop_assert!(std::str::from_utf8(&time).unwrap().parse::<jiff::Timestamp>().is_ok());
    }

    #[test]
    fn no_bytes_break_the_decoder(record in prop::sample::select(Record::ALL.to_vec()), datum: Vec<u8>) {
        let id = Registry::built_in().written(record).id;
        let frame = [&[0_u8] as &[u8], &id.to_be_bytes(), &datum].concat();
        let _ = to_json(&frame);
        let _ = decode_command(&frame);
        let _ = decode::<domain::GmailJobStatusChanged>(&frame);
        let _ = decode::<domain::GmailConnectionStatusChanged>(&frame);
        let _ = decode::<GmailMessageDiscovered>(&frame);
        let _ = decode::<GmailMessageFetched>(&frame);
    }

    #[test]
    fn a_flipped_bit_never_panics(at in 0_usize..400, bit in 0_u8..8) {
        for (_, frame) in Record::ALL.into_iter().flat_map(examples::frames) {
            let mut frame = frame.to_vec();
            let at = at % frame.len();
            frame[at] ^= 1 << bit;
            let _ = to_json(&frame);
            let _ = decode_command(&frame);
            let _ = decode::<GmailMessageDiscovered>(&frame);
            let _ = decode::<GmailMessageFetched>(&frame);
        }
    }
}

#[test]
fn commands_are_read_back_by_their_schema() {
    for command in [
        domain::Command::Poll(examples::sync()),
        domain::Command::Poll(examples::backfill()),
        domain::Command::Cancel(examples::cancel()),
        domain::Command::Forget(examples::forget()),
    ] {
        assert_eq!(decode_command(&encode_command(&command)).unwrap(), command);
    }
}

#[test]
fn a_poll_command_names_the_job_to_fail() {
    let envelope = Envelope::new("urn:mailtide:test", Timestamp::from_millis(0), TraceParent::new(1, 1));
    let poll = examples::sync();
    let headers = envelope.headers(&poll, &encode(&poll));
    assert!(headers.contains(&(JOB_ID, poll.job_id.to_string().into())));
    // To fail the job that an unreadable command wanted to cancel would be wrong.
    let cancel = examples::cancel();
    assert!(envelope.headers(&cancel, &encode(&cancel)).iter().all(|(name, _)| *name != JOB_ID));
}

#[test]
fn a_cut_frame_is_always_an_error() {
    for (case, frame) in Record::ALL.into_iter().flat_map(examples::frames) {
        for end in 0..frame.len() {
            assert!(to_json(&frame[..end]).is_err(), "{case} cut at {end}");
            assert!(decode_command(&frame[..end]).is_err(), "{case} cut at {end}");
            assert!(decode::<GmailMessageDiscovered>(&frame[..end]).is_err(), "{case} cut at {end}");
            assert!(decode::<domain::GmailJobStatusChanged>(&frame[..end]).is_err(), "{case} cut at {end}");
            assert!(decode::<GmailMessageFetched>(&frame[..end]).is_err(), "{case} cut at {end}");
        }
    }
}

#[test]
fn bytes_after_the_datum_are_an_error() {
    let frame = [&encode(&examples::sync()) as &[u8], b"\0"].concat();
    let error = decode_command(&frame).unwrap_err();
    assert!(matches!(error, Error::TrailingBytes { extra: 1, .. }), "{error}");
    assert!(matches!(to_json(&frame), Err(Error::TrailingBytes { extra: 1, .. })));
}

#[test]
fn what_is_no_frame_of_ours_is_named() {
    assert!(matches!(decode_command(b"{\"jobId\":1}"), Err(Error::NotFramed { len: 11 })));
    assert!(matches!(decode_command(b""), Err(Error::NotFramed { len: 0 })));
    assert!(matches!(decode_command(&[0, 0, 0, 0, 9, 1]), Err(Error::UnknownSchema { id: 9 })));
    let event = encode(&examples::from_history());
    assert!(matches!(decode_command(&event), Err(Error::OtherRecord { found: "GmailMessageDiscovered", .. })));
    let other = decode::<GmailMessageDiscovered>(&encode(&examples::queued()));
    assert!(matches!(other, Err(Error::OtherRecord { found: "GmailJobStatusChanged", .. })));
}

#[test]
fn a_length_beyond_all_bounds_allocates_nothing() {
    let id = Registry::built_in().written(Record::GmailMessageDiscovered).id;
    // A string of 2^40 bytes.
    let frame = [&[0_u8] as &[u8], &id.to_be_bytes(), &[0x80, 0x80, 0x80, 0x80, 0x80, 0x40]].concat();
    let error = decode::<GmailMessageDiscovered>(&frame).unwrap_err().to_string();
    assert!(error.contains("allocate"), "{error}");
}
