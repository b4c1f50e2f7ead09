-- Rate cards get the dimensions that were missing (an hour's cache write, images, the request itself), tiers for long prompts,
-- cards of one organization that win over the general one, and a free allowance. A dimension without a rate is null, which makes
-- its use an error; zero means free. Until now zero meant "not for sale" for audio, and those zeros become nulls.
alter table rate_cards
    alter column price_audio_in drop not null,
    alter column price_audio_out drop not null,
    alter column cost_audio_in drop not null,
    alter column cost_audio_out drop not null,
    -- Null: for everybody without a card of their own.
    add column organization_id uuid,
    add column price_cache_write_1h bigint check (price_cache_write_1h >= 0),
    add column price_image bigint check (price_image >= 0),
    add column price_request bigint not null default 0 check (price_request >= 0),
    add column price_tiers jsonb not null default '[]' check (jsonb_typeof(price_tiers) = 'array'),
    add column cost_cache_write_1h bigint check (cost_cache_write_1h >= 0),
    add column cost_image bigint check (cost_image >= 0),
    add column cost_request bigint not null default 0 check (cost_request >= 0),
    add column cost_tiers jsonb not null default '[]' check (jsonb_typeof(cost_tiers) = 'array'),
    -- Micro-units of price that an organization does not pay in each calendar month (UTC).
    add column free_micros bigint not null default 0 check (free_micros >= 0);

update rate_cards set price_audio_in = null, cost_audio_in = null where price_audio_in = 0 and cost_audio_in = 0;
update rate_cards set price_audio_out = null, cost_audio_out = null where price_audio_out = 0 and cost_audio_out = 0;
-- An hour in the cache costs twice the input there.
update rate_cards set cost_cache_write_1h = cost_input * 2, price_cache_write_1h = cost_input * 2 * 6 / 5 where model like 'claude-%';

-- At most one card for a model and an organization (or for everybody) at each instant.
alter table rate_cards drop constraint rate_cards_no_overlap;
alter table rate_cards add constraint rate_cards_no_overlap exclude using gist (
    model with =, (coalesce(organization_id, '00000000-0000-0000-0000-000000000000'::uuid)) with =, tstzrange(valid_from, valid_to, '[)') with &&);
create index rate_cards_model on rate_cards (model, valid_from);

-- How much of its free allowance an organization has used up in a month.
create table rate_allowances (
    organization_id uuid   not null,
    model           text   not null,
    month           date   not null,
    used_micros     bigint not null check (used_micros >= 0),
    primary key (organization_id, model, month)
);
grant select, insert on rate_allowances to billing_app;
grant update (used_micros) on rate_allowances to billing_app;

alter table usage_events
    add column cache_write_1h_tokens bigint not null default 0,
    add column images bigint not null default 0;
grant update (cache_write_1h_tokens, images) on usage_events to billing_app;
