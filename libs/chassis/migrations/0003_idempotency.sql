-- Answers to requests that carried an Idempotency-Key, written in the transaction of the request's effect: a repetition gets
-- the recorded answer and has no effect.
create table _idempotency (
    scope        text        not null,
    key          text        not null,
    request_hash bytea       not null,
    status       smallint    not null,
    body         bytea       not null,
    created_at   timestamptz not null,
    primary key (scope, key)
);

create index _idempotency_created_at on _idempotency (created_at);
