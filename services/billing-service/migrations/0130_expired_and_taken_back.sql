-- What of the credit that was taken back with its money had expired: the house gives that up, and the customer does not owe it.
alter table grant_takebacks add column expired_micros bigint not null default 0;
