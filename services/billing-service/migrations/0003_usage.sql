-- Holds for requests under way, and what each request turned out to use. Both are unique by request, for ever: that, and not a
-- cache with an end, is what makes a second settlement impossible.
create table reservations (
    id              uuid        primary key,
    request_id      uuid        not null constraint reservations_request_id_key unique,
    request_hash    bytea       not null,
    organization_id uuid        not null,
    api_key_id      uuid,
    user_id         uuid,
    model           text        not null,
    provider        text        not null,
    currency        text        not null,
    amount_micros   bigint      not null check (amount_micros >= 0),
    state           text        not null check (state in ('held', 'settled', 'voided', 'abandoned')),
    trace_id        text,
    created_at      timestamptz not null,
    expires_at      timestamptz not null,
    resolved_at     timestamptz
);
create index reservations_held on reservations (expires_at) where state = 'held';
create index reservations_organization on reservations (organization_id) where state = 'held';

create table usage_events (
    request_id          uuid        primary key,
    organization_id     uuid        not null,
    api_key_id          uuid,
    user_id             uuid,
    model               text        not null,
    provider            text        not null,
    input_tokens        bigint      not null,
    cached_input_tokens bigint      not null,
    cache_write_tokens  bigint      not null,
    output_tokens       bigint      not null,
    reasoning_tokens    bigint      not null,
    audio_input_tokens  bigint      not null,
    audio_output_tokens bigint      not null,
    rate_card_id        bigint      not null references rate_cards (id),
    currency            text        not null,
    price_micros        bigint      not null,
    cost_micros         bigint      not null,
    counted_by          text        not null,
    outcome             text        not null,
    trace_id            text,
    started_at          timestamptz not null,
    ended_at            timestamptz not null,
    recorded_at         timestamptz not null
);
create index usage_events_organization on usage_events (organization_id, ended_at desc, request_id desc);

grant select, insert on reservations, usage_events to billing_app;
grant update (state, resolved_at) on reservations to billing_app;
-- Only an abandoned row is ever replaced, by what the request used after all.
grant update (input_tokens, cached_input_tokens, cache_write_tokens, output_tokens, reasoning_tokens, audio_input_tokens, audio_output_tokens,
    price_micros, cost_micros, counted_by, outcome, started_at, ended_at, recorded_at) on usage_events to billing_app;
