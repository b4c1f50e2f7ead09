-- Facts leave a service through this table: the row is written in the transaction that makes the fact true, and a relay
-- publishes it afterwards, at least once and in order per organization. Nothing is published that was rolled back.
create table _outbox (
    id              uuid        primary key,
    position        bigint      generated always as identity,
    kind            text        not null,
    organization_id uuid,
    payload         jsonb       not null,
    occurred_at     timestamptz not null,
    traceparent     text,
    sent_at         timestamptz
);

-- The relay looks for what is not sent, oldest first; the index holds only those rows.
create index _outbox_unsent on _outbox (position) where sent_at is null;
