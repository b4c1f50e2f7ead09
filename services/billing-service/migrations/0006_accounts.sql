-- Every organization has its three accounts from the beginning, and the house its own: whoever locks "all accounts of" somebody
-- then locks all there will ever be, and nobody waits for an account that another transaction is just making.
insert into accounts (id, organization_id, kind, currency)
select gen_random_uuid(), w.organization_id, k.kind, w.currency from wallets w cross join (values ('wallet'), ('holds'), ('debt')) as k (kind)
on conflict on constraint accounts_owner_kind_currency_key do nothing;
insert into accounts (id, organization_id, kind, currency)
select gen_random_uuid(), null, k.kind, 'USD' from (values ('revenue'), ('provider_cost'), ('provider_payable'), ('promotion')) as k (kind)
on conflict on constraint accounts_owner_kind_currency_key do nothing;

-- An account begins with nothing: a balance comes from entries only.
revoke insert on accounts from billing_app;
grant insert (id, organization_id, kind, currency) on accounts to billing_app;

-- Row locks need the right to update a column (`id`, of 0001); that no account becomes another is held here, for everybody.
create function refuse_account_change() returns trigger language plpgsql as $$
begin
    raise exception 'account % cannot become another', old.id using errcode = 'check_violation', constraint = 'accounts_fixed';
end $$;
create trigger accounts_fixed before update on accounts for each row
    when ((old.id, old.organization_id, old.kind, old.currency) is distinct from (new.id, new.organization_id, new.kind, new.currency))
    execute function refuse_account_change();
