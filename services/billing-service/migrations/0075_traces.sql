-- The trace in which something was wanted: what comes of it later, in another process and after an answer of Stripe's, belongs to the same one
-- (W3C Trace Context). Nothing but observation depends on it.
alter table checkouts add column traceparent text;
alter table intents add column traceparent text;
alter table stripe_events add column traceparent text;
