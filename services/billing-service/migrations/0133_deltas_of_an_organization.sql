-- Whoever is to be admitted asks what an organization spent, of the rollups and of what was not added to them yet; and of that, as of tags (0120),
-- what one organization has there is nothing to another's, however much waits.
-- Locks: who posts usage waits meanwhile. What waits is a second's worth, or what came while nobody could add it: UPGRADE.md says how the indexes
-- are made before.
create index if not exists usage_deltas_organization on usage_deltas (organization_id);
create index if not exists spend_deltas_organization on spend_deltas (organization_id);
