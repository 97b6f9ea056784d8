-- Mailboxes that a domain's administrator delegated to the installation's service account: what is sealed is empty.
ALTER TABLE connections ADD COLUMN is_delegated boolean NOT NULL DEFAULT false;
