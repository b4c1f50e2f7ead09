-- The order in which transactions were posted. The time and the id cannot give it: several are of one instant, and ids of one
-- millisecond are in no order. Lists of an organization's transactions follow it.
alter table ledger_transactions add column position bigint generated always as identity;
drop index ledger_transactions_organization;
create unique index ledger_transactions_organization on ledger_transactions (organization_id, position desc);
