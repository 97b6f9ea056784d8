//! The 12-hour schedule as arithmetic: a connection's slot is derived from its id, a job's id from connection and slot.
