-- What has to be counted every few seconds is counted along an index that holds only that. Short: no rows are rewritten, and Stripe
-- sends an event again that waits meanwhile.
create index stripe_events_unhandled on stripe_events (state, received_at) where state not in ('handled', 'ignored');

-- The log of operators by what they did, newest first.
create index audit_log_action on audit_log (action, id desc);
-- What was logged of the catalogue beside it, in the one log that is listed. An older version that still runs writes where it did.
insert into audit_log (at, actor, action, reason, request, before, after, request_id, idempotency_key)
select occurred_at, coalesce(nullif(btrim(actor), ''), 'nobody'), action, 'none was asked for', jsonb_build_object('detail', detail), to_jsonb(before), to_jsonb(after), id, 'catalog_audit ' || id
from catalog_audit;
