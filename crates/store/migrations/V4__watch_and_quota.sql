-- What the poller tells of a connection's pushes and of what it spends.

ALTER TABLE connection_states
    -- When Gmail stops pushing unless the watch is renewed; null where it is not watched.
    ADD COLUMN watch_expires_at timestamptz,
    -- When the last push was taken in.
    ADD COLUMN last_push_at timestamptz,
    -- Quota units that the poller spent on the day that units_day begins: midnight Pacific standard time.
    ADD COLUMN units_today bigint,
    ADD COLUMN units_day timestamptz;
