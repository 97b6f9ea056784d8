-- Requests that named themselves by an `Idempotency-Key`: what was asked, and the id that was given to what came of it.
-- Neither the key nor the request is kept, only what tells them from others.
CREATE TABLE idempotency_keys (
    organisation_id uuid NOT NULL REFERENCES organisations,
    key_hash        bytea NOT NULL CHECK (octet_length(key_hash) = 32),
    request_hash    bytea NOT NULL CHECK (octet_length(request_hash) = 32),
    -- The id of what the request makes, chosen before it is made: whoever repeats the request makes the same.
    made_id         uuid NOT NULL,
    -- The answer, where the id alone does not tell it.
    answer          text,
    created_at      timestamptz NOT NULL,
    PRIMARY KEY (organisation_id, key_hash)
);
CREATE INDEX idempotency_keys_oldest ON idempotency_keys (created_at);
