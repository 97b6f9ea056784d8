-- Every table names its tenant. Times are UTC with millisecond precision, as the events carry them.

CREATE TABLE organisations (
    organisation_id uuid PRIMARY KEY,
    name            text NOT NULL,
    -- Hosts that a consent flow may send the browser back to.
    return_hosts    text[] NOT NULL DEFAULT '{}',
    created_at      timestamptz NOT NULL
);

CREATE TABLE api_keys (
    key_id          uuid PRIMARY KEY,
    organisation_id uuid NOT NULL REFERENCES organisations,
    name            text NOT NULL,
    -- The part of the key that may be shown; a key is found by it.
    prefix          text NOT NULL UNIQUE,
    -- SHA-256 of the whole key. A key carries 256 random bits, so no slow hash is needed.
    hash            bytea NOT NULL CHECK (octet_length(hash) = 32),
    scopes          text[] NOT NULL,
    created_at      timestamptz NOT NULL,
    revoked_at      timestamptz,
    last_used_at    timestamptz
);
CREATE INDEX api_keys_newest ON api_keys (organisation_id, created_at DESC, key_id DESC);

-- What the organisation set up. Written when a mailbox is connected, renewed or deleted, never by the projector.
CREATE TABLE connections (
    connection_id    uuid PRIMARY KEY,
    organisation_id  uuid NOT NULL REFERENCES organisations,
    -- Google's account: whose quota is spent. Budgets are shared by all connections with the same one.
    account          text NOT NULL,
    email            text NOT NULL,
    token_version    bigint NOT NULL,
    -- The refresh token under XChaCha20-Poly1305, bound to connection and organisation; the key's id beside it.
    token_ciphertext bytea NOT NULL,
    token_nonce      bytea NOT NULL CHECK (octet_length(token_nonce) = 24),
    token_key_id     text NOT NULL,
    created_at       timestamptz NOT NULL,
    revoked_at       timestamptz
);
CREATE UNIQUE INDEX connections_living ON connections (organisation_id, account) WHERE revoked_at IS NULL;
CREATE INDEX connections_newest ON connections (organisation_id, created_at DESC, connection_id DESC) WHERE revoked_at IS NULL;
CREATE INDEX connections_account ON connections (account) WHERE revoked_at IS NULL;

-- A known value under every token key ever used here, so that a mistyped key is told at start.
CREATE TABLE token_keys (
    key_id     text PRIMARY KEY,
    ciphertext bytea NOT NULL,
    nonce      bytea NOT NULL
);

-- What the topics say of a connection. Written by the projector alone; derived, so no reference to `connections`.
CREATE TABLE connection_states (
    connection_id   uuid PRIMARY KEY,
    organisation_id uuid NOT NULL,
    state           text NOT NULL,
    step            bigint NOT NULL,
    -- uint64, which bigint does not hold.
    last_history_id text,
    last_synced_at  timestamptz,
    token_version   bigint NOT NULL,
    code            text,
    changed_at      timestamptz NOT NULL
) WITH (fillfactor = 80);

-- What the topics say of a job. `rank` orders the states, `step` the facts within one; a row at the last rank never
-- changes. Rows that ingress put in before any fact arrived have step -1. The indexed columns never change, which
-- lets every update stay within its page (hence the fill factor).
CREATE TABLE jobs (
    job_id          uuid PRIMARY KEY,
    organisation_id uuid NOT NULL,
    connection_id   uuid NOT NULL,
    trigger         text NOT NULL,
    state           text NOT NULL,
    rank            smallint NOT NULL,
    step            bigint NOT NULL,
    progress        jsonb NOT NULL,
    requested_at    timestamptz NOT NULL,
    started_at      timestamptz,
    ended_at        timestamptz,
    deadline        timestamptz NOT NULL,
    code            text,
    detail          text,
    changed_at      timestamptz NOT NULL
) WITH (fillfactor = 70);
CREATE INDEX jobs_newest_of_connection ON jobs (organisation_id, connection_id, requested_at DESC, job_id DESC);
CREATE INDEX jobs_newest ON jobs (organisation_id, requested_at DESC, job_id DESC);

-- The next offset of every partition that a projection has read, written in the transaction of the rows.
CREATE TABLE projector_offsets (
    projection  text NOT NULL,
    topic       text NOT NULL,
    partition   integer NOT NULL,
    next_offset bigint NOT NULL,
    PRIMARY KEY (projection, topic, partition)
);

-- Up to where each schedule has fired, so that a restart catches up.
CREATE TABLE schedule_watermarks (
    schedule text PRIMARY KEY,
    fired_to timestamptz NOT NULL
);
