-- What operators decided: who, what, why, and what it changed, in the transaction of the change [B-78]. Rows are only ever inserted. The
-- key makes a command that is repeated the same command; with another request under it, it is refused.
create table audit_log (
    id              bigint      generated always as identity primary key,
    at              timestamptz not null,
    actor           text        not null check (btrim(actor) <> ''),
    action          text        not null,
    organization_id uuid,
    reason          text        not null check (btrim(reason) <> ''),
    request         jsonb       not null,
    before          jsonb       not null,
    after           jsonb       not null,
    request_id      uuid        not null,
    idempotency_key text        not null constraint audit_log_idempotency_key unique
);
create index audit_log_organization on audit_log (organization_id, id desc);
create trigger audit_log_append_only before update or delete or truncate on audit_log for each statement execute function refuse_change();
grant select, insert on audit_log to billing_app;
