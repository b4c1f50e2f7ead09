-- What Stripe refuses for good was asked for once an hour for ever, and nobody was told: after a day it is set aside for an operator. What waits
-- behind it goes on waiting, since wishes about one thing are sent in order.
alter table intents
    add column refusals  integer not null default 0,
    add column parked_at timestamptz;
-- A handful of rows; found by whose they are.
create index intents_parked on intents (organization_id) where parked_at is not null;
grant update (refusals, parked_at) on intents to billing_app;
