-- An event that cannot be handled comes again later, and is set aside (`parked`) after enough tries: it must not hold up the others.
alter table stripe_events
    add column attempts integer not null default 0,
    add column next_attempt_at timestamptz not null default now(),
    drop constraint stripe_events_state_check,
    add constraint stripe_events_state_check check (state in ('received', 'handled', 'ignored', 'parked'));
update stripe_events set next_attempt_at = received_at;
grant update (attempts, next_attempt_at) on stripe_events to billing_app;
