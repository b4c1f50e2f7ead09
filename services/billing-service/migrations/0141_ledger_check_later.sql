-- The first check of the ledger is not in the minute of an upgrade, when there is enough to look at, nor at the hour of the next one.
-- Locks: none but that of the row.
update stripe_turns set next_at = now() + interval '6 hours' where name = 'ledger-checks' and next_at = 'epoch';
