-- An organization redeems a coupon once: applied again before each renewal, one for a single charge would take something off all of them. The
-- row goes with the transaction that redeems, and is taken away when the subscription ends without ever having begun.
create table coupon_redemptions (
    organization_id uuid        not null,
    code            text        not null,
    subscription_id uuid        not null references subscriptions (id),
    redeemed_at     timestamptz not null,
    primary key (organization_id, code)
);

grant select, insert, delete on coupon_redemptions to billing_app;

-- What was redeemed before this was kept, as the history has it.
insert into coupon_redemptions (organization_id, code, subscription_id, redeemed_at)
select distinct on (h.organization_id, h.code) h.organization_id, h.code, h.subscription_id, h.occurred_at
from (select c.organization_id, c.subscription_id, c.occurred_at,
             case c.command ->> 'kind' when 'start' then c.command ->> 'coupon' when 'apply_coupon' then c.command -> 'coupon' ->> 'code' end as code
      from subscription_changes c) h
where h.code is not null
  and not exists (select from subscription_changes over where over.subscription_id = h.subscription_id and over.status_before = 'incomplete'
                    and over.status_after in ('canceled', 'incomplete_expired'))
order by h.organization_id, h.code, h.occurred_at;
