-- A budget may be for a model too; and what a user has spent is asked for whenever a gateway reads what the organization may do, so it
-- must not take longer the more the organization's keys have used.
alter table budgets drop constraint budgets_scope_check;
alter table budgets add constraint budgets_scope_check check (scope in ('organization', 'user', 'api_key', 'model', 'tag'));

create index usage_events_user on usage_events (organization_id, user_id, ended_at) where user_id is not null;
