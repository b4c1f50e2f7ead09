-- An endpoint is asked one thing at a time: until when it may be busy with the last, should nobody say that it is over.
alter table webhook_endpoints add column busy_until timestamptz;
grant update (busy_until) on webhook_endpoints to billing_app;
