-- The ledger is checked once a day, and not only when somebody asks for it [B-36]: each check and how much it found, only ever inserted, so that
-- every replica tells what the last one found, also after a restart. What it found is in the log of whoever checked.
create table ledger_checks (
    -- In the order in which they ended, whatever the clock of whoever checked says.
    id           bigint      generated always as identity primary key,
    started_at   timestamptz not null,
    ended_at     timestamptz not null,
    -- Transactions under a seal, and seals, that were looked at.
    transactions bigint      not null,
    seals        bigint      not null,
    -- Lines that say what is wrong.
    differences  bigint      not null
);
grant select, insert on ledger_checks to billing_app;

-- The table is older than this use of it: a turn is whatever one replica at a time does from time to time.
insert into stripe_turns (name, next_at) values ('ledger-checks', 'epoch');
