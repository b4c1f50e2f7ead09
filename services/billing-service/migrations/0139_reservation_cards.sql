-- A hold keeps the card it was made by. It was looked up again when the hold was settled, by the instant at which the hold was made; but a list
-- may take effect up to a minute before its import, so that a card which was not there yet priced what another one had held money for.
-- None for holds from before, and for those of older replicas, which write none: they are settled by that instant as before. No foreign key: the
-- service may not delete cards, and each hold would have to lock its card's row.
-- Locks: reservations, for as long as it takes to note its column.
alter table reservations add column rate_card_id bigint;
