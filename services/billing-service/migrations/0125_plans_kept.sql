-- The statements of these functions take lists, and a list is planned for anew each time it is known at planning: the database thinks
-- that a plan for any list costs more. It is the same plan, by the index (`enable_seqscan` is off in each of them).
alter function apply_entries() set plan_cache_mode = force_generic_plan;
alter function apply_movements() set plan_cache_mode = force_generic_plan;
alter function check_entries() set plan_cache_mode = force_generic_plan;
alter function check_within_limit() set plan_cache_mode = force_generic_plan;
alter function move_house() set plan_cache_mode = force_generic_plan;
