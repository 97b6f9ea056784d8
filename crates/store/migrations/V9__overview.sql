-- What an operator looks at over all organisations, at a cost that does not grow with their connections.

-- Few connections are anything but active, and few facts make one so: no other fact touches this.
CREATE INDEX connection_states_amiss ON connection_states (state) WHERE state <> 'active';

-- Jobs lie about in the order in which they were asked for, so ranges of blocks are index enough. It costs whoever writes
-- them next to nothing, and no update has to leave its page for it.
CREATE INDEX jobs_requested ON jobs USING brin (requested_at) WITH (autosummarize = on);
