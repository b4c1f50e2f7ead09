-- Several events and wishes are worked on at once. Events about one object are taken together: whoever takes one finds the others. What is to be
-- sent is taken in its order, without sorting all that waits.
create index stripe_events_object on stripe_events ((payload #>> '{data,object,id}')) where state = 'received';
create index intents_unsent_in_order on intents (position) where sent_at is null;
