-- What lies sealed besides refresh tokens, found by its token key: to be moved to another, and to be missed at start.
CREATE INDEX idempotency_keys_sealed ON idempotency_keys (split_part(answer, ':', 1)) WHERE answer IS NOT NULL;

-- How many consents an organisation has open.
CREATE INDEX consents_open ON consents (organisation_id, expires_at);
