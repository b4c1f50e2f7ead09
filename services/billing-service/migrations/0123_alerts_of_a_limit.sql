-- A budget whose limit was changed tells of the thresholds of its new limit in the same period: they are other amounts.
create unique index budget_alerts_once_for_a_limit on budget_alerts (budget_id, period_start, threshold, limit_micros);
alter table budget_alerts drop constraint budget_alerts_once;
alter table budget_alerts add constraint budget_alerts_once unique using index budget_alerts_once_for_a_limit;
