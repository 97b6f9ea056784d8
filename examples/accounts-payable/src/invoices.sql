-- Every mail that looks like an invoice, once, in however many mailboxes and however often it is delivered.
CREATE TABLE IF NOT EXISTS ap_mails (
    event_id        uuid PRIMARY KEY,
    organisation_id uuid NOT NULL,
    connection_id   uuid NOT NULL,
    message_id      text NOT NULL,
    invoice_key     text NOT NULL
);
-- Every invoice, once: what is to be paid. Copies of a mail in several mailboxes share the key.
CREATE TABLE IF NOT EXISTS ap_invoices (
    organisation_id uuid NOT NULL,
    invoice_key     text NOT NULL,
    event_id        uuid NOT NULL,
    sender          text,
    subject         text,
    files           text[] NOT NULL,
    -- Without a content key nothing tells a copy from another invoice: somebody has to look before it is paid.
    needs_review    boolean NOT NULL,
    PRIMARY KEY (organisation_id, invoice_key)
);
