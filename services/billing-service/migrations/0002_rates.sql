-- Rate cards: immutable rows with half-open validity; for one model there is at most one at each instant. Amounts are
-- micro-units for a million tokens: what the customer pays, and what the provider takes.
create extension if not exists btree_gist;

create table rate_cards (
    id                bigint      generated always as identity primary key,
    model             text        not null,
    currency          text        not null default 'USD' check (currency ~ '^[A-Z]{3}$'),
    valid_from        timestamptz not null,
    valid_to          timestamptz,
    price_input       bigint not null check (price_input >= 0),
    price_cached      bigint not null check (price_cached >= 0),
    price_cache_write bigint not null check (price_cache_write >= 0),
    price_output      bigint not null check (price_output >= 0),
    price_reasoning   bigint not null check (price_reasoning >= 0),
    price_audio_in    bigint not null check (price_audio_in >= 0),
    price_audio_out   bigint not null check (price_audio_out >= 0),
    cost_input        bigint not null check (cost_input >= 0),
    cost_cached       bigint not null check (cost_cached >= 0),
    cost_cache_write  bigint not null check (cost_cache_write >= 0),
    cost_output       bigint not null check (cost_output >= 0),
    cost_reasoning    bigint not null check (cost_reasoning >= 0),
    cost_audio_in     bigint not null check (cost_audio_in >= 0),
    cost_audio_out    bigint not null check (cost_audio_out >= 0),
    constraint rate_cards_no_overlap exclude using gist (model with =, tstzrange(valid_from, valid_to, '[)') with &&)
);

grant select, insert on rate_cards to billing_app;
-- A card ends when another begins; nothing else of it changes.
grant update (valid_to) on rate_cards to billing_app;

-- The simulator's models and a dozen well-known ones, at list price with a fifth on top. Cost columns are the list prices.
insert into rate_cards (model, valid_from,
    cost_input, cost_cached, cost_cache_write, cost_output, cost_reasoning, cost_audio_in, cost_audio_out,
    price_input, price_cached, price_cache_write, price_output, price_reasoning, price_audio_in, price_audio_out)
select model, '2020-01-01T00:00:00Z',
    input, cached, write, output, output, audio_in, audio_out,
    input * 6 / 5, cached * 6 / 5, write * 6 / 5, output * 6 / 5, output * 6 / 5, audio_in * 6 / 5, audio_out * 6 / 5
from (values
    ('sim-small',           150000,   75000,   150000,   600000,        0,        0),
    ('sim-large',          2500000, 1250000,  2500000, 10000000,        0,        0),
    ('gpt-4o',             2500000, 1250000,  2500000, 10000000, 40000000, 80000000),
    ('gpt-4o-mini',         150000,   75000,   150000,   600000, 10000000, 20000000),
    ('gpt-4.1',            2000000,  500000,  2000000,  8000000,        0,        0),
    ('gpt-4.1-mini',        400000,  100000,   400000,  1600000,        0,        0),
    ('gpt-4.1-nano',        100000,   25000,   100000,   400000,        0,        0),
    ('gpt-5',              1250000,  125000,  1250000, 10000000,        0,        0),
    ('gpt-5-mini',          250000,   25000,   250000,  2000000,        0,        0),
    ('gpt-5-nano',           50000,    5000,    50000,   400000,        0,        0),
    ('o3',                 2000000,  500000,  2000000,  8000000,        0,        0),
    ('o4-mini',            1100000,  275000,  1100000,  4400000,        0,        0),
    ('claude-sonnet-4-5',  3000000,  300000,  3750000, 15000000,        0,        0),
    ('claude-haiku-4-5',   1000000,  100000,  1250000,  5000000,        0,        0),
    ('gemini-2.5-pro',     1250000,  310000,  1250000, 10000000,        0,        0),
    ('gemini-2.5-flash',    300000,   75000,   300000,  2500000,  1000000,        0)
) as list (model, input, cached, write, output, audio_in, audio_out);
