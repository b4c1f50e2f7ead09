-- Reports that wait are looked for by the meter that they are for: those of one that cannot be had do not stand before all others.
create index stripe_meter_reports_waiting on stripe_meter_reports (stripe_meter_id, next_attempt_at, identifier) where state = 'pending';
drop index stripe_meter_reports_unsent;
