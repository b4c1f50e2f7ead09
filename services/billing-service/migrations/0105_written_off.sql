-- What of a request's price its organization is not charged, because it cost more than was taken for it (`BILLING_OVERAGE`).
alter table usage_events add column written_off_micros bigint not null default 0;
grant update (written_off_micros) on usage_events to billing_app;
