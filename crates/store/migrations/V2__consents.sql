-- Connecting and disconnecting over HTTP, and a schedule of a connection's own.

ALTER TABLE connections
    -- Google's id of the account, which stays when its address changes; unknown where an operator added the connection.
    ADD COLUMN subject text,
    -- How often it is synced without being asked; the installation's interval when null.
    ADD COLUMN sync_interval_hours smallint CHECK (sync_interval_hours BETWEEN 1 AND 24),
    -- The schedule leaves it alone.
    ADD COLUMN paused boolean NOT NULL DEFAULT false,
    -- When the last trace of a deleted connection was gone: its state forgotten, its grant ended where that was due.
    ADD COLUMN forgotten_at timestamptz;

-- An account is an address, in one spelling. Where an organisation has two that differ in case they stay two.
UPDATE connections c SET account = lower(account)
WHERE account <> lower(account) AND NOT EXISTS (
    SELECT 1 FROM connections o
    WHERE o.organisation_id = c.organisation_id AND lower(o.account) = lower(c.account)
      AND o.connection_id <> c.connection_id AND o.revoked_at IS NULL);

CREATE UNIQUE INDEX connections_subject ON connections (subject, organisation_id) WHERE revoked_at IS NULL;
CREATE INDEX connections_leaving ON connections (revoked_at) WHERE revoked_at IS NOT NULL AND forgotten_at IS NULL;
CREATE INDEX connections_interval ON connections (sync_interval_hours)
    WHERE revoked_at IS NULL AND sync_interval_hours IS NOT NULL;

-- Consent pages that somebody was sent to. Taken, once, when the browser comes back.
CREATE TABLE consents (
    -- SHA-256 of the state that comes back with the browser: 256 random bits, kept nowhere.
    state_hash          bytea PRIMARY KEY CHECK (octet_length(state_hash) = 32),
    organisation_id     uuid NOT NULL REFERENCES organisations,
    -- The verifier of PKCE, sealed as refresh tokens are.
    verifier_ciphertext bytea NOT NULL,
    verifier_nonce      bytea NOT NULL CHECK (octet_length(verifier_nonce) = 24),
    verifier_key_id     text NOT NULL,
    return_url          text NOT NULL,
    -- How far back the first sync is to reach, when that was said.
    since               timestamptz,
    expires_at          timestamptz NOT NULL
);
CREATE INDEX consents_expiry ON consents (expires_at);

-- Syncs that a consent owes and that no broker has acknowledged yet. Written with the connection, taken out afterwards.
CREATE TABLE first_syncs (
    connection_id   uuid PRIMARY KEY REFERENCES connections,
    organisation_id uuid NOT NULL,
    token_version   bigint NOT NULL,
    -- How far back it reaches; null: no further than a sync does by itself.
    since           timestamptz,
    owed_at         timestamptz NOT NULL
);
