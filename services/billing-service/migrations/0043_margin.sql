-- What was sold below its cost: one row for each dimension, value and day, so that each is told once.
create table margin_alerts (
    dimension    text        not null check (dimension in ('organization', 'model', 'key')),
    value        text        not null,
    day          date        not null,
    currency     text        not null,
    -- What it came to when it was noticed.
    price_micros bigint      not null,
    cost_micros  bigint      not null,
    created_at   timestamptz not null,
    primary key (dimension, value, day, currency)
);
grant select, insert on margin_alerts to billing_app;
