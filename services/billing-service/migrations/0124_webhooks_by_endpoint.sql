-- What waits for one endpoint, so that the next message of others is found without passing over it.
create index webhook_deliveries_of_endpoint on webhook_deliveries (endpoint_id, next_attempt_at, id) where state = 'waiting';
