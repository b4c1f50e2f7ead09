-- What came from elsewhere and has had its effect: the row is written in the transaction of the effect, so that a second
-- delivery finds it and does nothing. Kept for longer than any sender repeats itself.
create table _inbox (
    source      text        not null,
    event_id    text        not null,
    received_at timestamptz not null,
    primary key (source, event_id)
);
