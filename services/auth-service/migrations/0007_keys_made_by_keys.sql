-- A key may make keys; they end with it, so that who revokes a stolen key need not look for what was made with it.
alter table api_keys add column created_by_key uuid references api_keys (id);
create index api_keys_created_by_key on api_keys (created_by_key);
