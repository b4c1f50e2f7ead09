-- An organization may have so many living keys and no more. They are counted each time one is made, along this index: what was revoked or has
-- ended, however much it is, is not read.
-- Locks: keys are few, at most some thousands of an organization; the index is made in the time of reading them once.
create index if not exists api_keys_living on api_keys (organization_id, coalesce(expires_at, 'infinity')) where revoked_at is null;
