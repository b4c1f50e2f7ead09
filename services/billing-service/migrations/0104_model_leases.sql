-- Credit that may pay for some models only is spent from leases of their own, one for each model: a lease that pays for every request
-- of an organization must not hold it.
alter table leases add column model text;
comment on column leases.model is 'The model whose requests alone are paid from it; null for all.';
