-- Credit that comes with a subscription though nothing was to be paid for it: a plan that costs nothing, or a coupon that takes all off.
-- Ended and begun again, such a subscription would give it each time. So it is given for a calendar month (UTC) by one subscription of a
-- group of plans, and what is given for a year by one in all its months: until the month in which the period ends.
create table subscription_gifts (
    organization_id uuid        not null,
    plan_group      text        not null,
    subscription_id uuid        not null references subscriptions (id),
    until           timestamptz not null,
    updated_at      timestamptz not null,
    primary key (organization_id, plan_group)
);

grant select, insert on subscription_gifts to billing_app;
grant update (subscription_id, until, updated_at) on subscription_gifts to billing_app;
