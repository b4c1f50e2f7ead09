-- A customer that is gone at Stripe is wanted anew: since then its new key counts, and what was done under it is looked for when that is a
-- day ago.
grant update (created_at) on stripe_customers to billing_app;
