-- A top-up that nobody wants any more is failed like one that a card refused, and is told from it by this: only of such a one the wallet is
-- looked at again at once.
alter table top_ups add column given_up boolean not null default false;
grant update (given_up) on top_ups to billing_app;
