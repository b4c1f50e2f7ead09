-- Credit that could not be posted is looked at again later, so that what comes after it is posted meanwhile.
alter table subscription_grants add column next_at timestamptz;
grant update (next_at) on subscription_grants to billing_app;
