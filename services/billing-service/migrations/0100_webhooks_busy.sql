-- Each claim counts how many endpoints of an organization are being asked.
create index webhook_endpoints_busy on webhook_endpoints (busy_until) where busy_until is not null;
