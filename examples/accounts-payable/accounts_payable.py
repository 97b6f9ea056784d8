"""An accounts payable system's way in: reads `gmail.message.fetched`, picks the mails that look like invoices, and
writes one row for each invoice to pay. Made to be copied.

It may be killed at any moment. Offsets are committed after the row is, so a record may come again, and changes nothing
then: rows are keyed by `eventId` and by `contentKey`, and what is there already stays as it is. So it needs no transaction
over Kafka and Postgres, and a replay or a backfill of mail that it knows pays nothing twice.

Needs `pip install --requirement requirements.txt`, and in the environment KAFKA_BOOTSTRAP_SERVERS, DATABASE_URL and
SCHEMA_REGISTRY_URL: a schema registry's, or that of Mailtide's API, which answers as one.
"""

import os
import pathlib

import psycopg
from confluent_kafka import Consumer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

TABLES = pathlib.Path(__file__).with_name("src").joinpath("invoices.sql").read_text()

# One statement, so both rows or none; who comes second, from another mailbox or by another delivery, adds nothing.
WRITE = """
    WITH mail AS (
        INSERT INTO ap_mails (event_id, organisation_id, connection_id, message_id, invoice_key)
        VALUES (%(event)s, %(organisation)s, %(connection)s, %(message)s, %(key)s) ON CONFLICT (event_id) DO NOTHING
    )
    INSERT INTO ap_invoices (organisation_id, invoice_key, event_id, sender, subject, files, needs_review)
    VALUES (%(organisation)s, %(key)s, %(event)s, %(sender)s, %(subject)s, %(files)s, %(review)s)
    ON CONFLICT (organisation_id, invoice_key) DO NOTHING
"""

# Words by which a subject or a file's name says that it is an invoice.
WORDS = ("invoice", "rechnung", "facture", "factura", "fattura", "faktura")


def invoice_files(mail):
    """The names of the files that look like an invoice: a PDF or XML beside the text, if its name or the subject says so."""

    def says_so(text):
        return any(word in (text or "").lower() for word in WORDS)

    files = [file for file in mail["attachments"] if not file["inline"]]
    files = [file for file in files if "pdf" in file["mimeType"] or "xml" in file["mimeType"]]
    names = [file["filename"] or file["partId"] for file in files]
    return [name for name in names if says_so(mail["subject"]) or says_so(name)]


def write(database, mail):
    """The row for the mail, if it is an invoice and there is none for it yet."""
    files = invoice_files(mail)
    if mail["gone"] or not files:
        return
    database.execute(WRITE, {
        "event": str(mail["eventId"]),
        "organisation": str(mail["organisationId"]),
        "connection": str(mail["connectionId"]),
        "message": mail["messageId"],
        # Without a content key nothing tells a copy from another invoice: somebody has to look before it is paid.
        "key": mail["contentKey"] or f"event:{mail['eventId']}",
        "review": mail["contentKey"] is None,
        "sender": mail["from"][0]["address"] if mail["from"] else None,
        "subject": mail["subject"],
        "files": files,
    })


def main():
    topic = os.environ.get("AP_TOPIC", "gmail.message.fetched")
    deserialise = AvroDeserializer(SchemaRegistryClient({"url": os.environ["SCHEMA_REGISTRY_URL"]}))
    consumer = Consumer({
        "bootstrap.servers": os.environ["KAFKA_BOOTSTRAP_SERVERS"],
        "group.id": os.environ.get("AP_GROUP", "accounts-payable"),
        # Without it aborted records would be read, too, and an event could be seen that never was.
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        # One that was killed is missed soon, and its partitions are read on by another.
        "session.timeout.ms": 10_000,
        "auto.offset.reset": "earliest",
    })
    consumer.subscribe([topic])
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as database:
        database.execute(f'SET search_path TO "{os.environ.get("AP_SCHEMA", "public")}"')
        database.execute(TABLES)
        while True:
            record = consumer.poll(1.0)
            if record is None:
                continue
            if record.error():
                if not record.error().retriable():
                    raise SystemExit(f"reading {topic}: {record.error()}")
                continue
            if record.value() is not None:
                # One that does not decode ends this program: to skip it would be to lose an invoice.
                write(database, deserialise(record.value(), SerializationContext(topic, MessageField.VALUE)))
            # After the row, never before it.
            consumer.commit(record, asynchronous=True)


if __name__ == "__main__":
    main()
