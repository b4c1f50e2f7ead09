-- What was written off is read beside the margin. Only rows that have some are in the index, so that it costs what there is of them.
create index usage_events_written_off on usage_events (ended_at) where written_off_micros > 0;
