-- What the tokens of a session may be used for is fixed when it begins, and refreshing never widens it. The defaults are the
-- first-party client and all scopes: for sessions that began before, and for those that the version before this one still begins
-- while it is being replaced. Without an audience the configured one counts.
alter table sessions
    add column client_id text not null default 'trivet',
    add column scope     text not null default 'chat:write models:read billing:read api_keys:read api_keys:write profile:read',
    add column audience  text;
