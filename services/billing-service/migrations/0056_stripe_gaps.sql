-- Events of Stripe's that nobody delivered are asked for [B-23]; and what is done from time to time is done by one replica at a time.
create table stripe_turns (
    name    text        primary key,
    next_at timestamptz not null
);
insert into stripe_turns (name, next_at) values ('gaps', 'epoch'), ('reconciliation', 'epoch');

-- How far Stripe's list of events was looked through. A walk goes from its newest event to its oldest, page by page, and may take
-- several rounds; when it is done, all before its newest is known here.
create table stripe_event_position (
    one         boolean     primary key default true check (one),
    known_until timestamptz not null,
    walk_until  timestamptz,
    -- The last event of the walk that was looked at.
    walk_after  text,
    constraint stripe_event_position_walk check (walk_after is null or walk_until is not null)
);
insert into stripe_event_position (known_until) values ('epoch');

grant select on stripe_turns, stripe_event_position to billing_app;
grant update (next_at) on stripe_turns to billing_app;
grant update (known_until, walk_until, walk_after) on stripe_event_position to billing_app;
