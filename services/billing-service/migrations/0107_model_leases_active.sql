-- One lease for each model and one for all can be filled at a time; the index before knew of one for each organization. On a table of many
-- leases an operator makes it before the release (docs/operations/UPGRADE.md).
create unique index if not exists leases_active_of on leases (organization_id, coalesce(model, '')) where state in ('opening', 'open');
drop index leases_active;
